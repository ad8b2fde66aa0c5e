package http1

import (
	"fmt"
	"strings"
	"testing"

	"spvn/gosrc/call"
)

const old = "GET / HTTP/1.0\r\n\r\n"
const oldKeep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

// TestAnswers has one answer for each rule of framing.
func TestAnswers(t *testing.T) {
	fields := func(pairs ...string) (f []call.Field) {
		for i := 0; i < len(pairs); i += 2 {
			f = append(f, field(pairs[i], pairs[i+1]))
		}
		return f
	}
	parts := func(b ...string) []string { return b }
	const failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n\r\nInternal Server Error"
	const closed, aborted = "closed", "aborted"
	for _, test := range []struct {
		name, in string
		status   int
		fields   []call.Field
		body     []string // the last one is last
		want     string
		end      string
		logged   bool
	}{
		{"in one piece", get, 200, nil, parts("hello"), "200 OK\r\ncontent-length: 5\r\n\r\nhello", "", false},
		{"empty", get, 200, nil, parts(""), "200 OK\r\ncontent-length: 0\r\n\r\n", "", false},
		{"unknown status", get, 299, nil, parts("x"), "299 \r\ncontent-length: 1\r\n\r\nx", "", false},
		{"status 999", get, 999, nil, parts("x"), "999 \r\ncontent-length: 1\r\n\r\nx", "", false},
		{"fields as they came", get, 200, fields("X-A", "1", "set-cookie", "a", "set-cookie", "b"), parts("x"),
			"200 OK\r\nX-A: 1\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 1\r\n\r\nx", "", false},
		{"streamed", get, 200, nil, parts("ab", "", "0123456789abcdef", "c"),
			"200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n10\r\n0123456789abcdef\r\n1\r\nc\r\n0\r\n\r\n", "", false},
		{"streamed, empty", get, 200, nil, parts("", "", ""), "200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "", false},
		{"streamed with length", get, 200, fields("Content-Length", "4"), parts("ab", "c", "d"), "200 OK\r\ncontent-length: 4\r\n\r\nabcd", "", false},
		{"the same length twice", get, 200, fields("content-length", "1", "content-length", "1"), parts("x"), "200 OK\r\ncontent-length: 1\r\n\r\nx", "", false},
		{"two lengths", get, 200, fields("content-length", "1", "content-length", "2"), parts("x"), failed[9:], "", true},
		{"length that is no number", get, 200, fields("content-length", "-1"), parts("x"), failed[9:], "", true},
		{"length of one piece wrong", get, 200, fields("content-length", "4"), parts("hello"), failed[9:], "", true},
		{"longer than promised", get, 200, fields("content-length", "4"), parts("ab", "cde", "fgh"), "200 OK\r\ncontent-length: 4\r\n\r\nabcd", closed, true},
		{"shorter than promised", get, 200, fields("content-length", "4"), parts("ab", "c"), "", aborted, true},
		{"app's chunked", get, 200, fields("transfer-encoding", "chunked"), parts("ab", ""), "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "", false},
		{"app's chunked in one piece", get, 200, fields("transfer-encoding", "chunked"), parts("ab"), "200 OK\r\ncontent-length: 2\r\n\r\nab", "", false},
		{"app's chunked and length", get, 200, fields("transfer-encoding", "chunked", "content-length", "2"), parts("a", "b"), "200 OK\r\ncontent-length: 2\r\n\r\nab", "", false},
		{"app's gzip", get, 200, fields("transfer-encoding", "gzip, chunked"), parts("ab"), failed[9:], "", true},
		{"204", get, 204, fields("content-length", "3"), parts("abc"), "204 No Content\r\n\r\n", "", false},
		{"304", get, 304, fields("content-length", "3", "etag", "x"), parts(""), "304 Not Modified\r\netag: x\r\ncontent-length: 3\r\n\r\n", "", false},
		{"304 without length", get, 304, nil, parts(""), "304 Not Modified\r\n\r\n", "", false},
		{"HEAD with length", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, fields("content-length", "3"), parts(""), "200 OK\r\ncontent-length: 3\r\n\r\n", "", false},
		{"HEAD with a body", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, fields("content-length", "3"), parts("a", "bc"), "200 OK\r\ncontent-length: 3\r\n\r\n", "", false},
		{"HEAD without length", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, nil, parts("a", "bc"), "200 OK\r\n\r\n", "", false},
		{"HTTP/1.0", old, 200, nil, parts("ab"), "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab", closed, false},
		{"HTTP/1.0 streamed", old, 200, nil, parts("ab", "c"), "200 OK\r\nconnection: close\r\n\r\nabc", closed, false},
		{"HTTP/1.0 keep-alive", oldKeep, 200, nil, parts("ab"), "200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nab", "", false},
		{"HTTP/1.0 keep-alive streamed", oldKeep, 200, nil, parts("ab", "c"), "200 OK\r\nconnection: close\r\n\r\nabc", closed, false},
		{"HTTP/1.0 keep-alive streamed with length", oldKeep, 200, fields("content-length", "3"), parts("ab", "c"), "200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc", "", false},
		{"client closes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, nil, parts("x"), "200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx", closed, false},
		{"app closes", get, 200, fields("Connection", "foo, Close"), parts("x"), "200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx", closed, false},
		{"app keeps alive", get, 200, fields("connection", "keep-alive", "keep-alive", "timeout=5"), parts("x"), "200 OK\r\ncontent-length: 1\r\n\r\nx", "", false},
		{"app names an upgrade", get, 426, fields("connection", "upgrade", "upgrade", "websocket"), parts("x"), "426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\nx", "", false},
		{"CR LF in a value", get, 200, fields("a", "b\r\nc: d"), parts("x"), failed[9:], "", true},
		{"NUL in a value", get, 200, fields("a", "b\x00"), parts("x"), failed[9:], "", true},
		{"CR LF in a name", get, 200, fields("a\r\nb", "c"), parts("x"), failed[9:], "", true},
		{"empty name", get, 200, fields("", "c"), parts("x"), failed[9:], "", true},
		{"tab and obs-text in a value", get, 200, fields("a", "b\tc\xe4"), parts("x"), "200 OK\r\na: b\tc\xe4\r\ncontent-length: 1\r\n\r\nx", "", false},
		{"status 101", get, 101, nil, parts(""), failed[9:], "", true},
		{"bad fields of a stream", get, 200, fields("a", "\n"), parts("x", "y"), failed[9:], "", true},
		{"app's date and server", get, 200, fields("Date", "d", "SERVER", "s"), parts("x"), "200 OK\r\nDate: d\r\nSERVER: s\r\ncontent-length: 1\r\n\r\nx", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.send(test.in)
			c := r.last(1)
			for i, b := range test.body {
				last := i == len(test.body)-1
				if i == 0 {
					c.answer.Respond(test.status, test.fields, []byte(b), last, false)
				} else {
					c.answer.RespondBody([]byte(b), last)
				}
			}
			if test.want != "" {
				test.want = "HTTP/1.1 " + test.want
			}
			r.wantOutput(test.want)
			r.wantEnd(test.end == closed, test.end == aborted)
			if (len(r.logged) > 0) != test.logged {
				t.Errorf("logged %q; want something %v", r.logged, test.logged)
			}
			if test.end == "" {
				r.wire.taken = nil
				r.send(get)
				r.last(2).ok("next")
				r.wantOutput("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext")
			}
		})
	}
}

func TestStandardFields(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(c *Config)
		fields []call.Field
		want   string
	}{
		{"default", func(*Config) {}, nil, testDate + "server: spvn\r\n"},
		{"app's server", func(*Config) {}, []call.Field{field("Server", "s")}, "Server: s\r\n" + testDate},
		{"app's date", func(*Config) {}, []call.Field{field("date", "d")}, "date: d\r\nserver: spvn\r\n"},
		{"no date", func(c *Config) { c.Date = false }, nil, "server: spvn\r\n"},
		{"no server", func(c *Config) { c.Server = "" }, nil, testDate},
		{"more", func(c *Config) { c.Headers = []call.Field{field("x-a", "1"), field("x-b", "2")} }, nil, testDate + "server: spvn\r\nx-a: 1\r\nx-b: 2\r\n"},
		{"more, one is the app's", func(c *Config) { c.Headers = []call.Field{field("x-a", "1"), field("x-b", "2")} },
			[]call.Field{field("X-A", "app")}, "X-A: app\r\n" + testDate + "server: spvn\r\nx-b: 2\r\n"},
		{"another server", func(c *Config) { c.Headers = []call.Field{field("Server", "mine")} }, nil, testDate + "Server: mine\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Date, c.Server = true, "spvn" }, test.change)
			r.send(get)
			r.last(1).answer.Respond(200, test.fields, nil, true, false)
			r.wantOutput("HTTP/1.1 200 OK\r\n" + test.want + "content-length: 0\r\n\r\n")
		})
	}
}

