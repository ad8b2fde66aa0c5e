package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// runner is what both transports are.
type runner interface {
	Start()
	Stop()
	Done() <-chan struct{}
	Post(func())
	Drain()
	Listen(fd int, local call.Addr, wildcard, unixSocket bool) error
}

// quietEngine has nothing to do.
type quietEngine struct{}

func (quietEngine) Wake(int64)                 {}
func (quietEngine) Turn() bool                 { return false }
func (quietEngine) Publish()                   {}
func (quietEngine) Arm() (time.Duration, bool) { return 0, true }

// scripted is a protocol that does what its input says and notes what it sees.
type scripted struct {
	rig     *rig
	carrier call.Carrier
	got     bytes.Buffer
	stays   bool // after the peer's FIN
}

func (p *scripted) Receive(b []byte) {
	p.rig.note("received %d", len(b))
	p.got.Write(b)
	for {
		line, err := p.got.ReadString('\n')
		if err != nil {
			p.got.WriteString(line)
			return
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "echo":
			p.carrier.Commit(append(p.carrier.Buffer(), rest+"\n"...))
		case "big":
			var n int
			fmt.Sscan(rest, &n)
			p.carrier.Commit(append(p.carrier.Buffer(), make([]byte, n)...))
		case "busy":
			p.carrier.Idle(false)
			p.carrier.Commit(append(p.carrier.Buffer(), "busy\n"...))
		case "stay":
			p.stays = true
		case "pause":
			p.carrier.Pause()
			p.carrier.Deadline(p.carrier.Now() + int64(200*time.Millisecond))
		case "deadline":
			p.carrier.Deadline(p.carrier.Now() + int64(300*time.Millisecond))
		case "close":
			p.carrier.Commit(append(p.carrier.Buffer(), "bye\n"...))
			p.carrier.Close()
		case "abort":
			p.carrier.Abort()
		case "panic":
			panic("as asked")
		}
	}
}
func (p *scripted) PeerClosed(together bool, unread int) {
	p.rig.note("peer closed %v", together)
	if !p.stays {
		p.carrier.Close()
	}
}
func (p *scripted) Sent(n int) { p.rig.note("sent") }
func (p *scripted) Timeout() {
	p.rig.note("timeout")
	p.carrier.Commit(append(p.carrier.Buffer(), "timeout\n"...))
	p.carrier.Resume()
}
func (p *scripted) Drain() { p.rig.note("drain"); p.carrier.Close() }
func (p *scripted) Lost()  { p.rig.note("lost") }

// rig is one loop with a listener on loopback.
type rig struct {
	t        *testing.T
	loop     runner
	shared   *Shared
	registry *observe.Registry
	address  string

	mu    sync.Mutex
	notes []string
}

func (r *rig) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *rig) noted(want string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notes {
		if n == want {
			return true
		}
	}
	return false
}

// wait waits for a condition.
func (r *rig) wait(what string, condition func() bool) {
	r.t.Helper()
	end := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(end) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("waited ten seconds for %s; notes: %v", what, r.notes)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) counter(c observe.Counter) uint64 { return r.registry.Snapshot().Get(c) }

