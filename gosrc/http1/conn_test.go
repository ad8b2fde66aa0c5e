package http1

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
)

const hi = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"

func TestGet(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Date, c.Server = true, "spvn" })
	for i := 1; i <= 3; i++ {
		r.send(get)
		c := r.last(i)
		if c.method != "GET" || c.path != "/hello" || c.query != "a=b" || c.rawPath != "" || c.version != 11 || !c.bodyLast {
			t.Errorf("call is %+v", c)
		}
		if r.wire.idle {
			t.Error("idle while a call is in flight")
		}
		if r.wire.deadline != 0 {
			t.Error("a deadline while the app computes")
		}
		r.wire.taken = nil
		c.ok("hi")
		r.wantOutput("HTTP/1.1 200 OK\r\n" + testDate + "server: spvn\r\ncontent-length: 2\r\n\r\nhi")
		if !r.wire.idle || r.wire.deadline != r.wire.now+int64(DefaultKeepAliveTimeout) {
			t.Error("not idle, or no keep-alive deadline")
		}
	}
	r.wantEnd(false, false)
}

func TestDateIsNewEverySecond(t *testing.T) {
	wall := time.Date(1994, 11, 6, 8, 49, 37, 250e6, time.UTC)
	r := newRig(t, func(c *Config) { c.Date, c.Clock = true, func() time.Time { return wall } })
	at := func(after time.Duration, want string) {
		t.Helper()
		wall = wall.Add(after)
		r.wire.now += int64(after)
		r.wire.taken = nil
		r.send(get)
		r.app.calls[len(r.app.calls)-1].ok("")
		if out := r.output(); !strings.Contains(out, ":"+want+" GMT") {
			t.Errorf("output is %q; want second %s", out, want)
		}
	}
	at(0, "37")
	at(740*time.Millisecond, "37")
	at(10*time.Millisecond, "38")
	at(time.Minute-1*time.Second-500*time.Millisecond, "36")
}

// TestPipelining checks that requests are answered in order, one at a time, with reading
// paused meanwhile, and that nothing recurses.
func TestPipelining(t *testing.T) {
	r := newRig(t)
	r.send(get + get + get[:30])
	r.last(1)
	if !r.wire.paused {
		t.Error("reading goes on; want it paused while a request waits")
	}
	r.last(1).ok("hi")
	r.last(2)
	r.wantOutput(hi)
	if !r.wire.paused {
		t.Error("reading goes on; want it paused while half a request waits")
	}
	r.last(2).ok("hi")
	r.wantOutput(hi + hi)
	if r.wire.paused || r.wire.deadline != r.wire.now+int64(DefaultHeaderTimeout) {
		t.Error("paused, or no header deadline; want to wait for the rest")
	}
	r.send(get[30:])
	r.last(3).ok("hi")
	r.wantOutput(hi + hi + hi)

	const many = 20000
	r = newRig(t)
	r.app.start = func(c *appCall) bool { c.ok("hi"); return false }
	r.send(strings.Repeat(get, many))
	r.read()
	r.last(many)
	r.wantOutput(strings.Repeat(hi, many))

	// The same with the first answer late, so that the rest runs out of it.
	r = newRig(t)
	r.app.start = func(c *appCall) bool { return len(r.app.calls) == 1 }
	r.send(strings.Repeat(get, many))
	r.app.start = func(c *appCall) bool { c.ok("hi"); return false }
	r.last(1).ok("hi")
	r.read()
	r.last(many)
	r.wantOutput(strings.Repeat(hi, many))
}

