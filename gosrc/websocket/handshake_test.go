package websocket

import (
	"strings"
	"testing"

	"spvn/gosrc/call"
)

var offers = []struct {
	offer  string
	on     bool
	window bool
}{
	{"", false, false},
	{"permessage-deflate", true, false},
	{"permessage-deflate; client_max_window_bits", true, false}, // what browsers send
	{"permessage-deflate; client_max_window_bits=10", true, false},
	{"permessage-deflate; server_no_context_takeover; client_no_context_takeover", true, false},
	{"permessage-deflate; server_max_window_bits=15", true, true},
	{`permessage-deflate; server_max_window_bits="15"`, true, true},
	{"permessage-deflate; server_max_window_bits=10", false, false},
	{"permessage-deflate; server_max_window_bits=10, permessage-deflate", true, false},
	{"permessage-deflate; server_max_window_bits", false, false},
	{"permessage-deflate; server_max_window_bits=16", false, false},
	{"permessage-deflate; client_max_window_bits=7", false, false},
	{"permessage-deflate; client_max_window_bits=015", false, false},
	{"permessage-deflate; client_max_window_bits; client_max_window_bits", false, false},
	{"permessage-deflate; server_no_context_takeover=1", false, false},
	{"permessage-deflate; server_no_context_takeover; server_no_context_takeover", false, false},
	{"permessage-deflate; unknown", false, false},
	{"x-webkit-deflate-frame", false, false},
	{"bbf-usp-protocol, permessage-deflate", true, false},
	{`foo; bar="a,b;c", permessage-deflate`, true, false},
	{"Permessage-Deflate", false, false}, // tokens of extensions are case-sensitive
}

func TestOffers(t *testing.T) {
	for _, test := range offers {
		if d := chooseDeflate([]byte(test.offer)); d.on != test.on || d.window != test.window {
			t.Errorf("%q: granted %v, names the window %v; want %v, %v", test.offer, d.on, d.window, test.on, test.window)
		}
	}
}

const goodKey = "dGhlIHNhbXBsZSBub25jZQ==" // RFC 6455 1.3

func request(method string, fields ...string) *call.Request {
	r := &call.Request{Method: []byte(method), Version: 11, BodyLast: true}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Fields = append(r.Fields, call.Field{Name: []byte(name), Value: []byte(value)})
	}
	return r
}

func TestHandshake(t *testing.T) {
	key, version := "sec-websocket-key: "+goodKey, "sec-websocket-version: 13"
	for _, test := range []struct {
		name    string
		r       *call.Request
		upgrade bool
		status  int // 101 granted, 0 ordinary
		field   string
	}{
		{"good", request("GET", key, version), true, 101, ""},
		{"POST", request("POST", key, version), true, 405, "allow: GET"},
		{"POST without WebSocket fields", request("POST"), true, 0, ""},
		{"no Connection field", request("GET", key, version), false, 400, ""},
		{"nothing but Upgrade", request("GET"), false, 0, ""},
		{"no version", request("GET", key), true, 426, "sec-websocket-version: 13, upgrade: websocket, connection: upgrade"},
		{"nothing but Upgrade and Connection", request("GET"), true, 426, "sec-websocket-version: 13, upgrade: websocket, connection: upgrade"},
		{"version 8", request("GET", key, "sec-websocket-version: 8"), true, 426, "sec-websocket-version: 13, upgrade: websocket, connection: upgrade"},
		{"two versions", request("GET", key, version, version), true, 426, "sec-websocket-version: 13, upgrade: websocket, connection: upgrade"},
		{"no key", request("GET", version), true, 400, ""},
		{"two keys", request("GET", key, key, version), true, 400, ""},
		{"short key", request("GET", "sec-websocket-key: dGhl", version), true, 400, ""},
		{"key of 15 bytes", request("GET", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZ===", version), true, 400, ""},
		{"key that is not base64", request("GET", "sec-websocket-key: dGhlIHNhbXBsZSBub25j*Q==", version), true, 400, ""},
		{"body", &call.Request{Method: []byte("GET"), Body: []byte("x"), BodyLast: true,
			Fields: request("GET", key, version).Fields}, true, 400, ""},
		{"body to come", &call.Request{Method: []byte("GET"), Fields: request("GET", key, version).Fields}, true, 400, ""},
	} {
		h, e := NewConfig().Handshake(test.r, test.upgrade)
		status, field := 0, ""
		if h != nil {
			status = 101
		}
		if e != nil {
			status = e.Status
			var list []string
			for _, f := range e.Fields {
				list = append(list, string(f.Name)+": "+string(f.Value))
			}
			field = strings.Join(list, ", ")
		}
		if status != test.status || field != test.field {
			t.Errorf("%s: %d with %q; want %d with %q", test.name, status, field, test.status, test.field)
		}
	}
}

func TestAnswer(t *testing.T) {
	c := NewConfig()
	r := request("GET", "sec-websocket-key: "+goodKey, "sec-websocket-version: 13",
		"sec-websocket-extensions: permessage-deflate; server_max_window_bits=9",
		"sec-websocket-extensions: permessage-deflate; client_max_window_bits")
	h, _ := c.Handshake(r, true)
	app := request("", "X-B: 1", "x-a: 2", "Upgrade: h2c", "Sec-WebSocket-Accept: mine", "x-b: 3").Fields
	list, problem := h.Fields([]byte("chat"), app)
	var got []string
	for _, f := range list {
		got = append(got, string(f.Name)+": "+string(f.Value))
	}
	want := "upgrade: websocket; connection: Upgrade; sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=; " +
		"sec-websocket-protocol: chat; sec-websocket-extensions: permessage-deflate; server_no_context_takeover; " +
		"client_no_context_takeover; X-B: 1; x-a: 2; x-b: 3"
	if s := strings.Join(got, "; "); s != want || problem != "" {
		t.Errorf("%s (%s); want %s", s, problem, want)
	}
	if _, problem := h.Fields([]byte("two words"), nil); problem == "" {
		t.Error("a subprotocol that is no token passes")
	}
	c.Deflate = false
	h, _ = c.Handshake(r, true)
	if list, _ := h.Fields(nil, nil); len(list) != 3 {
		t.Errorf("without compression: %d fields; want 3", len(list))
	}
}