func TestTrailers(t *testing.T) {
	const wants = "GET / HTTP/1.1\r\nHost: a\r\nTE: deflate, trailers\r\n\r\n"
	const head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
	for _, test := range []struct{ name, in, want string }{
		{"asked for", wants, head + "0\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n"},
		{"not asked for", get, head + "0\r\n\r\n"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nTE: trailers\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nx"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.send(test.in)
			a := r.last(1).answer
			a.Respond(200, nil, []byte("x"), false, true)
			a.RespondTrailers([]call.Field{field("a", "1"), field("content-length", "1"), field("bad", "\r\n")}, false)
			a.RespondTrailers([]call.Field{field("b", "2"), field("c", "3")}, true)
			r.wantOutput(test.want)
			r.wantEnd(strings.Contains(test.want, "close"), false)
		})
	}
	t.Run("with a length", func(t *testing.T) {
		r := newRig(t)
		r.send(wants)
		a := r.last(1).answer
		a.Respond(200, []call.Field{field("content-length", "1")}, []byte("x"), false, true)
		a.RespondTrailers([]call.Field{field("a", "1")}, true)
		r.wantOutput("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
		r.wantEnd(false, false)
	})
	t.Run("announced and not sent", func(t *testing.T) {
		r := newRig(t)
		r.send(wants)
		a := r.last(1).answer
		a.Respond(200, nil, []byte("x"), false, true)
		a.RespondBody(nil, true)
		r.wantOutput(head + "0\r\n\r\n")
	})
}

