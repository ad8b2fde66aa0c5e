package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is the call that a run repeats. Its request is written once, in one piece.
type target struct {
	addr    string
	method  string
	path    string
	size    int    // bytes of request body
	text    string // a JSON body instead
	timeout time.Duration
	request []byte
	parsed  *http.Request // what http.ReadResponse needs to know of the request
}

func (t *target) flags(f *flag.FlagSet) {
	f.StringVar(&t.addr, "addr", "127.0.0.1:8000", "`host:port` of the server")
	f.StringVar(&t.method, "method", "GET", "request method")
	f.StringVar(&t.path, "path", "/", "request path")
	f.IntVar(&t.size, "body", 0, "bytes of request body")
	f.StringVar(&t.text, "text", "", "a JSON request body instead of -body")
	f.DurationVar(&t.timeout, "timeout", 30*time.Second, "longest wait for one step: connecting, one whole call")
}

func (t *target) prepare() error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", t.method, t.path, t.addr)
	body, contentType := bytes.Repeat([]byte{'x'}, t.size), "application/octet-stream"
	if t.text != "" {
		body, contentType = []byte(t.text), "application/json"
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\n", contentType, len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	t.request = b.Bytes()
	parsed, err := http.NewRequest(t.method, "http://"+t.addr+t.path, nil)
	t.parsed = parsed
	return err
}

// client is one keep-alive connection; one goroutine uses it.
type client struct {
	net.Conn
	reader *bufio.Reader
}

// perSource bounds the connections from one loopback address: a burst of 18,000 after another one would
// otherwise run out of ports while the old ones are in TIME_WAIT.
const perSource = 8000

// dial connects connection number n.
func (t *target) dial(n int) (*client, error) {
	return t.dialBefore(n, time.Now().Add(t.timeout))
}

func (t *target) dialBefore(n int, deadline time.Time) (*client, error) {
	d := net.Dialer{Deadline: deadline, KeepAlive: -1}
	if host, _, err := net.SplitHostPort(t.addr); err == nil && host == "127.0.0.1" {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+n/perSource))}
		// Without it bind(2) would take a port number away from every destination at once.
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var set error
			err := raw.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			if err != nil {
				return err
			}
			return set
		}
	}
	conn, err := d.DialContext(context.Background(), "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	return &client{Conn: conn, reader: bufio.NewReaderSize(conn, 2048)}, nil
}

// call asks once and reads the whole answer. stage says where an error happened; reusable whether the
// connection may carry another call.
func (c *client) call(t *target) (code int, reusable bool, stage string, err error) {
	return c.callBefore(t, time.Now().Add(t.timeout))
}

func (c *client) callBefore(t *target, deadline time.Time) (code int, reusable bool, stage string, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return 0, false, "write", err
	}
	if _, err := c.Write(t.request); err != nil {
		return 0, false, "write", err
	}
	answer, err := http.ReadResponse(c.reader, t.parsed)
	if err != nil {
		return 0, false, "read", err
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, false, "read body", err
	}
	return answer.StatusCode, !answer.Close, "", nil
}
