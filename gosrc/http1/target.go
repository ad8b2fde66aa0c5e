package http1

import "bytes"

// readTarget takes the request-target apart (RFC 9112 3.2).
func (h *head) readTarget() *Refusal {
	target := h.target
	if string(h.method) == "CONNECT" {
		if i := bytes.LastIndexByte(target, ':'); i > 0 && i < len(target)-1 && validHost(target) {
			return isConnect
		}
		return badTarget
	}
	if target[0] == '/' {
		return h.readPath(target)
	}
	if len(target) == 1 && target[0] == '*' {
		if string(h.method) != "OPTIONS" {
			return badTarget
		}
		h.path = target // as uvicorn has it
		return nil
	}
	return h.readAbsolute(target)
}

// readAbsolute reads the absolute-form: its host takes the place of the Host field
// (RFC 9112 3.2.2). Its scheme does not take the place of the connection's, which is a fact
// while the target is what the client says.
func (h *head) readAbsolute(target []byte) *Refusal {
	i := bytes.IndexByte(target, ':')
	if i < 0 || !equalFold(target[:i], "http") && !equalFold(target[:i], "https") ||
		!bytes.HasPrefix(target[i:], []byte("://")) {
		return badTarget
	}
	rest := target[i+3:]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority := rest[:end]
	if len(authority) == 0 || authority[0] == ':' || !validHost(authority) {
		return badAuthority // an empty host is invalid (RFC 9110 4.2.1), and so is user@ (4.2.4)
	}
	h.authority, h.absoluteHost = authority, true
	return h.readPath(rest[end:])
}

// readPath splits path and query and decodes the path.
func (h *head) readPath(b []byte) *Refusal {
	raw := b
	percent := false
	for i, c := range b {
		class := targetClass[c]
		if class == targetPlain {
			continue
		}
		if class == targetQuestion {
			raw, h.query = b[:i:i], b[i+1:]
			break
		}
		percent = true
	}
	if len(raw) == 0 { // only in the absolute-form: http://host?query
		raw = slash
	}
	h.path = raw
	if percent {
		path, r := h.decodePath(raw)
		if r != nil {
			return r
		}
		h.path, h.rawPath = path, raw
	}
	return nil
}

var slash = []byte("/")

// validHost reports whether b is uri-host [ ":" port ] (RFC 9112 3.2). It may be empty.
func validHost(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		for i = 1; i < len(b) && literalChar[b[i]]; i++ {
		}
		if i < 3 || i == len(b) || b[i] != ']' { // "[::]" is the shortest
			return false
		}
		i++
	} else {
		for i < len(b) {
			if hostChar[b[i]] {
				i++
			} else if b[i] == '%' && i+2 < len(b) && hexValue[b[i+1]]|hexValue[b[i+2]] != 0xff {
				i += 3
			} else {
				break
			}
		}
	}
	if i == len(b) {
		return true
	}
	if b[i] != ':' {
		return false
	}
	port, rest := 0, b[i+1:]
	if len(rest) > 5 {
		return false
	}
	for _, c := range rest {
		if c < '0' || c > '9' {
			return false
		}
		port = port*10 + int(c-'0')
	}
	return port <= 65535
}
