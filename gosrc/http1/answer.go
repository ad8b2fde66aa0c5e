package http1

import (
	"fmt"
	"strconv"

	"spvn/gosrc/call"
)

// framing is how the end of an answer's body is known (RFC 9112 6.3).
type framing uint8

const (
	framingNone    framing = iota // it has none: HEAD, 204, 304
	framingLength                 // Content-Length
	framingChunked                //
	framingClose                  // the end of the connection: HTTP/1.0
)

// Respond implements call.Answer. Head and body are one piece of output.
func (c *Conn) Respond(status int, fields []call.Field, body []byte, last, trailers bool) {
	if c.closed || !c.active || c.answering != answerDue {
		return
	}
	// What was not asked for by now is not sent any more.
	if last && c.persist && !c.body.done() && !c.worthDiscarding() {
		c.persist = false
	}
	b, problem := c.appendHead(c.carrier.Buffer(), status, fields, len(body), last)
	if problem != "" {
		c.instead(problem, last)
		return
	}
	c.answering = answerStarted
	c.write(b, body, last)
}

// RespondBody implements call.Answer.
func (c *Conn) RespondBody(body []byte, last bool) {
	if c.closed || c.answering != answerStarted {
		return
	}
	c.write(c.carrier.Buffer(), body, last)
}

// write appends body, in its framing, to b and commits it.
func (c *Conn) write(b, body []byte, last bool) {
	taken := len(body)
	switch c.framing {
	case framingNone:
		taken = 0
	case framingLength:
		if int64(taken) > c.answerLeft {
			taken = int(c.answerLeft)
			c.tooLong()
		}
		c.answerLeft -= int64(taken)
		c.carrier.CommitBody(b, body[:taken])
		c.written(body, taken, last)
		return
	case framingChunked:
		switch {
		case c.trailing:
			taken = 0 // behind the trailers
		case taken > 0:
			b = strconv.AppendUint(b, uint64(taken), 16)
			b = append(b, "\r\n"...)
			b = append(b, body...)
			b = append(b, "\r\n"...)
		}
		if last {
			b = c.appendEnd(b)
		}
	case framingClose:
		b = append(b, body...)
	}
	c.carrier.Commit(b)
	c.written(body, taken, last)
}

// written takes note that a part of the answer's body was committed, as far as it was taken.
func (c *Conn) written(body []byte, taken int, last bool) {
	if last {
		c.end()
		return
	}
	c.unsent += int64(taken)
	if dropped := len(body) - taken; dropped > 0 && c.call != nil {
		c.call.Sent(dropped)
	}
}

// tooLong takes note of an app that sends more than its Content-Length. The client gets
// what it was promised; the connection is not used again, as nobody knows what was meant.
func (c *Conn) tooLong() {
	c.persist = false
	if !c.excess {
		c.excess = true
		c.config.log("error", "the app sent more body than its content-length says; the rest was dropped and the connection closed")
	}
}

// end ends the answer, or cuts the connection if it is shorter than promised.
func (c *Conn) end() {
	c.call = nil // dispatch has ended it
	if c.framing == framingLength && c.answerLeft > 0 {
		c.config.log("error", fmt.Sprintf("the app sent %d bytes of body less than its content-length says; the connection was cut", c.answerLeft))
		c.cut()
		return
	}
	c.finish()
}

// RespondTrailers implements call.Answer. They go to a client that asked for them
// (RFC 9110 6.5.1), and are dropped for any other.
func (c *Conn) RespondTrailers(fields []call.Field, last bool) {
	if c.closed || c.answering != answerStarted {
		return
	}
	b := c.carrier.Buffer()
	if c.framing == framingChunked {
		if c.trailers {
			if !c.trailing {
				c.trailing = true
				b = append(b, "0\r\n"...)
			}
			for i := range fields {
				f := &fields[i]
				if problem := invalidField(f); problem != "" || !allowedTrailer(f.Name) {
					c.config.log("error", fmt.Sprintf("the app's trailer field %q cannot be sent; it was dropped", f.Name))
					continue
				}
				b = appendField(b, *f)
			}
		}
		if last {
			b = c.appendEnd(b)
		}
	}
	c.carrier.Commit(b)
	if last {
		c.end()
	}
}

// appendEnd ends a chunked body.
func (c *Conn) appendEnd(b []byte) []byte {
	if c.trailing {
		return append(b, "\r\n"...)
	}
	return append(b, "0\r\n\r\n"...)
}

// Informational implements call.Answer. HTTP/1.0 has no interim answers (RFC 9110 15.2).
func (c *Conn) Informational(status int, fields []call.Field) {
	if c.closed || !c.active || c.answering != answerDue || c.old {
		return
	}
	if status < 102 || status > 199 { // 100 is ours to send, and 101 is an upgrade
		c.config.log("error", fmt.Sprintf("the app's interim answer has the status %d; it was dropped (103 would do)", status))
		return
	}
	b := appendStatusLine(c.carrier.Buffer(), status)
	for i := range fields {
		if problem := invalidField(&fields[i]); problem != "" {
			c.config.log("error", "the app's interim answer was dropped: "+problem)
			return
		}
		b = appendField(b, fields[i])
	}
	c.carrier.Commit(append(b, "\r\n"...))
}

// Continue implements call.Answer.
func (c *Conn) Continue() {
	if c.closed || !c.active || !c.expect || c.answering != answerDue {
		return
	}
	c.expect = false
	c.carrier.Commit(append(c.carrier.Buffer(), "HTTP/1.1 100 Continue\r\n\r\n"...))
	if !c.running {
		c.rest()
	}
}

// Resume implements call.Answer.
func (c *Conn) Resume() {
	if c.closed || !c.active || c.running || !c.paused {
		return
	}
	c.rest()
}

// Fail implements call.Answer.
func (c *Conn) Fail(status int, text string, retryAfter int) {
	if c.closed || !c.active || c.answering == answerDone {
		return
	}
	c.call = nil // dispatch has ended it
	if c.answering == answerStarted {
		c.cut()
		return
	}
	c.respondText(status, text, retryAfter, false)
	c.finish()
}

// instead answers 500 in place of an answer that cannot be sent. The app may go on sending;
// it is told that nobody listens.
func (c *Conn) instead(problem string, last bool) {
	c.config.log("error", "the app's answer cannot be sent, the client got a 500: "+problem)
	left := c.call
	c.call = nil
	c.respondText(500, "Internal Server Error", 0, false)
	if left != nil && !last {
		left.Leave()
	}
	c.finish()
}
