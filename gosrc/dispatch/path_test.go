package dispatch

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

func to(method, path string) *call.Request {
	r := request()
	r.Method, r.Path = []byte(method), []byte(path)
	return r
}

func TestHealthChecks(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.HealthCheckPath, s.LivenessPath = "/ready", "/alive" })
	asked := uint64(0)
	check := func(when, ready, alive string) {
		t.Helper()
		for path, want := range map[string]string{"/ready": ready, "/alive": alive} {
			a := b.start(to("GET", path))
			asked++
			if a.call != nil {
				t.Fatalf("%s: %s became a call", when, path)
			}
			if got := strings.Join(a.log, "; "); got != want {
				t.Errorf("%s: %s was answered %q; want %q", when, path, got, want)
			}
		}
		b.turn()
	}
	const fine, alive = `respond 200 2 fields "ready\n" true`, `respond 200 2 fields "alive\n" true`
	check("no worker", `respond 503 2 fields "no worker is ready\n" true`, alive)
	w := b.worker(1)
	check("a worker", fine, alive)
	w.SetState(WorkerStarting)
	check("it starts", `respond 503 2 fields "no worker is ready\n" true`, alive)
	w.SetState(WorkerReady)

	b.start(to("GET", "/x")) // never begun
	for range 30 {
		b.now += int64(10 * time.Millisecond)
		b.shard.Wake(b.now)
		b.turn()
	}
	check("blocked for a moment", fine, alive)
	for range 100 {
		b.now += int64(10 * time.Millisecond)
		b.shard.Wake(b.now)
		b.turn()
	}
	const stalled = `respond 503 2 fields "all workers are stalled\n" true`
	check("blocked for more than a second", stalled, stalled)
	other := b.worker(2)
	check("another worker", fine, alive)
	_ = other
	b.dispatch.Announce()
	check("it will drain", `respond 503 2 fields "draining\n" true`, alive)
	b.want(observe.CallsHealthChecks, asked)
	b.want(observe.CallsAnswered, asked)

	if a := b.start(to("POST", "/ready")); a.call == nil {
		t.Error("a POST to the health path was answered by the core; want it to reach the app")
	}
}

func TestPriorityPathsGoFirstAndAreNotRefused(t *testing.T) {
	b := newBench(t, func(s *Settings) {
		s.PriorityPaths = []string{"/health"}
		s.Concurrency, s.QueueCalls = 100, 10
	})
	var normal []*fakeAnswer
	for range 12 {
		normal = append(normal, b.start(to("GET", "/x")))
	}
	if got := normal[11].log; len(got) != 1 || got[0] != "fail 503" {
		t.Fatalf("the call beyond the queue's bound was told %q; want 503", got)
	}
	first := b.start(to("GET", "/health"))
	if first.call == nil {
		t.Fatal("a call of a priority path was refused by a full queue")
	}
	w := b.worker(1)
	b.turn()
	begun := w.read(t, 100, b.now)
	if len(begun) == 0 || begun[0].id != b.shard.ports[0].slots.ID(first.call.(*Call).slot, first.call.(*Call).generation) {
		t.Error("the call of the priority path was not the first one offered")
	}

	p := b.shard.ports[0]
	p.window = leastWindow
	p.probing = false
	for range 5 {
		b.start(to("GET", "/x"))
	}
	urgent := b.start(to("GET", "/health")).call.(*Call)
	if urgent.state != offered {
		t.Errorf("with a window of %v that is taken it is %v; want offered", p.window, urgent.state)
	}
	b.turn()
	b.want(observe.CallsPriority, 2)
}

func TestPriorityPathsWaitAsLongAsTheyMust(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.PriorityPaths = []string{"/health"}; s.QueueTimeout = time.Second })
	w := b.worker(1)
	p := b.shard.ports[0]
	p.window = 0
	p.full = true // nothing can be offered, but the worker counts as ready
	urgent, normal := b.start(to("GET", "/health")), b.start(to("GET", "/x"))
	for range 300 {
		b.now += int64(10 * time.Millisecond)
		b.shard.Wake(b.now)
		p.full = true
		b.shard.nextTick = b.now
		b.shard.tick()
	}
	urgent.said(t)
	normal.said(t, "fail 503")
	_ = w
}

func TestRefusalsAreLoggedOnceInAWhile(t *testing.T) {
	var lines []string
	b := newBench(t, func(s *Settings) {
		s.Concurrency = 1
		s.Log = func(level, key, message string) { lines = append(lines, level+" "+key+" "+message) }
	})
	for range 1000 {
		b.start(request())
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "calls.refused_by.limit_concurrency") {
		t.Errorf("got %q for 999 refusals; want one line", lines)
	}
	if limit, _ := b.shard.Arm(false); limit == 0 || limit > refusalsLogged {
		t.Errorf("the loop sleeps for %v; want until the log is to know of the others", limit)
	}
	b.now += int64(refusalsLogged)
	b.shard.Wake(b.now)
	b.turn()
	if len(lines) != 2 || !strings.Contains(lines[1], "998 calls") {
		t.Errorf("got %q later, when nothing more is refused; want a line that counts the others", lines[1:])
	}
	b.start(request())
	b.start(request())
	b.shard.Close() // tells of what it refuses itself, too
	if len(lines) != 4 || !strings.Contains(lines[2]+lines[3], "2 calls were refused (calls.refused_by.limit_concurrency)") {
		t.Errorf("got %q at the end; want the last two, and the one that waited", lines[2:])
	}
	b.turn()
	b.want(observe.RefusedLimit, 1001)
}

// A health check finds out about a loop that is blocked although no call is in it.
func TestHealthChecksAskAnIdleWorker(t *testing.T) {
	b := newBench(t, func(s *Settings) {
		s.LivenessPath, s.StallWarning = "/live", time.Second
		s.Stalled, s.Recovered = func(*Worker, int, time.Duration) {}, func(*Worker, int, time.Duration) {}
	})
	w := b.worker(1)
	check := request()
	check.Path = []byte("/live")
	b.tick(5 * time.Second)
	b.start(check).said(t, `respond 200 2 fields "alive\n" true`) // and it is asked
	b.tick(2 * time.Second)
	b.start(check).said(t, `respond 503 2 fields "all workers are stalled\n" true`)
	moves := func() { binary.LittleEndian.PutUint64(w.Link.Memory()[link.HeaderTurns:], w.Link.Turns()+1) }
	moves()
	b.tick(300 * time.Millisecond)
	for range 3 {
		b.start(check).said(t, `respond 200 2 fields "alive\n" true`)
		moves()
		b.tick(2 * time.Second)
	}
	if limit, _ := b.shard.Arm(false); limit != 0 {
		t.Errorf("the loop sleeps for %v; want as long as nothing happens", limit)
	}
}
