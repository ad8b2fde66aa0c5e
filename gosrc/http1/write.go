package http1

import (
	"fmt"
	"strconv"

	"spvn/gosrc/call"
)

// appendHead appends the head of the app's answer and settles its framing. n is the length
// of the first part of the body, last says that it is all of it. If the answer cannot be
// sent it returns the reason, and what was appended must not be committed.
func (c *Conn) appendHead(b []byte, status int, fields []call.Field, n int, last bool) (_ []byte, problem string) {
	if status < 200 || status > 999 {
		return b, fmt.Sprintf("the status %d is not one of a final answer (200 to 999)", status)
	}
	b = appendStatusLine(b, status)
	length := int64(-1)
	date, server := false, false
	for i := range fields {
		f := &fields[i]
		if problem := invalidField(f); problem != "" {
			return b, problem
		}
		switch len(f.Name) {
		case 4:
			date = date || equalFold(f.Name, "date")
		case 6:
			server = server || equalFold(f.Name, "server")
		case 10:
			// The connection is ours to speak of (RFC 9110 7.6.1).
			if equalFold(f.Name, "keep-alive") {
				continue
			}
			if equalFold(f.Name, "connection") {
				if hasElement(f.Value, "close") {
					c.persist = false
				}
				if !hasElement(f.Value, "upgrade") {
					continue
				}
				b = append(b, "connection: upgrade\r\n"...)
				continue
			}
		case 14:
			if equalFold(f.Name, "content-length") {
				v, ok := decimal(trim(f.Value))
				if !ok || length >= 0 && v != length {
					return b, fmt.Sprintf("content-length %q is not a number of bytes, or not the only one", f.Value)
				}
				length = v
				continue
			}
		case 17:
			if equalFold(f.Name, "transfer-encoding") {
				// Framing is ours; the app may only say what we do anyway.
				if v := trim(f.Value); !equalFold(v, "chunked") && !equalFold(v, "identity") {
					return b, fmt.Sprintf("transfer-encoding %q cannot be done here; leave the field out", f.Value)
				}
				continue
			}
		}
		b = appendField(b, *f)
	}
	b = c.appendStandard(b, fields, date, server)

	c.framing, c.answerLeft = framingNone, 0
	switch {
	case status == 204:
		length = -1 // RFC 9110 8.6
	case status == 304 || c.isHead:
		// What a GET would get, if the app says so.
	case length >= 0:
		if last && int64(n) != length {
			return b, fmt.Sprintf("content-length is %d, but the body has %d bytes", length, n)
		}
		c.framing, c.answerLeft = framingLength, length
	case last:
		length = int64(n)
		c.framing, c.answerLeft = framingLength, length
	case c.old:
		c.framing = framingClose
		c.persist = false
	default:
		c.framing = framingChunked
		b = append(b, "transfer-encoding: chunked\r\n"...)
	}
	if length >= 0 {
		b = appendLength(b, length)
	}
	return c.appendEndOfHead(b), ""
}

// appendStandard appends Date, Server and what the user adds to every answer, but no field
// that the app has set.
func (c *Conn) appendStandard(b []byte, fields []call.Field, date, server bool) []byte {
	s := c.config.fields(c.carrier.Now())
	if !date && !server && len(c.config.Headers) == 0 {
		return append(b, s.block...)
	}
	if !date {
		b = append(b, s.block[:s.date]...)
	}
	if !server {
		b = append(b, s.block[s.date:s.server]...)
	}
next:
	for _, extra := range c.config.Headers {
		for _, f := range fields {
			if len(f.Name) == len(extra.Name) && sameName(f.Name, extra.Name) {
				continue next
			}
		}
		b = appendField(b, extra)
	}
	return b
}

func sameName(a, b []byte) bool {
	for i := range a {
		if tokenLower[a[i]] != tokenLower[b[i]] {
			return false
		}
	}
	return true
}

// appendEndOfHead says what happens to the connection, where that is not what the version
// implies (RFC 9112 9.3), and ends the head.
func (c *Conn) appendEndOfHead(b []byte) []byte {
	if c.persist && (c.draining || c.config.Draining != nil && c.config.Draining()) {
		c.persist = false
	}
	switch {
	case !c.persist:
		b = append(b, "connection: close\r\n"...)
	case c.old:
		b = append(b, "connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// respondText writes a whole answer of the core's own: one sentence of plain text.
func (c *Conn) respondText(status int, text string, retryAfter int, closing bool) {
	if closing || !c.body.done() && !c.worthDiscarding() {
		c.persist = false
	}
	b := appendStatusLine(c.carrier.Buffer(), status)
	s := c.config.fields(c.carrier.Now())
	b = append(b, s.block...)
	b = append(b, "content-type: text/plain; charset=utf-8\r\n"...)
	if retryAfter > 0 {
		b = append(b, "retry-after: "...)
		b = strconv.AppendInt(b, int64(retryAfter), 10)
		b = append(b, "\r\n"...)
	}
	b = appendLength(b, int64(len(text)))
	b = c.appendEndOfHead(b)
	if !c.isHead {
		b = append(b, text...)
	}
	c.carrier.Commit(b)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "content-length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

func appendField(b []byte, f call.Field) []byte {
	b = append(b, f.Name...)
	b = append(b, ": "...)
	b = append(b, f.Value...)
	return append(b, "\r\n"...)
}

// invalidField says why a field of the app cannot be sent; "" if it can. CR, LF and NUL
// would let the app's data write the head (RFC 9110 5.5).
func invalidField(f *call.Field) string {
	if !validToken(f.Name) {
		return fmt.Sprintf("the field name %q is empty or has a character that is not allowed", f.Name)
	}
	for i := 0; ; i++ {
		if i = control(f.Value, i); i >= len(f.Value) {
			return ""
		}
		if c := f.Value[i]; c == '\r' || c == '\n' || c == 0 {
			return fmt.Sprintf("the value of the field %q has a CR, LF or NUL", f.Name)
		}
	}
}

// allowedTrailer reports whether a field may stand behind the body (RFC 9110 6.5.1): not
// what frames, routes or ends a message.
func allowedTrailer(name []byte) bool {
	for _, n := range [...]string{
		"transfer-encoding", "content-length", "host", "connection", "trailer", "te", "upgrade",
		"content-encoding", "content-type", "content-range", "authorization", "set-cookie",
	} {
		if equalFold(name, n) {
			return false
		}
	}
	return true
}