func TestUpload(t *testing.T) {
	r := newRig(t)
	r.app.room = 10
	r.send(post + "Content-Length: 30\r\n\r\n0123")
	c := r.last(1)
	if string(c.body) != "0123" || c.bodyLast {
		t.Errorf("body %q, last %v; want what came with the head", c.body, c.bodyLast)
	}
	if r.wire.deadline != r.wire.now+int64(DefaultBodyTimeout) {
		t.Error("no body deadline")
	}
	r.wire.now += int64(time.Second)
	r.send("4567")
	if r.wire.deadline != r.wire.now+int64(DefaultBodyTimeout) {
		t.Error("the body deadline did not restart with progress")
	}
	r.send("89ab")
	if !r.wire.paused || r.wire.deadline != 0 {
		t.Errorf("paused %v, deadline %d; want a pause without a deadline", r.wire.paused, r.wire.deadline)
	}
	r.Timeout() // one that was on its way
	c.room = 5
	c.answer.Resume()
	if r.wire.paused || r.wire.deadline == 0 {
		t.Error("paused, or no deadline; want to go on")
	}
	c.answer.Resume()
	r.send("cdef0123456789abcd" + get)
	if string(c.body) != "0123456789abcdef0123456789abcd" || !c.bodyLast {
		t.Errorf("body %q, last %v", c.body, c.bodyLast)
	}
	c.ok("hi")
	r.last(2)
	r.wantEnd(false, false)
}

func TestContinue(t *testing.T) {
	const in = post + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
	const interim = "HTTP/1.1 100 Continue\r\n\r\n"
	t.Run("the app asks", func(t *testing.T) {
		r := newRig(t)
		r.send(in)
		c := r.last(1)
		if !c.wait || r.wire.deadline != 0 {
			t.Errorf("wait %v, deadline %d; want it to wait without one", c.wait, r.wire.deadline)
		}
		r.Timeout()
		r.wantOutput("")
		c.answer.Continue()
		c.answer.Continue()
		r.wantOutput(interim)
		if r.wire.deadline == 0 {
			t.Error("no body deadline behind the 100")
		}
		r.send("ab")
		c.ok("hi")
		r.wantOutput(interim + hi)
		r.wantEnd(false, false)
	})
	t.Run("inside Start", func(t *testing.T) {
		r := newRig(t)
		r.app.start = func(c *appCall) bool { c.answer.Continue(); return true }
		r.send(in)
		r.wantOutput(interim)
		if r.wire.deadline == 0 {
			t.Error("no body deadline behind the 100")
		}
	})
	t.Run("the body came with the head", func(t *testing.T) {
		r := newRig(t)
		r.send(in + "a")
		c := r.last(1)
		c.answer.Continue()
		if c.wait {
			t.Error("the call says that the client waits")
		}
		r.wantOutput("")
	})
	t.Run("the body came by itself", func(t *testing.T) {
		r := newRig(t)
		r.send(in)
		r.send("a")
		r.last(1).answer.Continue()
		r.wantOutput("")
	})
	t.Run("the answer has begun", func(t *testing.T) {
		r := newRig(t)
		r.send(in)
		c := r.last(1)
		c.answer.Respond(200, nil, nil, false, false)
		r.output()
		c.answer.Continue()
		r.wantOutput("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
		c.answer.RespondBody(nil, true)
		r.wantEnd(true, false) // the client may send the body or not
	})
	t.Run("refused by the app", func(t *testing.T) {
		r := newRig(t)
		r.send(in)
		r.last(1).ok("hi")
		r.wantOutput("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
		r.wantEnd(true, false)
	})
	t.Run("too large", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.LimitBody = 1 })
		r.send(in)
		r.wantStatus(413)
	})
}

