package dispatch

import (
	"container/heap"
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
)

// kind is what a call does in the simulated app: it burns before its first await, waits,
// and burns again.
type kind struct {
	early, wait, late time.Duration
	path              string
}

var (
	earlyKind = kind{early: 5 * time.Millisecond}
	lateKind  = kind{early: 50 * time.Microsecond, wait: time.Millisecond, late: 5 * time.Millisecond}
	lightKind = kind{early: 100 * time.Microsecond}
	urgentOne = kind{early: 100 * time.Microsecond, path: "/health"}
)

func lateAfter(wait time.Duration) kind {
	return kind{early: 50 * time.Microsecond, wait: wait, late: 5 * time.Millisecond}
}

func waiting(d time.Duration) kind { return kind{early: 50 * time.Microsecond, wait: d} }

// simulated is a call from its client's side; it is the answer to it, too.
type simulated struct {
	fakeAnswer
	*simulation
	kind
	arrived int64
	over    bool
	closed  bool // a closed loop's: it comes again
}

func (c *simulated) Respond(status int, _ []call.Field, _ []byte, _, _ bool) {
	c.over = true
	took := time.Duration(c.now - c.arrived)
	if c.path != "" {
		c.urgent = append(c.urgent, took)
	} else {
		c.good++
		c.took = append(c.took, took)
	}
	if c.closed {
		c.arrive(c.now+int64(100*time.Microsecond), c.kind, true)
	}
}

func (c *simulated) Fail(status int, text string, retryAfter int) {
	c.over = true
	c.refused++
}

