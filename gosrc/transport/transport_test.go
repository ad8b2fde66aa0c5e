package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/memory"
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

func (quietEngine) Wake(int64)                     {}
func (quietEngine) Turn() bool                     { return false }
func (quietEngine) Publish()                       {}
func (quietEngine) Arm(bool) (time.Duration, bool) { return 0, true }

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
		case "body": // of this many bytes, behind a head
			var n int
			fmt.Sscan(rest, &n)
			b := bytes.Clone(pattern(n))
			p.carrier.CommitBody(append(p.carrier.Buffer(), "head\n"...), b)
			clear(b) // it may not be kept
		case "held": // notes whether much is counted in Config.Outputs
			p.rig.note("held %v", p.rig.config.Outputs.Used() > 1<<20)
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

// pattern is n bytes, at most 8 MiB, of which no two stretches are the same. They are not to be changed.
func pattern(n int) []byte { return allPattern()[:n:n] }

// Once: byte by byte it would take most of a test's time with the race detector.
var allPattern = sync.OnceValue(func() []byte {
	b := make([]byte, 8<<20)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
})

// rig is one loop with a listener on loopback.
type rig struct {
	t        *testing.T
	loop     runner
	shared   *Shared
	registry *observe.Registry
	config   *Config
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
			r.config = config
			var err error
			r.shared = new(Shared)
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

// What a read leaves in the kernel is read too, though nothing new arrives to announce it.
func TestInputThatFillsTheReadBuffer(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		for _, size := range []int{inputSize - 1, inputSize, inputSize + 1, 2 * inputSize, 3 * inputSize} {
			for _, fin := range []bool{false, true} {
				c := r.dial()
				r.say(c, "stay\necho ready")
				r.hear(c, "ready")
				held := make(chan struct{})
				r.loop.Post(func() { <-held })
				line := "echo " + strings.Repeat("x", size-len("echo \n"))
				r.say(c, line)
				if fin {
					c.CloseWrite()
				}
				close(held)
				want := line[len("echo "):] + "\n"
				got := make([]byte, len(want))
				if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
					t.Fatalf("got %d bytes of %d (%v), the FIN behind them: %v", n, len(want), err, fin)
				}
				c.Close()
			}
		}
	})
}

// However much comes during a pause, and in however many pieces, all of it is read behind it, whether a FIN follows
// or not.
func TestPausesOfAllKinds(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		_, polls := r.loop.(*Loop)
		for _, pieces := range []int{1, longPause - 1, longPause, longPause + 1, 3 * longPause} {
			for _, fin := range []bool{false, true} {
				c := r.dial()
				r.say(c, "stay\necho ready")
				r.hear(c, "ready")
				paused := r.counter(observe.ConnectionsPaused)
				r.say(c, "pause")
				r.wait("the pause", func() bool { return r.counter(observe.ConnectionsPaused) == paused+1 })
				want := 0
				for i := range pieces {
					size := 100
					if i == pieces-1 {
						size = inputSize
					}
					wakeups := r.counter(observe.LoopWakeups)
					r.say(c, "echo "+strings.Repeat("x", size-len("echo \n")))
					want += size - len("echo ")
					if polls && i < longPause-1 { // else nobody is told of it
						r.wait("the news of it", func() bool { return r.counter(observe.LoopWakeups) != wakeups })
					}
				}
				if fin {
					c.CloseWrite()
				}
				r.hear(c, "timeout") // it resumes
				if n, err := io.ReadFull(c, make([]byte, want)); err != nil {
					t.Fatalf("got %d bytes of %d (%v), the FIN behind them: %v", n, want, err, fin)
				}
				c.Close()
			}
		}
	})
}

// The protocol hears of a FIN although it paused with the read that the FIN came with, and the read buffer was full.
func TestFinBehindAFullReadThatPaused(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		if _, ok := r.loop.(*NetLoop); ok {
			t.Skip("a goroutine that does not read sees no FIN: documented")
		}
		for _, size := range []int{inputSize, 2 * inputSize} {
			c := r.dial()
			r.say(c, "stay\necho ready")
			r.hear(c, "ready")
			r.mu.Lock()
			r.notes = nil
			r.mu.Unlock()
			held := make(chan struct{})
			r.loop.Post(func() { <-held })
			r.say(c, "pause\n"+strings.Repeat("x", size-len("pause\n\n")))
			c.CloseWrite()
			close(held)
			r.wait("the end of the pause", func() bool { return r.noted("timeout") })
			r.mu.Lock()
			if told := slices.Index(r.notes, "peer closed false"); told < 0 || told > slices.Index(r.notes, "timeout") {
				t.Errorf("with %d bytes before the FIN the protocol heard %q; want of the FIN first", size, r.notes)
			}
			r.mu.Unlock()
			c.Close()
		}
	})
}

