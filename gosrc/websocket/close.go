package websocket

import (
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// CloseWith implements call.WebSocket.
func (c *Conn) CloseWith(code int, reason []byte) {
	if c.phase != open {
		return
	}
	c.call = nil // dispatch has ended it
	c.beginClosing(code, reason)
}

// Fail implements call.Answer: 1011 where the app failed, 1012 where its worker ended.
func (c *Conn) Fail(status int, _ string, _ int) {
	if c.phase != open {
		return
	}
	c.call = nil // dispatch has ended it
	if status == 500 {
		c.beginClosing(codeInternal, []byte(reasonInternal))
	} else {
		c.beginClosing(codeRestart, []byte(reasonRestart))
	}
}

// Restart implements call.WebSocket.
func (c *Conn) Restart() {
	if c.phase != open {
		return
	}
	ended := c.call
	c.call = nil
	c.beginClosing(codeRestart, []byte(reasonRestart))
	if ended != nil {
		ended.Closed(codeRestart, []byte(reasonRestart))
	}
}

// beginClosing sends the first close frame and waits for the peer's (RFC 6455 7.1.2).
func (c *Conn) beginClosing(code int, reason []byte) {
	c.writeClose(code, reason)
	c.phase = closing
	c.config.Count(Closing)
	c.closeBy = c.carrier.Now() + int64(c.config.CloseTimeout)
	c.arm()
	c.proceed() // nobody lags any more
}

// peerCloses is gorilla's handler of close frames. The answer repeats the code, as is usual
// (RFC 6455 5.5.1).
func (c *Conn) peerCloses(code int, text string) error {
	if c.phase == open {
		c.writeClose(code, nil)
		if ended := c.call; ended != nil {
			c.call = nil
			ended.Closed(code, []byte(text))
		}
	}
	c.finish()
	return nil
}

// fail ends a connection whose peer breaks the rules (RFC 6455 7.1.7). It does not wait for
// a close frame: what comes from such a peer is not read any more.
func (c *Conn) fail(v *violation) {
	if c.phase == open {
		c.writeClose(v.code, []byte(v.reason))
	}
	c.failed(v)
}

func (c *Conn) failed(v *violation) {
	if c.phase == gone {
		return
	}
	c.config.Count(v.event)
	ended := c.call
	c.finish()
	if ended != nil {
		ended.Closed(v.code, []byte(v.reason))
	}
}

// writeClose writes a close frame. A code that must not be sent is left out (RFC 6455 7.4.1).
func (c *Conn) writeClose(code int, reason []byte) {
	c.writer = nil // what is missing of a message is not sent any more
	if !sendable(code) {
		c.writeControl(websocket.CloseMessage, nil)
		return
	}
	for len(reason) > maxReason || !utf8.Valid(reason) {
		reason = reason[:len(reason)-1]
	}
	c.writeControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, string(reason)))
}

func sendable(code int) bool {
	return code >= 1000 && code <= 1014 && code != 1004 && code != codeNoStatus && code != codeAbnormal ||
		code >= 3000 && code <= 4999
}
