package websocket

import (
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// CloseWith implements call.WebSocket.
func (c *Conn) CloseWith(code int, reason []byte) {
	c.end(code, reason)
}

// end is CloseWith and Fail; dispatch has ended the call.
func (c *Conn) end(code int, reason []byte) {
	switch c.phase {
	case open:
		c.call = nil
		c.beginClosing(code, reason)
	case failing:
		c.call = nil
		c.conclude()
	}
}

// Fail implements call.Answer: 1011 where the app failed, 1012 where its worker ended.
func (c *Conn) Fail(status int, _ string, _ int) {
	if status == 500 {
		c.end(codeInternal, []byte(reasonInternal))
	} else {
		c.end(codeRestart, []byte(reasonRestart))
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

// peerCloses is told of the peer's close frame. The answer repeats the code, as is usual
// (RFC 6455 5.5.1).
func (c *Conn) peerCloses(code int, reason []byte) {
	if c.phase == open {
		c.writeClose(code, nil)
		if ended := c.call; ended != nil {
			c.call = nil
			ended.Closed(code, reason)
		}
	}
	c.finish()
}

// fail ends a connection whose peer breaks the rules (RFC 6455 7.1.7): nothing that it sends
// is looked at any more, nor is its close frame waited for. What it sent before that was in
// order, and the app may be at it: that is answered first, if it is within FailTimeout.
func (c *Conn) fail(v *violation) {
	if c.phase == failing || c.phase == gone {
		return
	}
	c.config.Count(v.event)
	if c.phase == closing {
		c.finish()
		return
	}
	c.phase, c.violation = failing, v
	c.rest, c.control = nil, nil
	c.heldUp = false
	c.drop()
	c.closeBy = c.carrier.Now() + int64(c.config.FailTimeout)
	c.arm()
	if !c.running {
		c.pause(false) // or nobody sees the peer go
	}
	c.call.Failing(v.code, []byte(v.reason))
}

// conclude closes a connection that was failing.
func (c *Conn) conclude() {
	v, ended := c.violation, c.call
	c.writeClose(v.code, []byte(v.reason))
	c.finish()
	if ended != nil {
		ended.Closed(v.code, []byte(v.reason))
	}
}

// writeClose writes a close frame. A code that must not be sent is left out (RFC 6455 7.4.1).
func (c *Conn) writeClose(code int, reason []byte) {
	c.dropWriter() // what is missing of a message is not sent any more
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