// A connection that closes while it is not read discards what came, so that its last answer arrives.
func TestCloseDuringAPause(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		for _, size := range []int{100, inputSize, 3 * inputSize} {
			c := r.dial()
			r.say(c, "pause\nclose\n"+strings.Repeat("x", size))
			r.hear(c, "bye")
			if err := r.ends(c); err != nil {
				t.Errorf("got %v with %d bytes behind; want a clean end", err, size)
			}
			c.Close()
			r.wait("the descriptor", func() bool { return r.shared.Open() == 0 })
		}
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

// A deadline that the protocol leaves as it is comes also where the peer never stops sending.
func TestDeadlineOfAPeerThatSends(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		fmt.Fprintf(c, "deadline\n")
		got := make(chan string, 1)
		go func() {
			line, _ := bufio.NewReader(c).ReadString('\n')
			got <- line
		}()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
			select {
			case line := <-got:
				if line != "timeout\n" {
					t.Errorf("got %q; want the timeout", line)
				}
				return
			default:
				io.WriteString(c, "word\n")
			}
		}
		t.Error("the timeout never came")
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

func TestResetsAreCounted(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		for n := range uint64(3) {
			c := r.dial()
			r.say(c, "echo here")
			r.hear(c, "here")
			c.SetLinger(0)
			c.Close()
			r.wait("the reset", func() bool { return r.counter(observe.ConnectionsReset) == n+1 })
		}
		c := r.dial()
		r.say(c, "close")
		r.hear(c, "bye")
		c.Close()
		r.wait("the end", func() bool { return r.counter(observe.ConnectionsClosed) == 4 })
		if n := r.counter(observe.ConnectionsReset); n != 3 {
			t.Errorf("%d resets; want 3", n)
		}
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

func TestOutputThatIsNotTakenIsCounted(t *testing.T) {
	budget := memory.NewBudget(1 << 20)
	onBoth(t, func(c *Config) { c.Outputs, c.WriteTimeout = budget, 0 }, func(t *testing.T, r *rig) {
		reads, leaves := r.dial(), r.dial()
		for _, c := range []*net.TCPConn{reads, leaves} {
			r.say(c, "big 16000000")
		}
		r.wait("two answers to be counted", func() bool { return budget.Used() > 20_000_000 })
		if !budget.Over() {
			t.Error("the budget is not overdrawn")
		}
		leaves.SetLinger(0)
		leaves.Close()
		if n, err := io.CopyN(io.Discard, reads, 16_000_000); err != nil {
			t.Fatalf("got %d bytes and %v", n, err)
		}
		r.wait("nothing to be counted", func() bool { return budget.Used() == 0 })
	})
}

// Whoever fills the connections looks at the budget meanwhile: what the kernel refused counts before the turn is over,
// and so does what is queued behind it.
func TestOutputIsCountedAtOnce(t *testing.T) {
	budget := memory.NewBudget(1 << 20)
	onBoth(t, func(c *Config) { c.Outputs, c.WriteTimeout = budget, 0 }, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "body 8000000\nbody 50000\nheld")
		if got, err := io.CopyN(io.Discard, c, 8_050_010); err != nil {
			t.Fatalf("got %d bytes, %v", got, err)
		}
		if !r.noted("held true") {
			t.Error("nothing is counted before the end of the turn")
		}
		r.wait("nothing to be counted", func() bool { return budget.Used() == 0 })
		line := strings.Repeat("e", 900)
		r.say(c, strings.Repeat("echo "+line+"\n", 60)) // more than a piece, and the kernel takes it all
		for range 60 {
			r.hear(c, line)
		}
		r.wait("nothing to be counted", func() bool { return budget.Used() == 0 })
	})
}

