package websocket

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"spvn/gosrc/call"
)

// What is refused, in the words that the client reads (RFC 6455 4.2.1, 4.2.2).
var (
	notGet     = &call.HandshakeError{Status: 405, Text: "A WebSocket handshake is a GET request.", Fields: []call.Field{field("allow", "GET")}}
	badVersion = &call.HandshakeError{Status: 426, Text: "This server speaks version 13 of WebSocket.", Fields: []call.Field{
		field("sec-websocket-version", "13"), field("upgrade", "websocket"), field("connection", "upgrade"), // RFC 9110 15.5.22
	}}
	noUpgrade = &call.HandshakeError{Status: 400, Text: "The Connection field of a WebSocket handshake must have the option Upgrade."}
	badKey    = &call.HandshakeError{Status: 400, Text: "A WebSocket handshake needs one Sec-WebSocket-Key: 16 bytes in base64."}
	hasBody   = &call.HandshakeError{Status: 400, Text: "A WebSocket handshake has no body."}
)

func field(name, value string) call.Field {
	return call.Field{Name: []byte(name), Value: []byte(value)}
}

// keyLength is that of 16 bytes in base64 (RFC 4648 4).
const keyLength = 24

// handshake is one that can be granted. It is a Config's own and small, because it lives
// as long as the app thinks.
type handshake struct {
	config  *Config
	accept  [28]byte // Sec-WebSocket-Accept
	deflate deflate
}

var _ call.Handshake = (*handshake)(nil)

// Handshake implements call.WebSockets.
func (c *Config) Handshake(r *call.Request, upgrade bool) (call.Handshake, *call.HandshakeError) {
	var key, version, extensions []byte
	keys, versions, framed := 0, 0, !r.BodyLast
	for i := range r.Fields {
		f := &r.Fields[i]
		switch string(f.Name) {
		case "sec-websocket-key":
			key = f.Value
			keys++
		case "sec-websocket-version":
			version = f.Value
			versions++
		case "sec-websocket-extensions":
			// Several fields are one list (RFC 6455 9.1).
			if extensions != nil {
				extensions = append(append(extensions[:len(extensions):len(extensions)], ','), f.Value...)
			} else {
				extensions = f.Value
			}
		case "transfer-encoding":
			framed = true
		}
	}
	if keys == 0 && versions == 0 && (!upgrade || string(r.Method) != "GET") {
		// Nothing but an Upgrade field: the wish may be ignored (RFC 9110 7.8).
		return nil, nil
	}
	problem := (*call.HandshakeError)(nil)
	switch {
	case string(r.Method) != "GET":
		problem = notGet
	case !upgrade:
		problem = noUpgrade
	case versions != 1 || string(version) != "13":
		problem = badVersion
	case keys != 1 || !validKey(key):
		problem = badKey
	case framed || len(r.Body) > 0:
		problem = hasBody
	}
	if problem != nil {
		c.Count(HandshakeRefused)
		return nil, problem
	}
	h := &handshake{config: c}
	if c.Deflate {
		h.deflate = chooseDeflate(extensions)
	}
	sum := sha1(append(append(make([]byte, 0, 64), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	base64.StdEncoding.Encode(h.accept[:], sum[:])
	return h, nil
}

func validKey(key []byte) bool {
	if len(key) != keyLength {
		return false
	}
	var raw [18]byte
	n, err := base64.StdEncoding.Decode(raw[:], key)
	return err == nil && n == 16
}

// Names of fields of the answer that are not the app's to set.
func reserved(name []byte) bool {
	switch len(name) {
	case 7:
		return bytes.EqualFold(name, []byte("upgrade"))
	case 10:
		return bytes.EqualFold(name, []byte("connection"))
	case 14:
		return bytes.EqualFold(name, []byte("content-length"))
	case 17:
		return bytes.EqualFold(name, []byte("transfer-encoding"))
	case 20:
		return bytes.EqualFold(name, []byte("sec-websocket-accept"))
	case 21:
		return bytes.EqualFold(name, []byte("sec-websocket-version"))
	case 24:
		return bytes.EqualFold(name, []byte("sec-websocket-extensions"))
	}
	return false
}

// Fields implements call.Handshake.
func (h *handshake) Fields(subprotocol []byte, fields []call.Field) (list []call.Field, problem string) {
	p := &h.config.pool
	list = append(p.fields[:0], field("upgrade", "websocket"), field("connection", "Upgrade"),
		call.Field{Name: []byte("sec-websocket-accept"), Value: h.accept[:]})
	if len(subprotocol) > 0 {
		if !token(subprotocol) {
			return nil, fmt.Sprintf("the subprotocol %q has a character that is not allowed in a token", subprotocol)
		}
		list = append(list, call.Field{Name: []byte("sec-websocket-protocol"), Value: subprotocol})
	}
	if h.deflate.on {
		list = append(list, field("sec-websocket-extensions", h.deflate.answer()))
	}
	for _, f := range fields {
		if reserved(f.Name) || len(subprotocol) > 0 && bytes.EqualFold(f.Name, []byte("sec-websocket-protocol")) {
			continue
		}
		list = append(list, f)
	}
	p.fields = list
	return list, ""
}

// Open implements call.Handshake.
func (h *handshake) Open(carrier call.Carrier, c call.WebSocketCall) call.WebSocketProtocol {
	return newConn(h.config, carrier, c, h.deflate.on)
}

// token reports whether b is a token (RFC 9110 5.6.2).
func token(b []byte) bool {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0:
		default:
			return false
		}
	}
	return len(b) > 0
}