// onBoth runs a test on both transports.
func onBoth(t *testing.T, change func(*Config), test func(*testing.T, *rig)) {
	for _, kind := range []string{"poll loop", "goroutines"} {
		t.Run(kind, func(t *testing.T) {
			r := &rig{t: t, registry: observe.NewRegistry()}
			config := &Config{
				WriteTimeout: time.Second,
				Counters:     []*observe.Shard{r.registry.Shard()},
				Log:          func(level, key, message string) { r.note("log %s", key) },
			}
			config.NewProtocol = func(_ int, c call.Carrier, peer, local call.Addr, _ call.Scheme) call.Protocol {
				if peer.Host != "127.0.0.1" || local.Host != "127.0.0.1" || peer.Port <= 0 || local.Port <= 0 {
					t.Errorf("got peer %v, local %v; want addresses of 127.0.0.1", peer, local)
				}
				return &scripted{rig: r, carrier: c}
			}
			if change != nil {
				change(config)
			}
			var err error
			if r.shared, err = NewShared(); err != nil {
				t.Fatal(err)
			}
			bell, err := link.NewBell()
			if err != nil {
				t.Fatal(err)
			}
			if kind == "goroutines" {
				r.loop, err = NewNetLoop(0, bell, config, r.shared, quietEngine{})
			} else {
				r.loop, err = NewLoop(0, bell, config, r.shared, quietEngine{})
			}
			if err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			f, err := ln.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			fd := int(f.Fd()) // makes it blocking, so only once
			syscall.SetNonblock(fd, true)
			ln.Close()
			r.address = ln.Addr().String()
			r.loop.Post(func() {
				if err := r.loop.Listen(fd, call.Addr{}, true, false); err != nil {
					t.Error(err)
				}
			})
			r.loop.Start()
			defer func() {
				r.loop.Stop()
				<-r.loop.Done()
				f.Close()
				r.shared.Close()
				if n := r.shared.Open(); n != 0 {
					t.Errorf("%d connections are open after the end", n)
				}
				s := r.registry.Snapshot()
				if a, c := s.Get(observe.ConnectionsAccepted), s.Get(observe.ConnectionsClosed); a != c {
					t.Errorf("accepted %d connections and closed %d", a, c)
				}
				if n := int64(s.Get(observe.ConnectionsIdle)); n != 0 {
					t.Errorf("%d idle connections after the end", n)
				}
			}()
			test(t, r)
		})
	}
}

func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.address, 10*time.Second)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func (r *rig) say(c net.Conn, line string) {
	r.t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) hear(c net.Conn, want string) {
	r.t.Helper()
	b := make([]byte, len(want)+1)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want+"\n" {
		r.t.Fatalf("got %q (%v); want %q", b, err, want)
	}
}

func (r *rig) ends(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

func TestEcho(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		for i := range 100 {
			r.say(c, fmt.Sprintf("echo %d", i))
			r.hear(c, fmt.Sprint(i))
		}
		many := make([]*net.TCPConn, 100)
		for i := range many {
			many[i] = r.dial()
			r.say(many[i], fmt.Sprintf("echo %d", i))
		}
		for i, c := range many {
			r.hear(c, fmt.Sprint(i))
		}
	})
}

func TestHalfClose(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "echo x")
		c.CloseWrite()
		r.hear(c, "x")
		if err := r.ends(c); err != nil {
			t.Errorf("got %v; want a clean end", err)
		}
		r.wait("the end", func() bool { return r.noted("peer closed true") || r.noted("peer closed false") })
	})
}

func TestCloseLetsThePeerReadTheLastAnswer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "close\n"+strings.Repeat("never read by the protocol\n", 1000))
		r.hear(c, "bye")
		if err := r.ends(c); err != nil {
			t.Errorf("got %v; want a clean end", err)
		}
		c.Close()
		r.wait("the descriptor", func() bool { return r.shared.Open() == 0 })
	})
}

// Input behind the last request must not end an answer that is still on its way.
func TestCloseLetsTheOutputLeaveWhateverComesIn(t *testing.T) {
	onBoth(t, func(c *Config) { c.WriteTimeout = 10 * time.Second }, func(t *testing.T, r *rig) {
		const size = 16 << 20 // more than the kernel takes
		c := r.dial()
		r.say(c, fmt.Sprintf("big %d\nclose", size))
		if _, err := io.ReadFull(c, make([]byte, size/4)); err != nil {
			t.Fatal(err)
		}
		r.say(c, "one more thing")
		if n, err := io.Copy(io.Discard, c); err != nil || n != size-size/4+4 {
			t.Errorf("got %d bytes more (%v); want %d", n, err, size-size/4+4)
		}
	})
}

// A FIN that comes while reading is paused does not hide what stands before it.
func TestFinBehindPausedInput(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "stay\npause")
		r.wait("the pause", func() bool { return r.counter(observe.ConnectionsReadsPaused) == 1 })
		r.say(c, "echo behind")
		c.CloseWrite()
		r.hear(c, "timeout") // the deadline that pause sets resumes
		r.hear(c, "behind")
	})
}

func TestAbortResets(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "echo last words\nabort")
		r.hear(c, "last words")
		if err := r.ends(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v; want a reset", err)
		}
	})
}

func TestPanicCostsOneConnection(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		other, c := r.dial(), r.dial()
		r.say(other, "echo 1")
		r.hear(other, "1")
		r.say(c, "panic")
		r.wait("the log", func() bool { return r.noted("log panic") })
		r.say(other, "echo 2")
		r.hear(other, "2")
	})
}