type event struct {
	at int64
	do func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

// simulation plays clients, one poll loop with the real dispatch, and the asyncio loops of
// its workers, each with a core of its own, in time of its own.
type simulation struct {
	*bench
	workers  []*asyncio
	clients  events // on the core's side
	patience time.Duration
	calls    []*simulated
	jitter   time.Duration // how long a loop waits for a core when others have it, on average
	random   *rand.Rand
	coreAt   int64
	pauses   pauses // the core's

	good, refused, left int
	took, urgent        []time.Duration
}

// asyncio is a worker's loop. It runs as a coroutine that yields when it is to go on, at
// the latest; idle is whether a bell wakes it before.
type asyncio struct {
	*fakeWorker
	*simulation
	timers events
	over   []uint64

	resume func() (int64, bool)
	until  int64
	idle   bool
	yield  func(int64) bool

	stopped bool
	busy    time.Duration // that it burned
	paused  time.Duration
	pauses  pauses
}

func simulate(t *testing.T, workers int, patience time.Duration) *simulation {
	s := &simulation{patience: patience, random: rand.New(rand.NewPCG(2, 3))}
	s.bench = newBench(t, func(settings *Settings) {
		settings.QueueCalls, settings.QueueBytes = DefaultQueueCalls, DefaultQueueBytes
		settings.PriorityPaths = []string{"/health"}
	})
	for i := range workers {
		w := &asyncio{fakeWorker: s.worker(1 + i), simulation: s}
		var stop func()
		w.resume, stop = iter.Pull(w.loop)
		t.Cleanup(stop)
		s.workers = append(s.workers, w)
	}
	return s
}

func (s *simulation) at(t int64, do func()) { heap.Push(&s.clients, event{t, do}) }

// arrive plans a call; its client leaves when its patience ends.
func (s *simulation) arrive(at int64, k kind, closed bool) {
	patience := s.patience
	s.at(at, func() {
		c := &simulated{simulation: s, kind: k, arrived: at, closed: closed}
		r := request()
		if k.path != "" {
			r.Path = []byte(k.path)
		}
		// The app reads what to do from the head, as a real one does from the path.
		r.Fields = append(r.Fields, call.Field{Name: []byte("x-call"), Value: []byte{byte(len(s.calls)), byte(len(s.calls) >> 8), byte(len(s.calls) >> 16)}})
		s.calls = append(s.calls, c)
		started := s.shard.Start(r, c)
		if started != nil && patience > 0 && k.path == "" {
			s.at(at+int64(patience), func() {
				if !c.over {
					c.over = true
					s.left++
					started.Leave()
				}
			})
		}
	})
}

// offer plans an open loop of calls, at random moments.
func (s *simulation) offer(from, until time.Duration, rate float64, kinds ...kind) {
	random := rand.New(rand.NewPCG(1, uint64(rate)))
	for t := float64(from); t < float64(until); t += random.ExpFloat64() / rate * 1e9 {
		s.arrive(s.now+int64(t), kinds[random.IntN(len(kinds))], false)
	}
}

// pauses are a loop's on a machine that others use, too: ten a second.
type pauses struct{ next int64 }

func (p *pauses) take(s *simulation) (length int64) {
	if s.jitter == 0 || s.now < p.next {
		return 0
	}
	if p.next > 0 {
		length = int64(s.random.ExpFloat64() * float64(s.jitter))
	}
	p.next = s.now + length + int64(s.random.ExpFloat64()*float64(100*time.Millisecond))
	return length
}

// core lets the poll loop see everything up to this moment.
func (s *simulation) core() {
	if s.now < s.coreAt {
		return
	}
	if pause := s.pauses.take(s); pause > 0 {
		s.coreAt = s.now + pause
		return
	}
	s.shard.Wake(s.now)
	for len(s.clients) > 0 && s.clients[0].at <= s.now {
		heap.Pop(&s.clients).(event).do()
	}
	for s.shard.Turn() {
	}
	s.shard.Publish()
}

// run plays what happens until a time: whichever loop is due goes on, and the core looks
// every millisecond.
func (s *simulation) run(d time.Duration) {
	end := s.now + int64(d)
	for s.now < end {
		next := s.now + int64(time.Millisecond)
		if len(s.clients) > 0 {
			next = min(next, max(s.clients[0].at, s.coreAt))
		}
		for _, w := range s.workers {
			if w.idle && !w.end.Inbox.Empty() {
				w.idle = false
				w.until = min(w.until, s.now+w.pauses.take(s))
			}
			next = min(next, w.until)
		}
		s.now = max(next, s.now)
		s.core()
		for _, w := range s.workers {
			if w.until <= s.now {
				w.idle = false
				w.until, _ = w.resume()
			}
		}
	}
	s.turn() // checks the counters
}

// burn holds the loop.
func (w *asyncio) burn(d time.Duration) {
	if d > 0 && !w.stopped {
		w.busy += d
		w.stopped = !w.yield(w.now + int64(d))
		if pause := w.pauses.take(w.simulation); pause > 0 && !w.stopped {
			w.stopped = !w.yield(w.now + pause)
			w.paused += time.Duration(pause)
		}
	}
}

func (w *asyncio) finish(id uint64) {
	w.write(link.Response, link.FlagLast, id, responsePayload(200, 0, "ok"))
	w.over = append(w.over, id)
	w.core()
}

// done says which calls are over, at the loop's next turn, as the worker does.
func (w *asyncio) done() {
	for _, id := range w.over {
		w.write(link.CallDone, 0, id, nil)
	}
	w.over = w.over[:0]
}

func (w *asyncio) loop(yield func(int64) bool) {
	w.yield = yield
	for !w.stopped {
		w.done()
		w.core()
		for due := w.now; len(w.timers) > 0 && w.timers[0].at <= due; { // as asyncio and libuv do
			heap.Pop(&w.timers).(event).do()
		}
		if w.drain() {
			continue
		}
		next := w.now + int64(time.Hour)
		if len(w.timers) > 0 {
			next = max(w.timers[0].at, w.now+1000)
		}
		w.idle = true
		w.stopped = w.stopped || !yield(next)
	}
}

// drain is a turn of the worker's: up to 64 claims or 2 ms.
func (w *asyncio) drain() (any bool) {
	begun := w.now
	if !w.end.Inbox.Empty() {
		binary.LittleEndian.PutUint64(w.Link.Memory()[link.HeaderTurns:], w.Link.Turns()+1)
	}
	for n := 0; n < 64 && w.now-begun < int64(2*time.Millisecond); n++ {
		r, ok, err := w.end.Inbox.Next()
		if err != nil {
			w.t.Fatal(err)
		}
		if !ok {
			break
		}
		any = true
		if r.Type != link.CallHTTP {
			w.end.Inbox.Release()
			continue
		}
		c := w.calls[callNumber(r.Payload)]
		w.end.Inbox.Release()
		slot, generation, _ := w.end.Slots.Of(r.Call)
		if !w.end.Slots.Claim(slot, generation, w.now) {
			continue
		}
		id := r.Call
		w.burn(c.early)
		if c.wait == 0 && c.late == 0 {
			w.finish(id)
			continue
		}
		heap.Push(&w.timers, event{w.now + int64(c.wait), func() {
			w.burn(c.late)
			w.finish(id)
		}})
	}
	return any
}

// callNumber reads the field x-call, which is the last of a start without a body.
func callNumber(start []byte) int {
	b := start[link.CallFixedSize:]
	for i := range b {
		if string(b[i:min(i+6, len(b))]) == "x-call" {
			b = b[i+6:]
			return int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		}
	}
	panic("no x-call")
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// each plays a load to clients who leave after a second, beside a call of a priority path now
// and then, and returns the share of the capacity that was answered in time.
func (s *simulation) each(seconds int, rate, capacity float64, kinds ...kind) (share float64) {
	s.offer(0, time.Duration(seconds)*time.Second, rate, kinds...)
	for i := range seconds * 5 {
		s.arrive(s.now+int64(i)*int64(200*time.Millisecond), urgentOne, false)
	}
	s.run(time.Duration(seconds) * time.Second)
	share = float64(s.good) / float64(seconds) / (capacity * float64(len(s.workers)))
	light := median(s.urgent)
	s.t.Logf("%.0f %%, median %v, left %d, refused %d; priority path: median %v; window %.0f",
		100*share, median(s.took), s.left, s.refused, light, s.shard.ports[0].window)
	if light > 50*time.Millisecond {
		s.t.Errorf("a call of a priority path took %v (median); want 50ms or less", light)
	}
	if s.refused > 0 {
		s.t.Errorf("%d calls were refused; want none within a second", s.refused)
	}
	return share
}

// recover wants light calls to be fast from a second after the load's end on.
func (s *simulation) recover() {
	s.run(time.Second)
	s.took = nil
	s.offer(0, time.Second, 50, lightKind)
	s.run(1100 * time.Millisecond)
	slices.Sort(s.took)
	if n := len(s.took); n == 0 || s.took[n-1] > 50*time.Millisecond {
		s.t.Errorf("%d light calls were answered a second after the load's end, the slowest last of %v; want each within 50ms", n, s.took)
	}
}

// TestGoodput offers more than the app can do, to clients who leave after a second.
func TestGoodput(t *testing.T) {
	after := func(ms time.Duration) kind { return lateAfter(ms * time.Millisecond) }
	for _, c := range []struct {
		name     string
		workers  int
		rate     float64 // calls a second
		capacity float64 // of one worker
		share    float64 // of it that is answered in time
		kinds    []kind
	}{
		{"early 0.75x", 1, 150, 150, 0.99, []kind{earlyKind}},
		{"early 2x", 1, 400, 200, 0.95, []kind{earlyKind}},
		{"early 4x", 1, 800, 200, 0.95, []kind{earlyKind}},
		{"early 10x", 1, 2000, 200, 0.95, []kind{earlyKind}},
		{"late 0.75x", 1, 150, 150, 0.99, []kind{lateKind}},
		{"late 2x", 1, 400, 198, 0.95, []kind{lateKind}},
		{"late 4x", 1, 800, 198, 0.95, []kind{lateKind}},
		{"late 10x", 1, 2000, 198, 0.95, []kind{lateKind}},
		{"after 20 ms, 2x", 1, 400, 198, 0.95, []kind{after(20)}},
		{"after 20 ms, 10x", 1, 2000, 198, 0.95, []kind{after(20)}},
		{"after 100 ms, 2x", 1, 400, 198, 0.93, []kind{after(100)}},
		{"after 100 ms, 4x", 1, 800, 198, 0.93, []kind{after(100)}},
		{"after 100 ms, 10x", 1, 2000, 198, 0.92, []kind{after(100)}},
		// Here it is the first seconds that cost: what was let in before the first of it burned.
		{"after 300 ms, 2x", 1, 400, 198, 0.86, []kind{after(300)}},
		{"after 500 ms, 0.75x", 1, 150, 150, 0.95, []kind{after(500)}},
		{"after 500 ms, 1.1x", 1, 220, 198, 0.76, []kind{after(500)}},
		{"after 500 ms, 2x", 1, 400, 198, 0.84, []kind{after(500)}},
		{"after 20 and 200 ms", 1, 800, 198, 0.93, []kind{after(20), after(200)}},
		{"early and after 100 ms", 1, 800, 198, 0.90, []kind{earlyKind, after(100)}},
		{"early and after 500 ms", 1, 800, 198, 0.87, []kind{earlyKind, after(500)}},
		{"early, late and light", 1, 800, 296, 0.95, []kind{earlyKind, lateKind, lightKind}},
		{"1 ms after 50 ms", 1, 2000, 1000, 0.93, []kind{{wait: 50 * time.Millisecond, late: time.Millisecond}}},
		{"light", 1, 20000, 10000, 0.95, []kind{lightKind}},
		{"late and light", 1, 800, 395, 0.93, []kind{lateKind, lightKind}},
		{"late and waiting", 1, 800, 395, 0.90, []kind{lateKind, waiting(300 * time.Millisecond)}},
		{"after 100 ms, and waiting", 1, 800, 395, 0.81, []kind{after(100), waiting(300 * time.Millisecond)}},
		{"two workers, early", 2, 800, 200, 0.95, []kind{earlyKind}},
		{"two workers, late 2x", 2, 800, 198, 0.95, []kind{lateKind}},
		{"two workers, late 10x", 2, 4000, 198, 0.95, []kind{lateKind}},
		{"two workers, after 100 ms", 2, 800, 198, 0.93, []kind{after(100)}},
		{"two workers, early and after 100 ms", 2, 800, 198, 0.90, []kind{earlyKind, after(100)}},
		{"four workers, early", 4, 1600, 200, 0.95, []kind{earlyKind}},
		{"four workers, late 2x", 4, 1600, 198, 0.95, []kind{lateKind}},
		{"four workers, late 10x", 4, 8000, 198, 0.95, []kind{lateKind}},
		{"four workers, after 100 ms", 4, 1600, 198, 0.93, []kind{after(100)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := simulate(t, c.workers, time.Second)
			seconds := 10
			if c.rate > 5000 {
				seconds = 3 // as much happens in them
			}
			share := s.each(seconds, c.rate, c.capacity, c.kinds...)
			if share < c.share {
				t.Errorf("goodput: %.2f of capacity; want %.2f or more", share, c.share)
			}
			s.recover()
		})
	}
}

// TestBusyMachine has other processes take the cores now and then, from the core and from the workers.
func TestBusyMachine(t *testing.T) {
	for _, c := range []struct {
		name     string
		workers  int
		capacity float64
		share    float64 // of what is left of the capacity
		kinds    []kind
	}{
		{"early", 1, 200, 0.93, []kind{earlyKind}},
		{"late", 1, 198, 0.93, []kind{lateKind}},
		{"after 20 ms", 1, 198, 0.93, []kind{lateAfter(20 * time.Millisecond)}},
		{"after 100 ms", 1, 198, 0.83, []kind{lateAfter(100 * time.Millisecond)}},
		{"early and after 100 ms", 1, 198, 0.85, []kind{earlyKind, lateAfter(100 * time.Millisecond)}},
		{"late and waiting", 1, 395, 0.85, []kind{lateKind, waiting(300 * time.Millisecond)}},
		{"two workers, late", 2, 198, 0.93, []kind{lateKind}},
		{"two workers, after 100 ms", 2, 198, 0.83, []kind{lateAfter(100 * time.Millisecond)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := simulate(t, c.workers, time.Second)
			s.jitter = 10 * time.Millisecond
			share := s.each(10, 2*c.capacity*float64(c.workers), c.capacity, c.kinds...)
			paused := time.Duration(0)
			for _, w := range s.workers {
				paused += w.paused
			}
			share /= 1 - paused.Seconds()/10/float64(c.workers)
			if share < c.share {
				t.Errorf("goodput: %.2f of capacity; want %.2f or more", share, c.share)
			}
			t.Logf("%.0f %% of what is left", 100*share)
		})
	}
}

// TestOtherLoad has the app burn its time elsewhere from one moment on, while the load goes on.
func TestOtherLoad(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after kind
	}{
		{"later", lateKind, lateAfter(100 * time.Millisecond)},
		{"sooner", lateAfter(500 * time.Millisecond), lateKind},
		{"at once", lateAfter(100 * time.Millisecond), earlyKind},
		{"not at once", earlyKind, lateAfter(100 * time.Millisecond)},
		{"less", lateKind, kind{wait: time.Millisecond, late: time.Millisecond}},
		{"more", kind{wait: time.Millisecond, late: time.Millisecond}, lateKind},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := simulate(t, 1, time.Second)
			capacity := func(k kind) float64 { return float64(time.Second) / float64(k.early+k.late) }
			s.offer(0, 4*time.Second, 2*capacity(c.before), c.before)
			s.offer(4*time.Second, 12*time.Second, 2*capacity(c.after), c.after)
			s.run(7 * time.Second)
			s.good = 0
			s.run(5 * time.Second)
			share := float64(s.good) / 5 / capacity(c.after)
			t.Logf("from three seconds after the change on: %.0f %%", 100*share)
			if share < 0.9 {
				t.Errorf("goodput: %.2f of capacity; want 0.9 or more", share)
			}
		})
	}
}

