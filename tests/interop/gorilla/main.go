// Command client talks to a server with gorilla/websocket and says what is not as it should be.
//
//	client ws://HOST:PORT
//
// /ws sends every message back and closes with 4000 "as you like" on "bye"; the subprotocol "chat" is accepted.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 10 * time.Second

func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(what string, got, want any) {
	if got != want {
		check(what, fmt.Errorf("got %v; want %v", got, want))
	}
}

func open(url string, compress bool) *websocket.Conn {
	dialer := websocket.Dialer{HandshakeTimeout: patience, EnableCompression: compress, Subprotocols: []string{"other", "chat"}}
	c, answer, err := dialer.Dial(url+"/ws", http.Header{"Origin": {"http://example.com"}})
	check("open", err)
	expect("status", answer.StatusCode, 101)
	expect("subprotocol", c.Subprotocol(), "chat")
	granted := strings.HasPrefix(answer.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
	expect("compression", granted, compress)
	c.SetReadDeadline(time.Now().Add(patience))
	return c
}

func back(what string, c *websocket.Conn, kind int, want []byte) {
	got, b, err := c.ReadMessage()
	check(what, err)
	expect(what+": kind", got, kind)
	expect(what+": equal", bytes.Equal(b, want), true)
}

// closed reads until the server closes, and compares how.
func closed(what string, c *websocket.Conn, code int, reason string) {
	_, _, err := c.ReadMessage()
	var e *websocket.CloseError
	if !errors.As(err, &e) {
		check(what, fmt.Errorf("no close frame: %v", err))
	}
	expect(what+": code", e.Code, code)
	expect(what+": reason", e.Text, reason)
	c.Close()
}

func echoes(c *websocket.Conn) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		b := bytes.Repeat([]byte("spvn"), n/4+1)[:n]
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			check("write", c.WriteMessage(kind, b))
			back(fmt.Sprintf("echo of %d bytes", n), c, kind, b)
		}
	}
	// gorilla's writer cuts a message into fragments of its buffer's size.
	w, err := c.NextWriter(websocket.TextMessage)
	check("fragments", err)
	whole := []byte(strings.Repeat("grüße ", 5000))
	for i := 0; i < len(whole); i += 999 {
		_, err := w.Write(whole[i:min(len(whole), i+999)])
		check("fragment", err)
	}
	check("last fragment", w.Close())
	back("fragments", c, websocket.TextMessage, whole)
}

func pings(c *websocket.Conn) {
	pong := ""
	c.SetPongHandler(func(payload string) error { pong = payload; return nil })
	check("ping", c.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience)))
	check("write", c.WriteMessage(websocket.TextMessage, []byte("behind the ping")))
	back("behind the ping", c, websocket.TextMessage, []byte("behind the ping"))
	expect("pong", pong, "are you there")
}

// awaitPing waits for a ping of the server's; gorilla answers it, and the server goes on.
func awaitPing(c *websocket.Conn) {
	errPinged := errors.New("pinged")
	answer := c.PingHandler()
	c.SetPingHandler(func(payload string) error { answer(payload); return errPinged })
	if _, _, err := c.ReadMessage(); err != errPinged {
		check("a ping of the server's", fmt.Errorf("%v", err))
	}
	c.Close()
}

func main() {
	url := os.Args[1]
	for _, compress := range []bool{false, true} {
		c := open(url, compress)
		echoes(c)
		pings(c)
		check("bye", c.WriteMessage(websocket.TextMessage, []byte("bye")))
		closed("the app closes", c, 4000, "as you like")

		c = open(url, compress)
		check("close", c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4321, "enough"), time.Now().Add(patience)))
		closed("the client closes", c, 4321, "")
	}
	c := open(url, false)
	check("close", c.WriteControl(websocket.CloseMessage, nil, time.Now().Add(patience)))
	closed("without a code", c, websocket.CloseNoStatusReceived, "")

	c = open(url, false)
	check("not UTF-8", c.WriteMessage(websocket.TextMessage, []byte("\xff")))
	closed("not UTF-8", c, websocket.CloseInvalidFramePayloadData, "text is not UTF-8")

	awaitPing(open(url, false))

	_, answer, err := websocket.DefaultDialer.Dial(url+"/none", nil)
	if err == nil || answer == nil {
		check("a path that is not there", fmt.Errorf("it opens: %v", err))
	}
}
