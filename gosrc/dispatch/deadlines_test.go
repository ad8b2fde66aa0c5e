package dispatch

import (
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/memory"
	"spvn/gosrc/observe"
)

// pass lets time go by, in the loop's steps.
func (b *bench) pass(d time.Duration) {
	for end := b.now + int64(d); b.now < end; {
		b.now = min(b.now+int64(5*time.Millisecond), end)
		b.shard.Wake(b.now)
		b.turn()
	}
}

func TestDeadlines(t *testing.T) {
	with := func(whole, first time.Duration) func(*Settings) {
		return func(s *Settings) { s.RequestTimeout, s.FirstByteTimeout = whole, first }
	}
	t.Run("in the queue", func(t *testing.T) {
		b := newBench(t, with(time.Second, 0))
		a := b.start(request())
		b.pass(980 * time.Millisecond)
		a.said(t)
		b.pass(40 * time.Millisecond)
		a.said(t, "fail 504")
		b.want(observe.Failed504, 1)
		b.want(observe.TimedOutRequest, 1)
		b.want(observe.CallsWaiting, 0)
	})
	t.Run("offered to a worker that is stuck", func(t *testing.T) {
		b := newBench(t, with(time.Second, 0))
		w := b.worker(1)
		a := b.start(request())
		b.pass(1020 * time.Millisecond)
		a.said(t, "fail 504")
		if begun := w.read(t, 10, b.now); len(begun) != 0 {
			t.Errorf("the worker began %d calls afterwards; want none", len(begun))
		}
		b.want(observe.CallsHeld, 0)
	})
	t.Run("claimed by a worker that is stuck", func(t *testing.T) {
		b := newBench(t, with(time.Second, 0))
		w := b.worker(1)
		a := b.start(request())
		b.turn()
		begun := w.read(t, 10, b.now)
		b.pass(1020 * time.Millisecond)
		a.said(t, "fail 504")
		b.want(observe.CallsHeld, 1)
		w.read(t, 10, b.now)
		if got := strings.Join(w.log, ";"); got != "disconnect" {
			t.Errorf("the worker was told %q; want disconnect", got)
		}
		// The late answer goes nowhere, and its end frees the slot.
		w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 0, "late"))
		b.turn()
		a.said(t, "fail 504")
		b.want(observe.CallsHeld, 0)
	})
	t.Run("first byte", func(t *testing.T) {
		b := newBench(t, with(0, time.Second))
		w := b.worker(1)
		slow, stream := b.start(request()), b.start(request())
		b.turn()
		begun := w.read(t, 10, b.now)
		w.write(link.Response, 0, begun[1].id, responsePayload(200, 0, "a"))
		b.pass(3 * time.Second)
		slow.said(t, "fail 504")
		stream.said(t, `respond 200 0 fields "a" false`)
		b.want(observe.TimedOutFirstByte, 1)
	})
	t.Run("a stream is cut", func(t *testing.T) {
		b := newBench(t, with(2*time.Second, time.Second))
		w := b.worker(1)
		a := b.start(request())
		b.turn()
		begun := w.read(t, 10, b.now)
		w.write(link.Response, 0, begun[0].id, responsePayload(200, 0, "a"))
		b.pass(1980 * time.Millisecond)
		a.said(t, `respond 200 0 fields "a" false`)
		b.pass(40 * time.Millisecond)
		a.said(t, `respond 200 0 fields "a" false`, "fail 504")
		b.want(observe.FailedCut, 1)
	})
	t.Run("a stream is cut when both deadlines are the same", func(t *testing.T) {
		b := newBench(t, with(time.Second, time.Second))
		w := b.worker(1)
		a := b.start(request())
		b.turn()
		begun := w.read(t, 10, b.now)
		w.write(link.Response, 0, begun[0].id, responsePayload(200, 0, "a"))
		b.pass(1020 * time.Millisecond)
		a.said(t, `respond 200 0 fields "a" false`, "fail 504")
		b.want(observe.TimedOutRequest, 1)
		b.want(observe.TimedOutFirstByte, 0)
	})
	t.Run("answered in time", func(t *testing.T) {
		b := newBench(t, with(time.Second, 0))
		w := b.worker(1)
		a := b.start(request())
		b.turn()
		begun := w.read(t, 10, b.now)
		w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 0, "a"))
		b.pass(2 * time.Second)
		a.said(t, `respond 200 0 fields "a" true`)
		if n := b.shard.deadlines.count; n != 0 {
			t.Errorf("%d deadlines are left; want none", n)
		}
	})
	t.Run("far away", func(t *testing.T) {
		b := newBench(t, with(25*time.Second, 0))
		w := b.worker(1)
		a := b.start(request())
		b.turn()
		w.read(t, 10, b.now)
		b.pass(24 * time.Second)
		a.said(t)
		b.pass(1020 * time.Millisecond)
		a.said(t, "fail 504")
	})
}

func TestDeadlineHeaderOnlyShortens(t *testing.T) {
	for _, c := range []struct {
		value string
		want  time.Duration
	}{
		{"0.5", 500 * time.Millisecond}, {"250ms", 250 * time.Millisecond}, {"1", time.Second},
		{"30", 2 * time.Second}, {"soon", 2 * time.Second}, {"-1", 2 * time.Second}, {"", 2 * time.Second},
		{"1e9", 2 * time.Second}, {"0", 0},
	} {
		b := newBench(t, func(s *Settings) { s.RequestTimeout, s.DeadlineField = 2*time.Second, "x-timeout" })
		r := request()
		r.Fields = append(r.Fields, call.Field{Name: []byte("x-timeout"), Value: []byte(c.value)})
		a := b.start(r)
		b.pass(c.want - 20*time.Millisecond)
		if len(a.log) > 0 && c.want > 0 {
			t.Errorf("%q: it was over before %v", c.value, c.want)
		}
		b.pass(60 * time.Millisecond)
		if len(a.log) != 1 || a.log[0] != "fail 504" {
			t.Errorf("%q: got %q after %v; want 504", c.value, a.log, c.want)
		}
	}
}

