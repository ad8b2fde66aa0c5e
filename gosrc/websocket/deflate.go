package websocket

import "bytes"

// deflate is what was agreed of permessage-deflate (RFC 7692 7). Go's compressor has a
// window of 32 KiB and starts anew with every message, so both sides do without context:
// no connection keeps a window, which would be 40 KiB and more for each.
type deflate struct {
	on bool
	// window says that the offer named the server's window, 15, and so must the answer.
	window bool
}

func (d deflate) answer() string {
	if d.window {
		return "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
	}
	return "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
}

// chooseDeflate takes the first offer in a Sec-WebSocket-Extensions value that can be
// granted as it stands (RFC 7692 5, 7.1). What cannot is declined by leaving it out: one
// that wants a smaller window of the server, or has a parameter that is unknown, malformed
// or there twice. A value that is not a list of extensions has no offer.
func chooseDeflate(value []byte) deflate {
	for len(value) > 0 {
		var offer []byte
		offer, value = cut(value, ',')
		if d, ok := judge(offer); ok {
			return d
		}
	}
	return deflate{}
}

func judge(offer []byte) (d deflate, ok bool) {
	name, rest := cut(offer, ';')
	if string(bytes.TrimSpace(name)) != "permessage-deflate" {
		return d, false
	}
	var server, client, serverBits, clientBits bool
	for len(rest) > 0 {
		var parameter []byte
		parameter, rest = cut(rest, ';')
		name, value, has := bytes.Cut(bytes.TrimSpace(parameter), []byte("="))
		name, value = bytes.TrimSpace(name), bytes.TrimSpace(value)
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1] // a quoted token (RFC 6455 9.1)
		}
		switch string(name) {
		case "server_no_context_takeover":
			if server || has {
				return d, false
			}
			server = true
		case "client_no_context_takeover":
			if client || has {
				return d, false
			}
			client = true
		case "server_max_window_bits":
			if serverBits || string(value) != "15" {
				return d, false // well-formed or not, it cannot be granted
			}
			serverBits = true
		case "client_max_window_bits":
			// A client that can use a smaller window; ours takes any.
			if clientBits || has && windowBits(value) == 0 {
				return d, false
			}
			clientBits = true
		default:
			return d, false
		}
	}
	return deflate{on: true, window: serverBits}, true
}

// windowBits is the number that b is, from 8 to 15 and without leading zeros, or 0.
func windowBits(b []byte) int {
	n := 0
	for i, c := range b {
		if c < '0' || c > '9' || i == 0 && c == '0' || i > 1 {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	if n < 8 || n > 15 {
		return 0
	}
	return n
}

// cut splits b at the first separator that is not in a quoted string.
func cut(b []byte, separator byte) (before, after []byte) {
	quoted := false
	for i, c := range b {
		switch {
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}