// TestUnreadBody checks what happens to a body that the app did not wait for.
func TestUnreadBody(t *testing.T) {
	t.Run("short", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 5\r\n\r\na")
		r.last(1).ok("hi")
		r.wantOutput(hi)
		r.send("bc")
		r.send("de" + get)
		r.last(2)
		r.wantEnd(false, false)
	})
	t.Run("long", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 1000000\r\n\r\na")
		r.last(1).ok("hi")
		r.wantOutput("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
		r.wantEnd(true, false)
	})
	const streamed = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
	stream := func(r *rig) {
		r.send(post + "Content-Length: 1000001\r\n\r\na")
		a := r.last(1).answer
		a.Respond(200, nil, nil, false, false)
		a.RespondBody(nil, true)
		r.wantOutput(streamed)
		r.wantEnd(false, false)
	}
	t.Run("long behind a stream", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MinBodyRate = 1 })
		stream(r)
		for range 99 {
			r.send(strings.Repeat("x", 10000))
			r.wire.now += int64(200 * time.Millisecond)
			if r.wire.now >= r.wire.deadline {
				r.Timeout()
			}
		}
		r.wantEnd(false, false)
		r.send(strings.Repeat("x", 10000) + get)
		r.last(2).ok("hi")
		r.wantOutput(streamed + hi)
	})
	t.Run("long behind a stream, for too long", func(t *testing.T) {
		r := newRig(t)
		stream(r)
		r.wire.now += int64(discardTime)
		r.send("xx")
		r.wantEnd(true, false)
	})
	t.Run("a byte at a time, for too long", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MinBodyRate = 1 })
		r.send(post + "Content-Length: 1000\r\n\r\na")
		r.last(1).ok("hi")
		for begin := r.wire.now; !r.wire.closed; r.wire.now += int64(time.Second) {
			if r.wire.now-begin > int64(discardTime) {
				t.Fatal("it goes on for ever")
			}
			if r.wire.now >= r.wire.deadline {
				r.Timeout()
			} else {
				r.send("x")
			}
		}
		r.wantOutput(hi)
	})
	t.Run("nothing more", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.TimeoutBody = 0 })
		r.send(post + "Content-Length: 1000\r\n\r\na")
		r.last(1).ok("hi")
		if r.wire.deadline != r.wire.now+int64(discardTime) {
			t.Errorf("the deadline is %v away; want %v", time.Duration(r.wire.deadline-r.wire.now), discardTime)
		}
		r.wire.now = r.wire.deadline
		r.Timeout()
		r.wantEnd(true, false)
	})
	t.Run("long behind a stream, while the server drains", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 1000001\r\n\r\na")
		a := r.last(1).answer
		a.Respond(200, nil, nil, false, false)
		r.Drain()
		a.RespondBody(nil, true)
		r.wantEnd(true, false)
	})
	t.Run("chunked", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.LimitDiscard = 100 })
		r.send(post + te + "\r\n")
		r.last(1).ok("hi")
		r.wantOutput(hi)
		r.send("5\r\nhello\r\n0\r\n\r\n" + get)
		r.last(2)
	})
	t.Run("chunked and long", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.LimitDiscard = 100 })
		r.send(post + te + "\r\n")
		r.last(1).ok("hi")
		for range 9 {
			r.send("5\r\nhello\r\n")
		}
		r.wantEnd(false, false)
		r.send("5\r\nhello\r\n")
		r.send("5\r\nhello\r\n")
		r.wantEnd(true, false)
		r.wantOutput(hi)
	})
	t.Run("malformed", func(t *testing.T) {
		r := newRig(t)
		r.send(post + te + "\r\n")
		r.last(1).ok("hi")
		r.send("x")
		r.wantEnd(true, false)
		r.wantOutput(hi)
	})
	t.Run("paused", func(t *testing.T) {
		r := newRig(t)
		r.app.room = 0
		r.send(post + "Content-Length: 5\r\n\r\na")
		if !r.wire.paused {
			t.Error("not paused without room")
		}
		r.last(1).ok("hi")
		if r.wire.paused {
			t.Error("paused; want the rest read and discarded")
		}
		r.send("bcde" + get)
		r.last(2)
	})
	t.Run("in time", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 5\r\n\r\na")
		r.last(1).ok("hi")
		if r.wire.deadline == 0 {
			t.Fatal("no deadline")
		}
		r.Timeout()
		r.wantOutput(hi)
		r.wantEnd(true, false)
	})
}