func TestInformational(t *testing.T) {
	hints := []call.Field{field("link", "</a>")}
	r := newRig(t)
	r.send(get)
	a := r.last(1).answer
	a.Informational(103, hints)
	a.Informational(100, nil)
	a.Informational(101, nil)
	a.Informational(200, nil)
	a.Informational(103, []call.Field{field("a", "\n")})
	a.Respond(200, nil, nil, false, false)
	a.Informational(103, hints)
	a.RespondBody(nil, true)
	r.wantOutput("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")

	r = newRig(t)
	r.send(oldKeep)
	r.last(1).answer.Informational(103, hints)
	r.wantOutput("")
}

func TestFail(t *testing.T) {
	const text = "content-type: text/plain; charset=utf-8\r\n"
	t.Run("before the answer", func(t *testing.T) {
		r := newRig(t)
		r.send(get)
		r.last(1).answer.Fail(503, "busy", 7)
		r.wantOutput("HTTP/1.1 503 Service Unavailable\r\n" + text + "retry-after: 7\r\ncontent-length: 4\r\n\r\nbusy")
		r.wantEnd(false, false)
		r.send(get)
		r.last(2)
	})
	t.Run("inside Start", func(t *testing.T) {
		r := newRig(t)
		r.app.start = func(c *appCall) bool { c.answer.Fail(503, "busy", 0); return false }
		r.send(strings.Repeat(get, 3))
		r.last(3)
		r.wantOutput(strings.Repeat("HTTP/1.1 503 Service Unavailable\r\n"+text+"content-length: 4\r\n\r\nbusy", 3))
		if !r.wire.idle || r.call != nil {
			t.Error("not idle, or a call is held")
		}
	})
	t.Run("inside Start with a body to come", func(t *testing.T) {
		r := newRig(t)
		r.app.start = func(c *appCall) bool { c.answer.Fail(503, "busy", 0); return false }
		r.send(post + "Content-Length: 10\r\n\r\nabc")
		r.last(1)
		busy := "HTTP/1.1 503 Service Unavailable\r\n" + text + "content-length: 4\r\n\r\nbusy"
		r.wantOutput(busy)
		r.send("defghij" + get) // as clients do that write a head and a body one after the other
		r.last(2)
		r.wantOutput(busy + busy)
		r.wantEnd(false, false)
	})
	t.Run("inside Start with a long body to come", func(t *testing.T) {
		for _, more := range []string{"Content-Length: 1000000\r\n\r\nabc", "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n"} {
			r := newRig(t)
			r.app.start = func(c *appCall) bool { c.answer.Fail(503, "busy", 0); return false }
			r.send(post + more)
			r.last(1)
			r.wantOutput("HTTP/1.1 503 Service Unavailable\r\n" + text + "content-length: 4\r\nconnection: close\r\n\r\nbusy")
			r.wantEnd(true, false)
		}
	})
	t.Run("inside Body", func(t *testing.T) {
		for _, last := range []bool{false, true} {
			r := newRig(t)
			r.send(post + te + "\r\n1\r\na\r\n")
			r.last(1).onBody = func(c *appCall) { c.answer.Fail(502, "gone", 0) }
			if last {
				r.send("1\r\nb\r\n0\r\n\r\n")
			} else {
				r.send("1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n")
			}
			r.wantStatus(502)
			r.wantEnd(false, false)
			if !last {
				r.send("0\r\n\r\n")
			}
			r.send(get)
			r.last(2)
		}
	})
	t.Run("behind the head", func(t *testing.T) {
		r := newRig(t)
		r.send(get)
		a := r.last(1).answer
		a.Respond(200, nil, []byte("x"), false, false)
		a.Fail(500, "crash", 0)
		r.wantEnd(false, true)
		if r.last(1).left {
			t.Error("the call was left; dispatch had ended it")
		}
	})
	t.Run("to HEAD", func(t *testing.T) {
		r := newRig(t)
		r.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		r.last(1).answer.Fail(500, "crash", 0)
		r.wantOutput("HTTP/1.1 500 Internal Server Error\r\n" + text + "content-length: 5\r\n\r\n")
		r.wantEnd(false, false)
	})
}

