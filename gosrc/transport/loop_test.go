package transport

import (
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// busyEngine always finds something to do.
type busyEngine struct{ quietEngine }

func (busyEngine) Turn() bool                     { return true }
func (busyEngine) Arm(bool) (time.Duration, bool) { return 0, false }

// bareLoops makes both kinds of loop, without a listener.
func bareLoops(t *testing.T, engine Engine) map[string]runner {
	t.Helper()
	loops := map[string]runner{}
	for _, kind := range []string{"poll loop", "goroutines"} {
		config := &Config{
			Counters: []*observe.Shard{observe.NewRegistry().Shard()},
			Log:      func(level, key, message string) { t.Errorf("%s: %s", level, message) },
		}
		shared := new(Shared)
		bell, err := link.NewBell()
		if err != nil {
			t.Fatal(err)
		}
		if kind == "goroutines" {
			loops[kind], err = NewNetLoop(0, bell, config, shared, engine)
		} else {
			loops[kind], err = NewLoop(0, bell, config, shared, engine)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return loops
}

func closes(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("waited five seconds for %s", what)
	}
}

// Workers that always have something to say do not keep the loop from everything else.
func TestBusyWorkersDoNotOwnTheLoop(t *testing.T) {
	for kind, l := range bareLoops(t, busyEngine{}) {
		t.Run(kind, func(t *testing.T) {
			l.Start()
			for range 3 {
				read := make(chan struct{})
				l.Post(func() { close(read) })
				closes(t, "the message to be read", read)
			}
			l.Stop()
			closes(t, "the end", l.Done())
		})
	}
}

// Once the loop has ended its bell's number may be that of somebody else's file.
func TestPostAfterTheEnd(t *testing.T) {
	for kind, l := range bareLoops(t, quietEngine{}) {
		t.Run(kind, func(t *testing.T) {
			l.Start()
			l.Stop()
			closes(t, "the end", l.Done())
			var others []int
			for range 8 {
				bell, err := link.NewBell()
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(bell)
				others = append(others, bell)
			}
			l.Post(func() { t.Error("a message was read after the end") })
			l.Stop()
			for _, bell := range others {
				if n, _ := unix.Read(bell, make([]byte, 8)); n > 0 {
					t.Error("another descriptor was written to")
				}
			}
		})
	}
}

// A connection whose answer is still on its way is not idle yet: making room must not cut it.
func TestMakingRoomCutsNoAnswer(t *testing.T) {
	onBoth(t, func(c *Config) { c.MaxConnections, c.WriteTimeout = 1, 10*time.Second }, func(t *testing.T, r *rig) {
		const size = 16 << 20 // more than the kernel takes
		c := r.dial()
		r.say(c, fmt.Sprintf("big %d", size))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		r.dial()
		r.wait("the limit", func() bool { return r.counter(observe.ConnectionsOverLimit)+r.counter(observe.ConnectionsShed) > 0 })
		if n, err := io.CopyN(io.Discard, c, size-1); err != nil {
			t.Errorf("got %d bytes (%v); want %d", n, err, size-1)
		}
		r.say(c, "echo still here")
		r.hear(c, "still here")
	})
}

// A listener that the kernel will not watch now, for want of memory, is watched later: not forgotten.
func TestAListenerThatCannotBeWatched(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, r *rig) {
		l, ok := r.loop.(*Loop)
		if !ok {
			t.Skip("this transport watches no listener")
		}
		done := make(chan struct{})
		l.Post(func() {
			defer close(done)
			l.pauseListeners()
			kept := l.listeners[0].fd
			l.listeners[0].fd = -1
			l.resumeListeners()
			l.listeners[0].fd = kept
		})
		closes(t, "the listener to be paused", done)
		if !r.noted("log epoll") {
			t.Error("nothing is logged")
		}
		c := r.dial()
		r.say(c, "echo here")
		r.hear(c, "here")
	})
}

// A client that reads slowly is not one that is stuck: long before the kernel takes more output it takes what the
// kernel has.
func TestSlowReaderIsNotCut(t *testing.T) {
	onBoth(t, func(c *Config) { c.WriteTimeout = 800 * time.Millisecond }, func(t *testing.T, r *rig) {
		if _, ok := r.loop.(*Loop); !ok {
			t.Skip("this transport knows only what the kernel takes")
		}
		c := r.dial()
		c.SetReadBuffer(64 << 10)
		r.say(c, "big 30000000")
		got, buffer := 0, make([]byte, 8<<10)
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			n, err := c.Read(buffer)
			if got += n; err != nil {
				t.Fatalf("cut after %d bytes: %v", got, err)
			}
		}
		r.wait("the deadline of one that reads no more", func() bool { return r.counter(observe.TimedOutWrite) == 1 })
	})
}