func TestTimeouts(t *testing.T) {
	late := func(r *rig) { r.wire.now = r.wire.deadline; r.Timeout() }
	t.Run("never sent a byte", func(t *testing.T) {
		r := newRig(t)
		if r.wire.deadline != r.wire.now+int64(DefaultHeaderTimeout) || !r.wire.idle {
			t.Error("no header deadline, or not idle")
		}
		late(r)
		r.wantOutput("")
		r.wantEnd(true, false)
	})
	t.Run("head", func(t *testing.T) {
		r := newRig(t)
		r.wire.now += int64(5 * time.Second)
		start := r.wire.now
		for i := range 20 {
			r.send(get[i : i+1])
			r.wire.now += int64(100 * time.Millisecond)
		}
		if r.wire.deadline != start+int64(DefaultHeaderTimeout) {
			t.Error("the header deadline moved; want it total from the first byte")
		}
		late(r)
		r.wantStatus(408)
		r.wantEnd(true, false)
		if len(r.refused) != 1 || r.refused[0] != "408 false" {
			t.Errorf("refused %q", r.refused)
		}
	})
	t.Run("head that drips past its deadline", func(t *testing.T) {
		r := newRig(t)
		r.send(get[:10])
		r.wire.now = r.wire.deadline
		r.send(get[10:11])
		r.wantStatus(408)
		r.wantEnd(true, false)
	})
	t.Run("body", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 5\r\n\r\na")
		late(r)
		r.wantStatus(408)
		r.wantEnd(true, false)
		if !r.last(1).left {
			t.Error("the call was not left")
		}
	})
	t.Run("body behind the answer's head", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 5\r\n\r\na")
		r.last(1).answer.Respond(200, nil, []byte("x"), false, false)
		late(r)
		r.wantEnd(false, true)
		if !r.last(1).left {
			t.Error("the call was not left")
		}
	})
	t.Run("keep-alive", func(t *testing.T) {
		expired := 0
		r := newRig(t, func(c *Config) {
			c.SilenceExpired = func(used bool) {
				if used {
					expired++
				}
			}
		})
		r.send(get)
		r.last(1).ok("hi")
		r.wire.now += int64(time.Second)
		r.send("\r\n")
		if r.wire.deadline != r.wire.now-int64(time.Second)+int64(DefaultKeepAliveTimeout) {
			t.Error("an empty line moved the keep-alive deadline")
		}
		late(r)
		r.wantOutput(hi)
		r.wantEnd(true, false)
		if expired != 1 {
			t.Errorf("%d expired; want 1", expired)
		}
	})
	t.Run("off", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.TimeoutHeader, c.TimeoutBody, c.TimeoutKeepAlive = 0, 0, 0 })
		r.send(get[:5])
		r.send(get[5:])
		r.last(1).ok("hi")
		r.send(post + "Content-Length: 5\r\n\r\na")
		if r.wire.deadline != 0 || r.wire.deadlines != 0 {
			t.Errorf("%d deadlines; want none", r.wire.deadlines)
		}
	})
}

// TestPeerClosed has one case for each place at which a client can shut its side.
func TestPeerClosed(t *testing.T) {
	for _, test := range []struct {
		name     string
		in       string
		together bool
		unread   int
		left     bool // the call is left
		closed   bool
	}{
		{"idle", "", false, 0, false, true},
		{"in a head", get[:20], true, 0, false, true},
		{"with the end of a request", get, true, 0, false, false},
		{"behind a request", get, false, 0, true, true},
		{"with the end of a body", post + "Content-Length: 1\r\n\r\na", true, 0, false, false},
		{"in a body", post + "Content-Length: 2\r\n\r\na", true, 0, true, true},
		{"in a body, later", post + "Content-Length: 2\r\n\r\na", false, 0, true, true},
		{"in a body, the rest is unread", post + "Content-Length: 5\r\n\r\na", false, 4, false, false},
		{"in a body, part of the rest is unread", post + "Content-Length: 5\r\n\r\na", false, 3, true, true},
		{"in chunks, something is unread", post + te + "\r\n1\r\na\r\n", false, 100, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.send(test.in)
			r.PeerClosed(test.together, test.unread)
			r.wantEnd(test.closed, false)
			if len(r.app.calls) > 0 && r.last(1).left != test.left {
				t.Errorf("left %v; want %v", r.last(1).left, test.left)
			}
			if test.closed || test.left {
				return
			}
			if test.unread > 0 {
				r.send("bcde")
			}
			r.last(1).ok("hi")
			r.wantOutput(hi)
			r.wantEnd(true, false)
		})
	}
	t.Run("in an answer", func(t *testing.T) {
		r := newRig(t)
		r.send(get)
		r.last(1).answer.Respond(200, nil, []byte("x"), false, false)
		r.PeerClosed(false, 0)
		r.wantEnd(false, true)
		if !r.last(1).left {
			t.Error("the call was not left")
		}
	})
	t.Run("with pipelined requests", func(t *testing.T) {
		r := newRig(t)
		r.send(get + get + get[:9])
		r.PeerClosed(true, 0)
		r.last(1).ok("hi")
		r.last(2).ok("hi")
		r.wantOutput(hi + hi)
		r.wantEnd(true, false)
	})
	t.Run("while the body is discarded", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 2\r\n\r\na")
		r.last(1).ok("hi")
		r.PeerClosed(false, 0)
		r.wantOutput(hi)
		r.wantEnd(true, false)
	})
}

