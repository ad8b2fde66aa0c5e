package http1

import (
	"strings"
	"testing"

	"spvn/gosrc/call"
)

func TestTrusted(t *testing.T) {
	for _, test := range []struct {
		hosts string
		host  string
		want  bool
	}{
		{"127.0.0.1,::1", "127.0.0.1", true},
		{"127.0.0.1, ::1", "::1", true},
		{"127.0.0.1,::1", "0:0::1", true},
		{"127.0.0.1", "127.0.0.2", false},
		{"127.0.0.1", "::ffff:127.0.0.1", false},
		{"127.0.0.1", "", false},
		{"", "", false},
		{"*", "192.0.2.1", true},
		{"*", "", true},
		{"*,127.0.0.1", "192.0.2.1", false},
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "11.1.2.3", false},
		{"10.0.0.1/8", "10.1.2.3", false}, // host bits are set: not a network
		{"2001:db8::/32", "2001:db8:1::1", true},
		{"2001:db8::/32", "10.0.0.1", false},
		{"/run/app.sock", "/run/app.sock", true},
		{"proxy", "proxy", true},
		{"proxy", "PROXY", false},
		{"unix", "", true},
		{"127.0.0.1, unix", "", true},
		{"unix", "192.0.2.1", false},
	} {
		if got := NewTrusted(strings.Split(test.hosts, ",")).Has(test.host); got != test.want {
			t.Errorf("%q trusts %q: %v; want %v", test.hosts, test.host, got, test.want)
		}
	}
	if (*Trusted)(nil).Has("127.0.0.1") {
		t.Error("nobody's trust trusts somebody")
	}
}

func TestForwarded(t *testing.T) {
	const peer = "192.0.2.1"
	for _, test := range []struct {
		name, trust, fields string
		scheme              string
		host                string
		port                int32
	}{
		{"not trusted", "127.0.0.1", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4\r\n", "http", peer, 1234},
		{"proto", peer, "X-Forwarded-Proto: https\r\n", "https", peer, 1234},
		{"the last proto", peer, "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", "http", peer, 1234},
		{"unknown proto", peer, "X-Forwarded-Proto: HTTPS\r\n", "http", peer, 1234},
		{"a list of protos", peer, "X-Forwarded-Proto: https, http\r\n", "http", peer, 1234},
		{"proto wss", peer, "X-Forwarded-Proto: wss\r\n", "wss", peer, 1234},
		{"for", peer, "X-Forwarded-For: 1.2.3.4\r\n", "http", "1.2.3.4", 0},
		{"for with port", peer, "X-Forwarded-For: 1.2.3.4:567\r\n", "http", "1.2.3.4", 567},
		{"for with a bad port", peer, "X-Forwarded-For: 1.2.3.4:x\r\n", "http", "1.2.3.4:x", 0},
		{"for IPv6", peer, "X-Forwarded-For: 2001:db8::1\r\n", "http", "2001:db8::1", 0},
		{"for IPv6 in brackets", peer, "X-Forwarded-For: [2001:db8::1]\r\n", "http", "2001:db8::1", 0},
		{"for IPv6 with port", peer, "X-Forwarded-For: [2001:db8::1]:567\r\n", "http", "2001:db8::1", 567},
		{"for IPv6 with a bad port", peer, "X-Forwarded-For: [2001:db8::1]:x\r\n", "http", "2001:db8::1", 0},
		{"for an open bracket", peer, "X-Forwarded-For: [2001:db8::1\r\n", "http", "[2001:db8::1", 0},
		{"for junk behind a bracket", peer, "X-Forwarded-For: [::1]x\r\n", "http", "[::1]x", 0},
		{"the last untrusted", peer + ",10.0.0.0/8", "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1, 10.0.0.2\r\n", "http", "1.2.3.4", 0},
		{"several fields", peer + ",10.0.0.0/8", "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-For: 10.0.0.1\r\n", "http", "1.2.3.4", 0},
		{"all trusted", peer + ",10.0.0.0/8", "X-Forwarded-For: 10.0.0.3:9\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", "http", "10.0.0.3", 9},
		{"everybody trusted", "*", "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-For: 9.9.9.9\r\n", "http", "1.2.3.4", 0},
		{"empty", peer, "X-Forwarded-For:\r\n", "http", peer, 1234},
		{"empty last", peer, "X-Forwarded-For: 1.2.3.4,\r\n", "http", peer, 1234},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Proxies = NewTrusted(strings.Split(test.trust, ",")) })
			for i := 1; i <= 2; i++ {
				r.send("GET / HTTP/1.1\r\nHost: a\r\n" + test.fields + "\r\n")
				c := r.last(i)
				if c.scheme != test.scheme || c.client != (call.Addr{Host: test.host, Port: test.port}) {
					t.Errorf("scheme %s, client %v; want %s, {%s %d}", c.scheme, c.client, test.scheme, test.host, test.port)
				}
				c.ok("")
			}
		})
	}
	r := newRig(t, func(c *Config) { c.Proxies, c.WebSockets = NewTrusted([]string{"*"}), anySockets{} })
	r.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
	if c := r.last(1); c.scheme != "wss" {
		t.Errorf("scheme %s; want wss", c.scheme)
	}
}

func TestForwardedAllocatesNothing(t *testing.T) {
	c, s := newBench()
	c.config.Proxies = NewTrusted([]string{"192.0.2.1", "10.0.0.0/8"})
	input := []byte("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.1\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() {
		c.Receive(input)
		s.answer.Respond(200, benchFields, benchBody, true, false)
	}); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}
