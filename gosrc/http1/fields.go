package http1

import "spvn/gosrc/call"

// meaning is what the fields of a head say about the message and its connection.
type meaning struct {
	host   int   // index of the Host field; -1: none
	length int64 // Content-Length; -1: none

	chunked      bool // the last transfer coding is chunked
	coded        bool // there is a Transfer-Encoding
	foreign      bool // it has a coding other than chunked
	misplaced    bool // something follows chunked
	expect       bool // Expect: 100-continue
	unexpected   bool // Expect: anything else
	close        bool // Connection: close
	keepAlive    bool // Connection: keep-alive
	upgrade      bool // Connection: upgrade
	webSocket    bool // Upgrade: websocket
	trailers     bool // TE: trailers
	forwarded    bool // there is an X-Forwarded-Proto or X-Forwarded-For
	authority    []byte
	path, query  []byte
	rawPath      []byte
	absoluteHost bool // authority replaces the Host field
}

// note takes note of one field. What breaks a rule by itself is refused at once; what needs
// the rest of the head waits for check.
func (h *head) note(f call.Field) *Refusal {
	switch len(f.Name) {
	case 2:
		if string(f.Name) == "te" && hasElement(f.Value, "trailers") {
			h.trailers = true
		}
	case 4:
		if string(f.Name) == "host" {
			if h.host >= 0 {
				return manyHosts
			}
			if !validHost(f.Value) {
				return badHost
			}
			h.host = len(h.fields) - 1
		}
	case 6:
		if string(f.Name) == "expect" {
			h.noteExpect(f.Value)
		}
	case 7:
		if string(f.Name) == "upgrade" && hasElement(f.Value, "websocket") {
			h.webSocket = true
		}
	case 10:
		if string(f.Name) == "connection" {
			h.noteConnection(f.Value)
		}
	case 14:
		if string(f.Name) == "content-length" {
			if h.length >= 0 {
				// Equal ones could be taken for one (RFC 9110 8.6); nobody sends them in good faith.
				return manyLengths
			}
			n, ok := decimal(f.Value)
			if !ok {
				return badLength
			}
			h.length = n
		}
	case 15:
		if string(f.Name) == "x-forwarded-for" {
			h.forwarded = true
		}
	case 17:
		switch string(f.Name) {
		case "transfer-encoding":
			return h.noteCoding(f.Value)
		case "x-forwarded-proto":
			h.forwarded = true
		}
	}
	return nil
}

func (h *head) noteExpect(value []byte) {
	if equalFold(value, "100-continue") {
		h.expect = true
		return
	}
	eachElement(value, func(e []byte) bool {
		if equalFold(e, "100-continue") {
			h.expect = true
		} else {
			h.unexpected = true
		}
		return true
	})
}

func (h *head) noteConnection(value []byte) {
	// What nearly every client sends.
	if equalFold(value, "keep-alive") {
		h.keepAlive = true
		return
	}
	eachElement(value, func(e []byte) bool {
		switch {
		case equalFold(e, "close"):
			h.close = true
		case equalFold(e, "keep-alive"):
			h.keepAlive = true
		case equalFold(e, "upgrade"):
			h.upgrade = true
		}
		return true
	})
}

// noteCoding reads Transfer-Encoding, of which there may be several (RFC 9112 6.1). Empty
// elements are not passed over: a proxy may read them differently.
func (h *head) noteCoding(value []byte) *Refusal {
	h.coded = true
	for {
		element, rest, more := cutComma(value)
		if h.chunked {
			h.misplaced = true
		}
		switch {
		case len(element) == 0:
			return badCoding
		case equalFold(element, "chunked"):
			h.chunked = true
		default:
			h.foreign = true
		}
		if !more {
			return nil
		}
		value = rest
	}
}

func cutComma(b []byte) (element, rest []byte, more bool) {
	for i, c := range b {
		if c == ',' {
			return trim(b[:i]), b[i+1:], true
		}
	}
	return trim(b), nil, false
}

// check judges the complete head: what the message's length is (RFC 9112 6.3), and whether
// this server can do what it asks.
func (h *head) check(cfg *Config) *Refusal {
	if h.host < 0 && h.version == 11 {
		return noHost
	}
	if h.coded {
		switch {
		case h.version == 10:
			return codingIn10
		case h.length >= 0:
			return lengthAndCoding
		case !h.chunked || h.misplaced:
			return badCoding
		case h.foreign:
			return unknownCoding
		}
	}
	if r := h.readTarget(); r != nil {
		return r
	}
	if h.version == 10 {
		h.expect = false // RFC 9110 10.1.1
	} else if h.unexpected {
		return unknownExpect
	}
	if cfg.LimitBody > 0 && h.length > cfg.LimitBody {
		return largeBody
	}
	return nil
}

// persistent reports whether the client wants the connection kept (RFC 9112 9.3).
func (h *head) persistent() bool {
	return !h.close && (h.version == 11 || h.keepAlive)
}

// hasBody reports whether a body follows.
func (h *head) hasBody() bool { return h.chunked || h.length > 0 }

// fill makes the head a call's request.
func (h *head) fill(r *call.Request) {
	if h.absoluteHost {
		if h.host >= 0 {
			h.fields[h.host].Value = h.authority
		} else {
			h.fields = append(h.fields, call.Field{Name: hostName, Value: h.authority})
		}
	}
	*r = call.Request{
		Method: h.method, Version: h.version,
		Path: h.path, RawPath: h.rawPath, Query: h.query, Fields: h.fields,
	}
}

var hostName = []byte("host")