// A client that asks and asks and reads nothing has a bounded number of answers kept for it.
func TestPipelineWaitsForItsReader(t *testing.T) {
	big := strings.Repeat("x", maxUnsent/2)
	r := newRig(t)
	r.app.start = func(c *appCall) bool { c.ok(big); return false }
	r.send(strings.Repeat(get, 10))
	if n := len(r.app.calls); n != 2 {
		t.Errorf("%d calls were begun; want 2", n)
	}
	if !r.wire.paused || r.wire.idle || r.wire.deadline != 0 {
		t.Errorf("paused %v, idle %v, deadline %d; want a connection that only writes", r.wire.paused, r.wire.idle, r.wire.deadline)
	}
	r.PeerClosed(true, 0) // and nothing more comes
	for i := 0; i < 10 && !r.wire.closed; i++ {
		r.flush(-1)
	}
	if n := len(r.app.calls); n != 10 {
		t.Errorf("%d calls were begun in the end; want 10", n)
	}
	r.wantEnd(true, false)
	if n := strings.Count(r.output(), big); n != 10 {
		t.Errorf("%d answers came; want 10", n)
	}
}

func TestLost(t *testing.T) {
	r := newRig(t)
	r.Lost()
	r.Lost()

	r = newRig(t)
	r.send(post + "Content-Length: 2\r\n\r\na")
	c := r.last(1)
	r.Lost()
	if !c.left {
		t.Error("the call was not left")
	}
	// What comes late is ignored.
	c.answer.Resume()
	c.answer.Continue()
	c.ok("hi")
	c.answer.Fail(500, "", 0)
	r.wantOutput("")
	r.wantEnd(false, false)
}

