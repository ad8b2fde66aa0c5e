package observe

import (
	"strings"
	"testing"
)

func line(colors bool, root string, a Access) string {
	return string(newLineFormat(colors, root).appendLine(nil, &a))
}

func get(path, query string, status int) Access {
	return Access{"127.0.0.1", 54321, []byte("GET"), []byte(path), []byte(query), 11, status}
}

// The wanted lines are what uvicorn 0.54 writes on Python 3.13.
func TestAccessLine(t *testing.T) {
	ipv6 := get("/", "", 200)
	ipv6.Host = "::1"
	unixSocket := get("/", "", 200)
	unixSocket.Host, unixSocket.Port = "/run/app.sock", -1
	unknown := get("/", "", 200)
	unknown.Host = ""
	proxied := get("/", "", 200)
	proxied.Port = 0
	old := get("/", "", 200)
	old.Version = 10
	two := get("/", "", 200)
	two.Version = 20
	for _, tt := range []struct {
		name   string
		root   string
		access Access
		want   string
	}{
		{"plain", "", get("/", "", 200), `INFO:     127.0.0.1:54321 - "GET / HTTP/1.1" 200 OK`},
		{"query", "", get("/a/b", "q=1&r=%20", 404), `INFO:     127.0.0.1:54321 - "GET /a/b?q=1&r=%20 HTTP/1.1" 404 Not Found`},
		{"quoted path", "", get(`/a b"ü~_.-!%`, "", 200), `INFO:     127.0.0.1:54321 - "GET /a%20b%22%C3%BC~_.-%21%25 HTTP/1.1" 200 OK`},
		{"control characters", "", get("/\r\n\x1b", "a\nb\x7f\xff", 200), `INFO:     127.0.0.1:54321 - "GET /%0D%0A%1B?a%0Ab%7F%FF HTTP/1.1" 200 OK`},
		{"not UTF-8", "", get("/\xff", "", 200), `INFO:     127.0.0.1:54321 - "GET /%FF HTTP/1.1" 200 OK`},
		{"quote in the query", "", get("/", `a="b"`, 200), `INFO:     127.0.0.1:54321 - "GET /?a="b" HTTP/1.1" 200 OK`},
		{"root path", "/api v1", get("/x", "", 200), `INFO:     127.0.0.1:54321 - "GET /api%20v1/x HTTP/1.1" 200 OK`},
		{"IPv6", "", ipv6, `INFO:     ::1:54321 - "GET / HTTP/1.1" 200 OK`},
		{"unix socket", "", unixSocket, `INFO:      - "GET / HTTP/1.1" 200 OK`},
		{"no client", "", unknown, `INFO:      - "GET / HTTP/1.1" 200 OK`},
		{"from a proxy's field", "", proxied, `INFO:     127.0.0.1:0 - "GET / HTTP/1.1" 200 OK`},
		{"HTTP/1.0", "", old, `INFO:     127.0.0.1:54321 - "GET / HTTP/1.0" 200 OK`},
		{"HTTP/2", "", two, `INFO:     127.0.0.1:54321 - "GET / HTTP/2" 200 OK`},
		{"no phrase", "", get("/", "", 299), `INFO:     127.0.0.1:54321 - "GET / HTTP/1.1" 299 `},
		{"status of no class", "", get("/", "", 999), `INFO:     127.0.0.1:54321 - "GET / HTTP/1.1" 999 `},
		{"RFC 9110's phrase", "", get("/", "", 413), `INFO:     127.0.0.1:54321 - "GET / HTTP/1.1" 413 Content Too Large`},
	} {
		if got := line(false, tt.root, tt.access); got != tt.want+"\n" {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want+"\n")
		}
	}
}

func TestAccessLineColors(t *testing.T) {
	for _, tt := range []struct {
		status int
		want   string
	}{
		{101, "\x1b[97m101 Switching Protocols\x1b[0m"},
		{200, "\x1b[32m200 OK\x1b[0m"},
		{307, "\x1b[33m307 Temporary Redirect\x1b[0m"},
		{404, "\x1b[31m404 Not Found\x1b[0m"},
		{500, "\x1b[91m500 Internal Server Error\x1b[0m"},
		{600, "600 "},
	} {
		want := "\x1b[32mINFO\x1b[0m:     127.0.0.1:54321 - \"\x1b[1mGET /a HTTP/1.1\x1b[0m\" " + tt.want + "\n"
		if got := line(true, "", get("/a", "", tt.status)); got != want {
			t.Errorf("status %d:\n got %q\nwant %q", tt.status, got, want)
		}
	}
}

func TestDroppedLine(t *testing.T) {
	plain, colored := newLineFormat(false, ""), newLineFormat(true, "")
	if got, want := string(plain.dropped(2)), "WARNING:  2 lines of the access log were dropped: nobody read them in time\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
	if got, want := string(colored.dropped(1)), "\x1b[33mWARNING\x1b[0m:  1 line of"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q; want %q first", got, want)
	}
}

func FuzzAccessLine(f *testing.F) {
	f.Add([]byte("GET"), []byte("/a b"), []byte("q=1"), 200)
	f.Add([]byte("\x1b[31m"), []byte("/\n\xff"), []byte("\r\n"), 99)
	format := newLineFormat(false, "")
	f.Fuzz(func(t *testing.T, method, path, query []byte, status int) {
		got := string(format.appendLine(nil, &Access{"h", 1, method, path, query, 11, status}))
		for i, c := range []byte(got) {
			if c == '\n' && i == len(got)-1 {
				break
			}
			if c < ' ' || c >= 0x7f {
				t.Fatalf("line %q has the byte %#x", got, c)
			}
		}
		if !strings.HasSuffix(got, "\n") {
			t.Fatalf("line %q does not end", got)
		}
	})
}

func BenchmarkAccessLine(b *testing.B) {
	format := newLineFormat(false, "")
	a := get("/api/items/42", "page=3&sort=name", 200)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = format.appendLine(buf[:0], &a)
	}
}