// TestPatient has clients who wait as long as it takes: none of them is refused.
func TestPatient(t *testing.T) {
	for _, c := range []struct {
		name    string
		clients int
		kind    kind
		length  time.Duration
	}{
		{"64, early", 64, earlyKind, 15 * time.Second},
		{"512, early", 512, earlyKind, 15 * time.Second},
		{"64, late", 64, lateKind, 15 * time.Second},
		{"512, late", 512, lateKind, 15 * time.Second},
		{"5000, light", 5000, lightKind, 2 * time.Second},
		{"10000 that wait", 10000, waiting(time.Second), 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := simulate(t, 1, 0)
			for range c.clients {
				s.arrive(s.now, c.kind, true)
			}
			s.run(c.length)
			slices.Sort(s.took)
			t.Logf("%d answered, %d refused; median %v, slowest %v", s.good, s.refused, median(s.took), s.took[len(s.took)-1])
			if s.refused > 0 {
				t.Errorf("%d calls were refused; want none", s.refused)
			}
			if s.good < c.clients {
				t.Errorf("%d calls were answered of %d clients; want each at least once", s.good, c.clients)
			}
		})
	}
}

// TestLongPollsDoNotShutTheWindow has one late moment beside a thousand calls that wait.
func TestLongPollsDoNotShutTheWindow(t *testing.T) {
	s := simulate(t, 1, 0)
	for range 1000 {
		s.arrive(s.now, waiting(time.Minute), false)
	}
	s.run(2 * time.Second)
	s.arrive(s.now, kind{early: 200 * time.Millisecond}, false)
	s.run(300 * time.Millisecond)
	s.took = nil
	s.offer(0, 2*time.Second, 50, lightKind)
	s.run(3 * time.Second)
	slices.Sort(s.took)
	if n := len(s.took); n < 90 || s.took[n-1] > 100*time.Millisecond {
		t.Errorf("%d light calls were answered, the slowest after %v; want all of about 100 at once", n, s.took[n-1])
	}
}

