package http1

import (
	"bytes"

	"spvn/gosrc/call"
)

// head parses the head of a request, line by line. Strategy: parse gets all bytes of the
// head that are there, from its first one; it takes whole lines and returns 0 when it needs
// more. Called again with more behind the same bytes it goes on with the line that was
// incomplete. Slices it keeps point into those bytes, so whoever moves them calls reset and
// parses again from the start.
//
// The limits are put on the view of the bytes, not on the lines: running off a view that
// was cut at a limit is what breaks it. So a verdict is that of the first byte at which
// there is one, however the input was cut.
type head struct {
	at      int // where the next line starts
	fieldAt int // where the field lines start; 0 while the request line is incomplete

	method, target []byte
	version        uint8
	fields         []call.Field
	names          []byte // the names in lower case, and what target.go decodes

	meaning
	request call.Request // here and not on the stack: it goes through an interface
}

// reset forgets everything but the allocated memory.
func (h *head) reset() {
	h.at, h.fieldAt = 0, 0
	h.method, h.target = nil, nil
	h.fields, h.names = h.fields[:0], h.names[:0]
	h.meaning = meaning{host: -1, length: -1}
}

// parse returns the length of the head once it is complete, or 0 for more input, or why the
// request is refused.
func (h *head) parse(b []byte, cfg *Config) (int, *Refusal) {
	if h.fieldAt == 0 {
		if r := h.requestLine(b, cfg); r != nil || h.fieldAt == 0 {
			return 0, r
		}
	}
	view := b
	cut := h.fieldAt+cfg.LimitHeaderBytes < len(b)
	if cut {
		view = b[:h.fieldAt+cfg.LimitHeaderBytes]
	}
	for {
		if h.at >= len(view) {
			break
		}
		if view[h.at] == '\r' {
			if h.at+1 >= len(view) {
				break
			}
			if view[h.at+1] != '\n' {
				return 0, badLineEnd
			}
			return h.at + 2, nil
		}
		if len(h.fields) >= cfg.LimitHeaderCount {
			return 0, manyFields
		}
		next, r := h.fieldLine(view)
		if r != nil {
			return 0, r
		}
		if next == 0 {
			break
		}
		h.at = next
	}
	if cut {
		return 0, largeFields
	}
	return 0, nil
}

// requestLine parses METHOD SP TARGET SP VERSION CRLF (RFC 9112 3).
func (h *head) requestLine(b []byte, cfg *Config) *Refusal {
	if len(b) == 0 {
		return nil
	}
	if b[0] == 0x16 { // a TLS record of type handshake; its version starts with 3
		switch {
		case len(b) == 1:
			return nil
		case b[1] == 0x03:
			return isTLS
		}
		return badStart
	}
	view := b
	cut := cfg.LimitRequestLine < len(b)
	if cut {
		view = b[:cfg.LimitRequestLine]
	}
	m := 0
	for m < len(view) && tokenLower[view[m]] != 0 {
		if m++; m > maxMethod {
			return longMethod
		}
	}
	switch {
	case m == len(view):
		return tooLong(cut)
	case m == 0:
		return badStart
	case view[m] != ' ':
		return badMethod
	}
	t := m + 1
	for t < len(view) && targetClass[view[t]] != targetBad {
		t++
	}
	switch {
	case t == len(view):
		return tooLong(cut)
	case view[t] == '\r' || view[t] == '\n' || t == m+1:
		return badRequestLine // HTTP/0.9, or a second space
	case view[t] != ' ':
		return badTarget
	}
	// The version: 8 bytes, and CRLF, which the limit leaves out.
	const format = "HTTP/"
	v := t + 1
	for i := range 10 {
		if v+i >= len(b) {
			return nil
		}
		if i < 8 && v+i >= cfg.LimitRequestLine {
			return longRequestLine
		}
		c := b[v+i]
		ok := false
		switch {
		case i < 5:
			ok = c == format[i]
		case i == 6:
			ok = c == '.'
		case i < 8:
			ok = '0' <= c && c <= '9'
		default:
			if ok = c == "\r\n"[i-8]; !ok && (c == '\n' || i == 9) {
				return badLineEnd
			}
		}
		if !ok {
			return badVersion
		}
	}
	h.method, h.target = b[:m:m], b[m+1:t:t]
	major, minor := b[v+5], b[v+7]
	switch {
	case major == '2' && string(h.method) == "PRI" && string(h.target) == "*":
		return isHTTP2
	case major != '1':
		return wrongVersion
	case minor == '0':
		h.version = 10
	default:
		// A higher minor version is answered as the highest one known (RFC 9110 2.5).
		h.version = 11
	}
	h.at = v + 10
	h.fieldAt = h.at
	return nil
}

func tooLong(cut bool) *Refusal {
	if cut {
		return longRequestLine
	}
	return nil
}

// fieldLine parses NAME ":" OWS VALUE OWS CRLF (RFC 9112 5) at h.at. It returns where the
// next line starts, or 0 when the line is incomplete.
func (h *head) fieldLine(b []byte) (int, *Refusal) {
	i := h.at
	start := len(h.names)
	names := h.names
	for i < len(b) {
		c := tokenLower[b[i]]
		if c == 0 {
			break
		}
		names = append(names, c)
		i++
	}
	if i == len(b) {
		return 0, nil
	}
	if b[i] != ':' || i == h.at {
		return 0, badNameAt(b[i], i == h.at)
	}
	i++
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	value := i
	for {
		i = control(b, i)
		if i >= len(b) {
			return 0, nil
		}
		if b[i] != '\t' {
			break
		}
		i++
	}
	if b[i] != '\r' {
		if b[i] == '\n' {
			return 0, badLineEnd
		}
		return 0, badControl
	}
	if i+1 >= len(b) {
		return 0, nil
	}
	if b[i+1] != '\n' {
		return 0, badLineEnd
	}
	end := i
	for end > value && (b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	h.names = names
	f := call.Field{Name: names[start:len(names):len(names)], Value: b[value:end:end]}
	h.fields = append(h.fields, f)
	if r := h.note(f); r != nil {
		return 0, r
	}
	return i + 2, nil
}

// badNameAt says what is wrong with a field line whose name ends with c.
func badNameAt(c byte, empty bool) *Refusal {
	switch {
	case empty && (c == ' ' || c == '\t'):
		return badFolding
	case c == ' ' || c == '\t':
		return badColon
	case c == '\n':
		return badLineEnd
	}
	return badName
}

// decodePath undoes percent-encoding (RFC 3986 2.1) into the memory of the names.
func (h *head) decodePath(raw []byte) ([]byte, *Refusal) {
	start := len(h.names)
	for {
		i := bytes.IndexByte(raw, '%')
		if i < 0 {
			h.names = append(h.names, raw...)
			return h.names[start:len(h.names):len(h.names)], nil
		}
		if i+2 >= len(raw) {
			return nil, badPercent
		}
		hi, lo := hexValue[raw[i+1]], hexValue[raw[i+2]]
		if hi|lo == 0xff { // both are below 16 otherwise
			return nil, badPercent
		}
		h.names = append(append(h.names, raw[:i]...), hi<<4|lo)
		raw = raw[i+3:]
	}
}