// What waits for a slow client leaves in order, and is all counted, however it was committed.
func TestOutputThatWaitsInPieces(t *testing.T) {
	budget := memory.NewBudget(1 << 20)
	onBoth(t, func(c *Config) { c.Outputs, c.WriteTimeout = budget, 0 }, func(t *testing.T, r *rig) {
		slow := r.dial()
		script, want := "body 8000000\n", append([]byte("head\n"), pattern(8_000_000)...)
		for i := range 3000 {
			n := []int{1, 70_000, directBody, 20_000, directBody - 1}[i%5]
			if i%2 == 0 {
				script += fmt.Sprintf("body %d\n", n)
				want = append(append(want, "head\n"...), pattern(n)...)
			} else {
				script += fmt.Sprintf("echo %s\n", strings.Repeat("e", n%1000))
				want = append(append(want, strings.Repeat("e", n%1000)...), '\n')
			}
		}
		r.say(slow, script+"close")
		want = append(want, "bye\n"...)
		r.wait("the output to wait", func() bool { return budget.Used() > uint64(len(want)-8_000_000) })
		got, err := io.ReadAll(slow)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v; want the %d that were committed, in order", len(got), err, len(want))
		}
		r.wait("nothing to be counted", func() bool { return budget.Used() == 0 })
	})
}

// Output of all sizes, copied or not, leaves whole and in order, however slowly the peer takes it.
func TestOutputOfAllSizes(t *testing.T) {
	budget := memory.NewBudget(1 << 30)
	onBoth(t, func(c *Config) { c.Outputs, c.WriteTimeout = budget, 20*time.Second }, func(t *testing.T, r *rig) {
		for seed := range uint64(3) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			sizes := []int{1, 100, directBody - 1, directBody, pieceSize, keepOutput, 300 << 10}
			var commands, want bytes.Buffer
			for want.Len() < 16<<20 { // more than the kernel takes
				n := sizes[rnd.IntN(len(sizes))] + rnd.IntN(100)
				switch rnd.IntN(3) {
				case 0:
					line := strings.Repeat("y", n)
					commands.WriteString("echo " + line + "\n")
					want.WriteString(line + "\n")
				case 1:
					fmt.Fprintf(&commands, "big %d\n", n)
					want.Write(make([]byte, n))
				default:
					fmt.Fprintf(&commands, "body %d\n", n)
					want.WriteString("head\n")
					want.Write(pattern(n))
				}
			}
			c := r.dial()
			go func() { c.Write(commands.Bytes()) }() // the peer may not read meanwhile
			r.wait("output that waits", func() bool { return budget.Used() > 1<<20 })
			got := make([]byte, want.Len())
			for at := 0; at < len(got); {
				n, err := c.Read(got[at:min(len(got), at+1+rnd.IntN(256<<10))])
				if err != nil {
					t.Fatalf("seed %d: got %d bytes of %d (%v)", seed, at, len(got), err)
				}
				if !bytes.Equal(got[at:at+n], want.Bytes()[at:at+n]) {
					t.Fatalf("seed %d: bytes from %d on are others", seed, at)
				}
				at += n
			}
			c.Close()
		}
		r.wait("the budget", func() bool { return budget.Used() == 0 })
	})
}