func TestDrain(t *testing.T) {
	const last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
	t.Run("idle", func(t *testing.T) {
		r := newRig(t)
		r.Drain()
		r.wantEnd(true, false)
	})
	t.Run("in flight", func(t *testing.T) {
		r := newRig(t)
		r.send(get + get)
		r.Drain()
		r.wantEnd(false, false)
		r.last(1).ok("hi")
		r.last(1)
		r.wantOutput(last)
		r.wantEnd(true, false)
	})
	t.Run("in a head", func(t *testing.T) {
		r := newRig(t)
		r.send(get[:9])
		r.Drain()
		r.send(get[9:])
		r.last(1).ok("hi")
		r.wantOutput(last)
		r.wantEnd(true, false)
	})
	t.Run("in an answer", func(t *testing.T) {
		r := newRig(t)
		r.send(get)
		a := r.last(1).answer
		a.Respond(200, nil, nil, false, false)
		r.Drain()
		a.RespondBody(nil, true)
		r.wantOutput("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
		r.wantEnd(true, false)
	})
	t.Run("while a body is discarded", func(t *testing.T) {
		r := newRig(t)
		r.send(post + "Content-Length: 2\r\n\r\na")
		r.last(1).ok("hi")
		r.Drain()
		r.wantEnd(true, false)
	})
	t.Run("the server's flag", func(t *testing.T) {
		draining := false
		r := newRig(t, func(c *Config) { c.Draining = func() bool { return draining } })
		r.send(get)
		draining = true
		r.last(1).ok("hi")
		r.wantOutput(last)
		r.wantEnd(true, false)
	})
}

func TestLimitRequests(t *testing.T) {
	r := newRig(t, func(c *Config) { c.LimitRequests = 2 })
	r.send(get + get + get)
	r.last(1).ok("hi")
	r.last(2).ok("hi")
	r.wantOutput(hi + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
	r.wantEnd(true, false)
}

// TestRefusedInBody checks that a body which breaks the rules ends its call, whatever of
// the answer there is.
func TestRefusedInBody(t *testing.T) {
	r := newRig(t)
	r.send(post + te + "\r\n1\r\na\r\n")
	r.send("x")
	r.wantStatus(400)
	r.wantEnd(true, false)
	if !r.last(1).left || r.refused[0] != "400 true" {
		t.Errorf("left %v, refused %q", r.last(1).left, r.refused)
	}

	r = newRig(t)
	r.send(post + te + "\r\n1\r\na\r\n")
	r.last(1).answer.Respond(200, nil, []byte("x"), false, false)
	r.send("x")
	r.wantEnd(false, true)
	if !r.last(1).left {
		t.Error("the call was not left")
	}

	// What came with the head is looked at before the app hears of it.
	r = newRig(t)
	r.send(post + te + "\r\n1\r\na\r\nx")
	r.wantStatus(400)
	if len(r.app.calls) != 0 {
		t.Error("the app was called")
	}
}

// TestLongHead checks a head that outgrows every pooled buffer, and one that comes behind
// another request.
func TestLongHead(t *testing.T) {
	in := "GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("a", 200<<10) + "\r\n\r\n"
	for _, n := range []int{100, 3000, 50000, 1 << 20} {
		r := newRig(t, func(c *Config) { c.LimitHeaderBytes = 1 << 20 })
		r.send(get + in[:10])
		r.last(1).ok("")
		r.sendIn(in[10:], n)
		if c := r.last(2); len(c.fields) != 2 || len(c.fields[1]) != 3+200<<10 {
			t.Errorf("%d bytes at a time: %d fields", n, len(c.fields))
		}
	}
}

func TestWebSocketHandshake(t *testing.T) {
	const in = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"
	for _, test := range []struct {
		name string
		on   bool
		in   string
		want bool
	}{
		{"on", true, in, true},
		{"off", false, in, false},
		{"POST", true, "POST" + in[3:], false},
		{"no Connection", true, strings.Replace(in, ", Upgrade", "", 1), false},
		{"h2c", true, strings.Replace(in, "WebSocket", "h2c", 1), false},
		{"HTTP/1.0", true, strings.Replace(in, "1.1", "1.0", 1), false},
		{"body", true, strings.Replace(in, "Host", "Content-Length: 1\r\nHost", 1), false},
	} {
		r := newRig(t, func(c *Config) {
			if test.on {
				c.WebSockets = anySockets{}
			}
		})
		r.send(test.in)
		c := r.last(1)
		if c.ws != test.want || (c.scheme == "ws") != test.want {
			t.Errorf("%s: handshake %v, scheme %s; want %v", test.name, c.ws, c.scheme, test.want)
		}
	}
	r := newRig(t, func(c *Config) { c.WebSockets = anySockets{} })
	r.send(in + "frames")
	if rest := r.Detach(); string(rest) != "frames" || r.wire.paused || r.wire.deadline != 0 {
		t.Errorf("rest %q, paused %v, deadline %d", rest, r.wire.paused, r.wire.deadline)
	}
	r.last(1).ok("")
	r.wantOutput("")
}

func TestAddresses(t *testing.T) {
	r := newRig(t)
	r.send(get)
	if c := r.last(1); c.client != (call.Addr{Host: "192.0.2.1", Port: 1234}) || c.scheme != "http" {
		t.Errorf("client %v, scheme %s", c.client, c.scheme)
	}
}

// What a chunk costs beside its bytes is no business of the client's: those of one read come together.
func TestSmallChunksComeTogether(t *testing.T) {
	for _, size := range []int{1, 100, joined, joined + 1} {
		r := newRig(t)
		pieces := 0
		r.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		c := r.last(1)
		c.room, c.onBody = 1<<20, func(*appCall) { pieces++ }
		chunk := fmt.Sprintf("%x\r\n%s\r\n", size, strings.Repeat("b", size-1)+"e")
		many := max(2, 40_000/len(chunk))
		r.send(strings.Repeat(chunk, many))
		want := 1
		if size > joined {
			want = many
		}
		if pieces != want {
			t.Errorf("%d chunks of %d bytes came in %d pieces; want %d", many, size, pieces, want)
		}
		r.send("0\r\n\r\n")
		if got := strings.Repeat(strings.Repeat("b", size-1)+"e", many); string(c.body) != got || !c.bodyLast {
			t.Errorf("%d chunks of %d bytes came as %d other bytes", many, size, len(c.body))
		}
	}
}
