package dispatch

import (
	"container/heap"
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

// simulation plays clients, one poll loop with the real dispatch, and one asyncio loop, in
// time of its own.
type simulation struct {
	*bench
	worker   *fakeWorker
	clients  events // on the core's side
	timers   events // of the asyncio loop
	patience time.Duration
	calls    []*simulated

	good, refused, left int
	took, urgent        []time.Duration
}

func simulate(t *testing.T, patience time.Duration) *simulation {
	s := &simulation{patience: patience}
	s.bench = newBench(t, func(settings *Settings) {
		settings.QueueCalls, settings.QueueBytes = DefaultQueueCalls, DefaultQueueBytes
		settings.PriorityPaths = []string{"/health"}
	})
	s.worker = s.bench.worker(1)
	return s
}

func (s *simulation) at(t int64, do func()) { heap.Push(&s.clients, event{t, do}) }

// arrive plans a call; its client leaves when its patience ends.
func (s *simulation) arrive(at int64, k kind, closed bool) {
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
		if started != nil && s.patience > 0 && k.path == "" {
			s.at(at+int64(s.patience), func() {
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

// core lets the poll loop see everything up to this moment.
func (s *simulation) core() {
	s.shard.Wake(s.now)
	for len(s.clients) > 0 && s.clients[0].at <= s.now {
		heap.Pop(&s.clients).(event).do()
	}
	for s.shard.Turn() {
	}
	s.shard.Publish()
}

// burn holds the asyncio loop; the core looks every millisecond.
func (s *simulation) burn(d time.Duration) {
	for d > 0 {
		step := min(d, time.Millisecond)
		s.now += int64(step)
		d -= step
		s.core()
	}
}

func (s *simulation) finish(id uint64) {
	s.worker.write(link.Response, link.FlagLast|link.FlagDone, id, responsePayload(200, 0, "ok"))
	s.core()
}

// run turns the asyncio loop until a time.
func (s *simulation) run(d time.Duration) {
	end := s.now + int64(d)
	for s.now < end {
		s.core()
		for len(s.timers) > 0 && s.timers[0].at <= s.now {
			heap.Pop(&s.timers).(event).do()
		}
		if s.drain() {
			continue
		}
		next := s.now + int64(time.Millisecond)
		if len(s.timers) > 0 {
			next = min(next, s.timers[0].at)
		}
		if len(s.clients) > 0 {
			next = min(next, s.clients[0].at)
		}
		s.now = max(next, s.now+1000)
	}
	s.turn() // checks the counters
}

// drain is a turn of the worker's: up to 64 claims or 2 ms.
func (s *simulation) drain() (any bool) {
	begun := s.now
	for n := 0; n < 64 && s.now-begun < int64(2*time.Millisecond); n++ {
		r, ok, err := s.worker.end.Inbox.Next()
		if err != nil {
			s.t.Fatal(err)
		}
		if !ok {
			break
		}
		any = true
		if r.Type != link.CallHTTP {
			s.worker.end.Inbox.Release()
			continue
		}
		c := s.calls[callNumber(r.Payload)]
		s.worker.end.Inbox.Release()
		slot, generation, _ := s.worker.end.Slots.Of(r.Call)
		if !s.worker.end.Slots.Claim(slot, generation, s.now) {
			continue
		}
		id := r.Call
		s.burn(c.early)
		if c.wait == 0 && c.late == 0 {
			s.finish(id)
			continue
		}
		heap.Push(&s.timers, event{s.now + int64(c.wait), func() {
			s.burn(c.late)
			s.finish(id)
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

// TestGoodput offers more than the app can do, to clients who leave after a second.
func TestGoodput(t *testing.T) {
	const seconds = 10
	for _, c := range []struct {
		name     string
		rate     float64
		kinds    []kind
		capacity float64 // calls a second
		share    float64 // of it that is answered in time
	}{
		{"early 0.75x", 150, []kind{earlyKind}, 150, 0.99},
		{"early 2x", 400, []kind{earlyKind}, 200, 0.9},
		{"early 4x", 800, []kind{earlyKind}, 200, 0.9},
		{"early 10x", 2000, []kind{earlyKind}, 200, 0.9},
		{"late 0.75x", 150, []kind{lateKind}, 150, 0.99},
		{"late 2x", 400, []kind{lateKind}, 198, 0.9},
		{"late 4x", 800, []kind{lateKind}, 198, 0.9},
		{"late 10x", 2000, []kind{lateKind}, 198, 0.9},
		// What is claimed together wakes together: a loop that must stay prompt cannot be busy
		// all the time. (Without a window the share is below a tenth.)
		{"after 20 ms, 2x", 400, []kind{lateAfter(20 * time.Millisecond)}, 198, 0.55},
		{"after 100 ms, 2x", 400, []kind{lateAfter(100 * time.Millisecond)}, 198, 0.45},
		{"after 100 ms, 10x", 2000, []kind{lateAfter(100 * time.Millisecond)}, 198, 0.45},
		{"after 500 ms, 2x", 400, []kind{lateAfter(500 * time.Millisecond)}, 198, 0.4},
		{"late and light", 800, []kind{lateKind, lightKind}, 395, 0.9},
		{"late and waiting", 800, []kind{lateKind, waiting(300 * time.Millisecond)}, 395, 0.6},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := simulate(t, time.Second)
			s.offer(0, seconds*time.Second, c.rate, c.kinds...)
			for i := range seconds * 5 {
				s.arrive(s.now+int64(i)*int64(200*time.Millisecond), urgentOne, false)
			}
			s.run(seconds * time.Second)
			share := float64(s.good) / seconds / c.capacity
			light := median(s.urgent)
			t.Logf("%.0f/s of %.0f (%.0f %%), median %v, left %d, refused %d; priority path: median %v; window %.0f",
				float64(s.good)/seconds, c.capacity, 100*share, median(s.took), s.left, s.refused, light, s.shard.ports[0].window)
			if share < c.share {
				t.Errorf("goodput: %.2f of capacity; want %.2f or more", share, c.share)
			}
			if light > 50*time.Millisecond {
				t.Errorf("a call of a priority path took %v (median); want 50ms or less", light)
			}
			if s.refused > 0 {
				t.Errorf("%d calls were refused; want none within a second", s.refused)
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
			s := simulate(t, 0)
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
	s := simulate(t, 0)
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
		s := simulate(t, time.Second)
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