func TestLittleIsReadWhileBodiesTakeTooMuch(t *testing.T) {
	budget := memory.NewBudget(1)
	budget.Add(2)
	onBoth(t, func(c *Config) { c.Bodies = budget }, func(t *testing.T, r *rig) {
		c := r.dial()
		r.say(c, "echo first")
		r.hear(c, "first")
		r.say(c, strings.Repeat("x", 60_000))
		r.say(c, "echo last")
		r.hear(c, "last")
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, note := range r.notes {
			var n int
			if _, err := fmt.Sscanf(note, "received %d", &n); err == nil && n > tightRead {
				t.Errorf("%d bytes were read at once; want at most %d", n, tightRead)
			}
		}
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

// Bodies that are written at once, those that the kernel takes in part only, and what is
// committed before and behind them arrive in order.
func TestBodiesWithoutACopy(t *testing.T) {
	onBoth(t, func(c *Config) { c.WriteTimeout = 10 * time.Second }, func(t *testing.T, r *rig) {
		for _, sizes := range [][]int{{directBody - 1}, {directBody}, {1 << 20}, {8 << 20}, {directBody, 100, directBody}, {8 << 20, 8 << 20, 1, 1 << 20}} {
			c := r.dial()
			script, want := "", []byte(nil)
			for i, n := range sizes {
				script += fmt.Sprintf("body %d\necho behind %d\n", n, i)
				want = append(append(want, "head\n"...), pattern(n)...)
				want = fmt.Appendf(want, "behind %d\n", i)
			}
			r.say(c, script+"close")
			got, err := io.ReadAll(c)
			if want = append(want, "bye\n"...); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("bodies of %v: got %d bytes of %d (%v), or others", sizes, len(got), len(want), err)
			}
			c.Close()
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

// What waits in the backlog for room is served before the listener closes.
func TestDrainTakesWhatWaitsForRoom(t *testing.T) {
	onBoth(t, func(c *Config) { c.MaxConnections = 1 }, func(t *testing.T, r *rig) {
		if _, ok := r.loop.(*NetLoop); ok {
			t.Skip("this transport closes what is over the limit at once")
		}
		busy := r.dial()
		r.say(busy, "busy")
		r.hear(busy, "busy")
		c := r.dial()
		r.say(c, "echo late")
		r.wait("the listeners' pause", func() bool { return r.counter(observe.ConnectionsOverLimit) > 0 })
		if n := r.shared.Open(); n != 1 {
			t.Errorf("got %d connections open; want 1", n)
		}
		r.loop.Post(r.loop.Drain)
		r.hear(c, "late")
	})
}

// brokenConn is a stream with a bug.
type brokenConn struct{ net.Conn }

func (brokenConn) Read([]byte) (int, error) { panic("as asked") }

func TestPanicOfAReaderCostsOneConnection(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		l, ok := r.loop.(*NetLoop)
		if !ok {
			t.Skip("this transport has no readers")
		}
		near, far := net.Pipe()
		l.Post(func() {
			l.adopt(brokenConn{near}, call.Addr{Host: "127.0.0.1", Port: 1}, call.Addr{Host: "127.0.0.1", Port: 2})
		})
		if err := r.ends(far); err != nil {
			t.Errorf("got %v; want the end of the stream", err)
		}
		r.wait("the count", func() bool { return r.counter(observe.LoopPanics) == 1 })
		c := r.dial()
		r.say(c, "echo others")
		r.hear(c, "others")
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

// A client that never rests for long does not keep others out for ever.
func TestBriskClientsMakeRoomInTheEnd(t *testing.T) {
	onBoth(t, func(c *Config) { c.MaxConnections = 1 }, func(t *testing.T, r *rig) {
		if _, ok := r.loop.(*NetLoop); ok {
			t.Skip("this transport closes idle ones whatever their age")
		}
		brisk := r.dial()
		ended := make(chan int)
		go func() {
			answer := make([]byte, len("again\n"))
			for n := 0; ; n++ {
				if _, err := io.WriteString(brisk, "echo again\n"); err != nil {
					ended <- n
					return
				}
				if _, err := io.ReadFull(brisk, answer); err != nil {
					ended <- n
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		r.wait("the first", func() bool { return r.shared.Open() == 1 })
		c := r.dial()
		r.say(c, "echo in")
		r.hear(c, "in")
		if n := <-ended; n < 20 {
			t.Errorf("the first one was closed after %d answers; want some more", n)
		}
	})
}

// A loop whose own connections are all busy gets the place of another one's idle connection.
func TestIdleConnectionsOfOtherLoopsMakeRoom(t *testing.T) {
	var config *Config
	onBoth(t, func(c *Config) { c.MaxConnections, config = 2, c }, func(t *testing.T, r *rig) {
		if _, ok := r.loop.(*NetLoop); ok {
			t.Skip("this transport has one loop's connections in view only")
		}
		config.Counters = append(config.Counters, r.registry.Shard())
		bell, err := link.NewBell()
		if err != nil {
			t.Fatal(err)
		}
		other, err := NewLoop(1, bell, config, r.shared, quietEngine{})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd := int(f.Fd())
		syscall.SetNonblock(fd, true)
		other.Post(func() {
			if err := other.Listen(fd, call.Addr{}, true, false); err != nil {
				t.Error(err)
			}
		})
		other.Start()
		defer func() {
			other.Stop()
			<-other.Done()
		}()

		idle, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		idle.SetDeadline(time.Now().Add(20 * time.Second))
		r.say(idle, "echo idle")
		r.hear(idle, "idle")
		busy := r.dial()
		r.say(busy, "busy")
		r.hear(busy, "busy")
		c := r.dial()
		r.say(c, "echo in")
		r.hear(c, "in")
		if n := r.shared.Open(); n != 2 {
			t.Errorf("got %d connections open; want 2", n)
		}
		if err := r.ends(idle); err != nil {
			t.Errorf("got %v from a connection that made room; want a clean end", err)
		}
		r.say(busy, "echo still")
		r.hear(busy, "still")
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