func TestBudgetForBodies(t *testing.T) {
	budget := memory.NewBudget(100 << 10)
	b := newBench(t, func(s *Settings) { s.Bodies = budget })
	w := b.worker(1)
	post := func() *fakeAnswer {
		r := request()
		r.BodyLast = false
		return b.start(r)
	}
	first, second, third := post(), post(), post()
	b.turn()
	begun := w.read(t, 10, b.now)
	first.call.Body(make([]byte, 60<<10), false)
	if room := second.call.Room(); room != link.BodyWindow {
		t.Errorf("below the budget: got room for %d bytes; want %d", room, link.BodyWindow)
	}
	second.call.Body(make([]byte, 60<<10), false)
	if room := third.call.Room(); room != tightBody {
		t.Errorf("over the budget: got room for %d bytes; want %d", room, tightBody)
	}
	third.call.Body(make([]byte, tightBody), false)
	for name, a := range map[string]*fakeAnswer{"first": first, "third": third} {
		if room := a.call.Room(); room > 0 {
			t.Errorf("%s: got room for %d bytes; want none", name, room)
		}
	}
	b.turn()
	b.want(observe.MemoryReadsPaused, 2)
	// The app receives what the second one sent: the others read on by themselves.
	w.read(t, 20, b.now)
	for range 2 {
		w.write(link.BodyCredit, 0, begun[1].id, []byte{0, 120, 0, 0, 0, 0, 0, 0}) // 30 KiB
	}
	b.pass(50 * time.Millisecond)
	third.said(t, "resume")
	for _, c := range begun {
		w.write(link.CallDone, 0, c.id, nil)
	}
	b.turn()
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are counted after the last call; want none", used)
	}
}

func TestCallsThatEndDoNotWaitForTheBudget(t *testing.T) {
	budget := memory.NewBudget(1000)
	b := newBench(t, func(s *Settings) { s.Bodies = budget })
	b.worker(1)
	budget.Add(2000) // somebody else holds it, for as long as this test
	post := func() *fakeAnswer {
		r := request()
		r.BodyLast = false
		a := b.start(r)
		a.call.Body(make([]byte, tightBody), false)
		a.call.Room()
		return a
	}
	stays := post()
	for range 100 {
		a, other := post(), post()
		a.call.Leave()
		other.call.Leave()
		b.turn()
	}
	if n := len(b.shard.squeezed); n != 1 {
		t.Errorf("%d calls wait for the budget; want the one that is left", n)
	}
	stays.call.Body(make([]byte, 10), false) // it is still held
	budget.Add(-2000)
	stays.call.Leave()
	b.turn()
	if n := len(b.shard.squeezed); n != 0 || budget.Used() != 0 {
		t.Errorf("%d calls wait and %d bytes are counted at the end; want none", n, budget.Used())
	}
}

func TestBudgetForOutput(t *testing.T) {
	budget := memory.NewBudget(1000)
	b := newBench(t, func(s *Settings) { s.Outputs = budget })
	w := b.worker(1)
	a := b.start(request())
	b.turn()
	begun := w.read(t, 10, b.now)
	w.write(link.Response, 0, begun[0].id, responsePayload(200, 0, ""))
	for range 2 {
		w.write(link.ResponseBody, 0, begun[0].id, bodyPayload(string(make([]byte, 20<<10))))
	}
	b.turn()
	budget.Add(2000) // somebody reads slowly
	a.call.Sent(20 << 10)
	b.turn()
	w.read(t, 10, b.now)
	if len(w.log) != 0 {
		t.Errorf("the worker was told %v while the budget is overdrawn; want nothing", w.log)
	}
	a.call.Sent(20 << 10) // all has left: this client keeps up
	b.turn()
	w.read(t, 10, b.now)
	if got := strings.Join(w.log, ";"); got != "window 40960" {
		t.Errorf("the worker was told %q; want its whole window", got)
	}
	b.want(observe.MemoryWindowsWithheld, 1)
}

// heldAnswer is that of a client who takes nothing.
type heldAnswer struct {
	fakeAnswer
	budget *memory.Budget
	tight  func() bool
	most   int // bytes that came while the worker was not told that memory is short
}

func (a *heldAnswer) RespondBody(body []byte, last bool) {
	a.budget.Add(len(body))
	if !a.tight() {
		a.most += len(body)
	}
}

// In one turn a worker can hand over far more than a budget: the turn tells it in between.
func TestTheWorkerHearsOfScarcityWithinATurn(t *testing.T) {
	const budget = 256 << 10
	b := newBench(t, func(s *Settings) { s.Outputs = memory.NewBudget(budget) })
	w := b.worker(1)
	a := &heldAnswer{budget: b.dispatch.settings.Outputs, tight: w.Link.Tight}
	a.call = b.shard.Start(request(), a)
	b.turn()
	begun := w.read(t, 10, b.now)
	w.write(link.Response, 0, begun[0].id, responsePayload(200, 0, ""))
	for range 24 {
		w.write(link.ResponseBody, 0, begun[0].id, bodyPayload(string(make([]byte, 20<<10))))
	}
	b.turn()
	if a.most > budget+outboxChunk {
		t.Errorf("%d bytes came before the worker was told; want at most %d", a.most, budget+outboxChunk)
	}
}