// TestWaitingAfterOverload has an app that burned its time wait for others from then on.
func TestWaitingAfterOverload(t *testing.T) {
	for _, before := range []kind{lateKind, lateAfter(100 * time.Millisecond)} {
		s := simulate(t, 1, time.Second)
		s.offer(0, 3*time.Second, 2000, before)
		s.run(4500 * time.Millisecond)
		s.patience, s.good, s.refused, s.took = 0, 0, 0, nil
		const clients = 2000
		for range clients {
			s.arrive(s.now, waiting(time.Second), true)
		}
		s.run(12 * time.Second) // longer than the queue's timeout
		slices.Sort(s.took)
		if s.refused > 0 || s.good < 5*clients {
			t.Errorf("burning %v after %v before: %d calls of %d clients were answered, %d refused; want none refused", before.early+before.late, before.wait, s.good, clients, s.refused)
		}
		t.Logf("%d answered, median %v, slowest %v", s.good, median(s.took), s.took[len(s.took)-1])
	}
}

// TestLongPollsAfterOverload has clients who wait for news ask an app that burned its time
// until a moment ago: a loop that has nothing to do refuses none of them.
func TestLongPollsAfterOverload(t *testing.T) {
	for _, before := range []kind{earlyKind, lateKind, lateAfter(20 * time.Millisecond), lateAfter(100 * time.Millisecond)} {
		for _, pause := range []time.Duration{0, 200 * time.Millisecond} {
			s := simulate(t, 1, time.Second)
			s.offer(0, 2*time.Second, 5000, before)
			s.run(2*time.Second + pause)
			s.patience, s.refused = 0, 0
			const clients = 2000
			for range clients {
				s.arrive(s.now, waiting(time.Minute), false)
			}
			s.run(12 * time.Second) // longer than the queue's timeout
			if held := s.shard.ports[0].held; s.refused > 0 || held != clients {
				t.Errorf("burning %v after %v, %v before: %d calls of %d are held, %d refused; want all of them held",
					before.early+before.late, before.wait, pause, held, clients, s.refused)
			}
		}
	}
}