// TestUnsendable checks that an app which streams an answer that cannot be sent hears that
// nobody listens.
func TestUnsendable(t *testing.T) {
	r := newRig(t)
	r.send(get)
	c := r.last(1)
	c.answer.Respond(200, []call.Field{field("a", "\r")}, []byte("x"), false, false)
	c.answer.RespondBody([]byte("y"), true)
	r.wantStatus(500)
	if !c.left {
		t.Error("the call goes on; want it left")
	}
}

// TestSent checks what a call hears of its body: never more than has left, all once all
// has, and what was dropped at once.
func TestSent(t *testing.T) {
	for _, test := range []struct {
		name   string
		in     string
		fields []call.Field
	}{
		{"chunked", get, nil},
		{"length", get, []call.Field{field("content-length", "100000")}},
		{"until close", old, nil},
	} {
		for _, step := range []int{1, 7, 100, 1 << 20} {
			t.Run(fmt.Sprintf("%s, %d at a time", test.name, step), func(t *testing.T) {
				r := newRig(t)
				r.send(test.in)
				c := r.last(1)
				c.answer.Respond(200, test.fields, []byte("xxxxx"), false, false)
				c.answer.RespondBody([]byte(strings.Repeat("x", 100)), false)
				total := 105
				for len(r.wire.out) > 0 {
					r.flush(step)
					if left := strings.Count(string(r.wire.taken), "x"); c.sent > left {
						t.Fatalf("told of %d bytes; %d have left", c.sent, left)
					}
				}
				if c.sent != total {
					t.Errorf("told of %d bytes; want %d", c.sent, total)
				}
				c.answer.RespondBody([]byte("abc"), false)
				r.flush(-1)
				if c.sent != total+3 {
					t.Errorf("told of %d bytes; want %d", c.sent, total+3)
				}
			})
		}
	}
	t.Run("dropped", func(t *testing.T) {
		r := newRig(t)
		r.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		c := r.last(1)
		c.answer.Respond(200, nil, []byte("hello"), false, false)
		c.answer.RespondBody([]byte("abc"), false)
		if c.sent != 8 {
			t.Errorf("told of %d bytes; want 8", c.sent)
		}
	})
	t.Run("too long", func(t *testing.T) {
		r := newRig(t)
		r.send(get)
		c := r.last(1)
		c.answer.Respond(200, []call.Field{field("content-length", "3")}, []byte("ab"), false, false)
		c.answer.RespondBody([]byte("cde"), false)
		c.answer.RespondBody([]byte("fgh"), false)
		if c.sent != 5 {
			t.Errorf("told of %d bytes; want the 5 that were dropped", c.sent)
		}
		r.flush(-1)
		if c.sent != 8 {
			t.Errorf("told of %d bytes; want 8", c.sent)
		}
		if len(r.logged) != 1 {
			t.Errorf("logged %q; want one line", r.logged)
		}
	})
}
