package http1

import (
	"testing"
	"time"
)

const upload = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"

// paceSteps sends n bytes at each step of half a second, for as long as the connection is
// open, and plays the carrier's clock; it returns how long that took.
func paceSteps(r *rig, n, steps int, each func(step int)) time.Duration {
	start := r.wire.now
	for step := range steps {
		at := r.wire.now + int64(500*time.Millisecond)
		for !r.wire.closed && r.wire.deadline != 0 && r.wire.deadline <= at {
			r.wire.now = r.wire.deadline
			r.Timeout()
		}
		r.wire.now = at
		if r.wire.closed {
			break
		}
		if each != nil {
			each(step)
		}
		if n > 0 && !r.wire.paused {
			r.send(string(make([]byte, n)))
		}
	}
	return time.Duration(r.wire.now - start)
}

func TestMinBodyRate(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int // every half second
		ends  bool
	}{
		{"nothing", 0, true},
		{"a byte at a time", 1, true},
		{"too slow", 400, true},
		{"fast enough", 800, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(cfg *Config) { cfg.MinBodyRate = 1000 })
			r.send(upload)
			took := paceSteps(r, c.bytes, 20, nil)
			if r.wire.closed != c.ends || c.ends && took > 3*time.Second {
				t.Errorf("closed %v after %v; want %v, within 3 s", r.wire.closed, took, c.ends)
			}
			if c.ends {
				r.wantStatus(408)
			}
		})
	}
}

// While the app has no room the client cannot send, and is not to blame.
func TestMinBodyRateWaitsForTheApp(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.MinBodyRate = 1000 })
	r.app.room = 5000
	r.send(upload + string(make([]byte, 5000)))
	if !r.wire.paused {
		t.Fatal("reading goes on without room; want it paused")
	}
	paceSteps(r, 0, 20, nil)
	if r.wire.closed {
		t.Fatal("the connection was closed while its app had no room; want it open")
	}
	r.app.calls[0].room = 100000
	r.Resume()
	paceSteps(r, 1000, 4, nil)
	if r.wire.closed {
		t.Error("a client that goes on at once was closed; want it open")
	}
	if took := paceSteps(r, 0, 20, nil); !r.wire.closed || took > 5*time.Second {
		t.Errorf("a client that stopped: closed %v after %v; want 408 within 5 s", r.wire.closed, took)
	}
}

// What came together with the head counts, too.
func TestMinBodyRateCountsTheFirstBytes(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.MinBodyRate = 1000 })
	r.send(upload + string(make([]byte, 4500)))
	if took := paceSteps(r, 0, 20, nil); took < 4*time.Second || took > 5*time.Second {
		t.Errorf("4500 bytes and no more: closed after %v; want 408 after 4 s", took)
	}
}