func TestDeadline(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		began := time.Now()
		r.say(c, "deadline")
		r.hear(c, "timeout")
		if d := time.Since(began); d < 290*time.Millisecond || d > 3*time.Second {
			t.Errorf("a deadline of 0.3 s came after %v", d)
		}
	})
}

func TestPause(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "pause")
		r.wait("the pause", func() bool { return r.counter(observe.ConnectionsReadsPaused) == 1 })
		r.say(c, "echo after")
		r.hear(c, "timeout")
		r.hear(c, "after")
	})
}

func TestPeerLeavesWhileReadingIsPaused(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		if _, ok := r.loop.(*NetLoop); ok {
			t.Skip("a goroutine that does not read sees no FIN: documented")
		}
		c := r.dial()
		r.say(c, "pause")
		r.wait("the pause", func() bool { return r.counter(observe.ConnectionsReadsPaused) == 1 })
		c.Close()
		r.wait("the FIN", func() bool { return r.noted("peer closed false") })
	})
}

func TestSlowReaderMeetsTheWriteDeadline(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "big 30000000")
		r.wait("the deadline", func() bool { return r.counter(observe.TimedOutWrite) == 1 })
		if err := r.ends(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v; want a reset", err)
		}
		r.wait("the news", func() bool { return r.noted("lost") })
	})
}

func TestBigAnswer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "big 30000000")
		r.say(c, "close")
		n, err := io.Copy(io.Discard, c)
		if n != 30000004 || err != nil {
			t.Errorf("got %d bytes, %v; want 30000004", n, err)
		}
	})
}

func TestDrain(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "echo 1")
		r.hear(c, "1")
		r.loop.Post(r.loop.Drain)
		if err := r.ends(c); err != nil {
			t.Errorf("got %v; want a clean end", err)
		}
	})
}

func TestIdleConnectionsMakeRoom(t *testing.T) {
	onBoth(t, func(c *Config) { c.MaxConnections = 5 }, func(t *testing.T, r *rig) {
		busy := r.dial()
		r.say(busy, "busy")
		r.hear(busy, "busy")
		var silent []*net.TCPConn
		for range 4 {
			silent = append(silent, r.dial())
		}
		r.wait("all to be accepted", func() bool { return r.shared.Open() == 5 })
		fresh := r.dial()
		r.say(fresh, "echo 1")
		r.hear(fresh, "1")
		if err := r.ends(silent[0]); err != nil {
			t.Errorf("got %v from a connection that made room; want a clean end", err)
		}
		for _, c := range silent[1:] {
			r.say(c, "echo 3")
			r.hear(c, "3")
		}
		r.say(busy, "echo 2")
		r.hear(busy, "2")
		if n := r.counter(observe.ConnectionsShed); n != 1 {
			t.Errorf("got %d connections shed; want 1", n)
		}
	})
}

func TestWheel(t *testing.T) {
	var w wheel
	w.start(1000 * wheelTick)
	due := map[*conn]int64{}
	var conns []*conn
	for i := range 2000 {
		c := &conn{protocolAt: int64(1000+i*3)*wheelTick + 5}
		conns = append(conns, c)
		w.set(c, c.protocolAt)
	}
	for i, c := range conns {
		if i%5 == 0 {
			c.protocolAt = 0
			w.remove(c)
		}
		if i%7 == 0 && c.protocolAt != 0 {
			c.protocolAt += 50 * wheelTick // lazily: the wheel is not told
		}
	}
	for now := int64(1000) * wheelTick; w.next() != 0; now = max(now+wheelTick/3, w.next()) {
		w.turn(now, func(c *conn) {
			if c.protocolAt > now {
				w.set(c, c.protocolAt)
				return
			}
			due[c] = now
		})
	}
	for i, c := range conns {
		at, fired := due[c]
		switch {
		case c.protocolAt == 0 && fired:
			t.Errorf("%d: a removed deadline came", i)
		case c.protocolAt != 0 && (at < c.protocolAt || at > c.protocolAt+2*wheelTick):
			t.Errorf("%d: got %d; want %d to two ticks later", i, at, c.protocolAt)
		}
	}
}
