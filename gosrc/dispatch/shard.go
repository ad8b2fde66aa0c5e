package dispatch

import (
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

const (
	tick         = 10 * time.Millisecond // how often waiting calls and late workers are looked at
	watchDrain   = time.Millisecond      // how long a loop sleeps while a worker drains
	recordsATurn = 1024                  // records taken from one outbox in one turn
)

// Shard is the dispatch of one poll loop. Its loop calls, in this order and again and
// again: Wake, Start and the methods of calls (as input comes), Turn, Publish, Arm.
type Shard struct {
	dispatch *Dispatch
	index    int
	counters *observe.Shard
	now      int64
	nextTick int64

	ports  []*port
	rotate int // where the search for a worker starts, so that ties rotate
	queue  queue
	pool   []*Call

	head   []byte // private copy of the head of an answer
	fields []call.Field
	line   AccessLine

	noWorkerSince int64 // since when no worker could take calls, 0: one can
}

var _ call.Dispatcher = (*Shard)(nil)

// Start implements call.Dispatcher.
func (s *Shard) Start(r *call.Request, a call.Answer) call.Call {
	d := s.dispatch
	c := s.newCall()
	c.answer = a
	c.start = appendStart(c.start[:0], r)
	c.flags = startFlags(r)
	c.bodyLast, c.forwarded = r.BodyLast, r.BodyLast
	if !r.BodyLast {
		c.outstanding = len(r.Body)
	}
	s.counters.Add(observe.CallsArrived, 1)
	s.counters.Add(observe.CallsInFlight, 1)
	inFlight := d.inFlight.Add(1)
	switch {
	case len(c.start)+link.RecordHeaderSize > maxStart:
		return s.refuse(c, observe.RefusedHeadTooLarge, 431, "The request's head is too large.", 0)
	case d.settings.Concurrency > 0 && inFlight > int64(d.settings.Concurrency):
		return s.refuse(c, observe.RefusedLimit, 503, "The server is at its limit of concurrent calls.", d.settings.RetryAfter)
	}
	if s.queue.live == 0 {
		if p := s.choose(); p != nil && p.offer(c) {
			return c
		}
	}
	if d.waiting.Load() >= int64(d.settings.QueueCalls) || d.bytes.Load() >= int64(d.settings.QueueBytes) {
		return s.refuse(c, observe.RefusedQueueFull, 503, "The server is overloaded.", d.settings.RetryAfter)
	}
	s.enqueue(c)
	return c
}

// refuse answers a call in the core; the app never hears of it.
func (s *Shard) refuse(c *Call, reason observe.Counter, status int, text string, retryAfter int) call.Call {
	a := c.answer
	s.end(c, refused, reason)
	s.access(c, status)
	a.Fail(status, text, retryAfter)
	s.recycle(c)
	return nil
}

func (s *Shard) newCall() *Call {
	if n := len(s.pool); n > 0 {
		c := s.pool[n-1]
		s.pool = s.pool[:n-1]
		return c
	}
	return &Call{shard: s}
}

// recycle takes a call back that nobody refers to any more: no protocol, no queue, no slot.
func (s *Shard) recycle(c *Call) {
	start, body := c.start[:0], c.body[:0]
	if cap(start) > keepBody {
		start = nil
	}
	if cap(body) > keepBody {
		body = nil
	}
	if c.blocked {
		// A port still lists it; unblock skips it and the garbage collector takes it.
		c.port = nil
		return
	}
	*c = Call{shard: s, start: start, body: body, arrived: s.now}
	if len(s.pool) < 4096 {
		s.pool = append(s.pool, c)
	}
}

func (s *Shard) enqueue(c *Call) {
	c.arrived = s.now
	s.queue.push(c)
	s.dispatch.waiting.Add(1)
	s.dispatch.bytes.Add(int64(c.size()))
	s.counters.Add(observe.CallsQueued, 1)
	s.counters.Add(observe.CallsWaiting, 1)
}

func (s *Shard) unqueue(c *Call) {
	s.queue.remove(c)
	s.dispatch.waiting.Add(-1)
	s.dispatch.bytes.Add(-int64(c.size()))
	s.counters.Dec(observe.CallsWaiting)
}

func (s *Shard) hold(p *port, n int64) {
	p.worker.held.Add(n)
	s.counters.Add(observe.CallsHeld, uint64(n)) // a gauge: adding -1 lowers it
}

// choose is the worker that will begin a call soonest, nil when none can take one.
func (s *Shard) choose() *port {
	var best *port
	n := len(s.ports)
	for i := range n {
		p := s.ports[(s.rotate+i)%n]
		if !p.ready() {
			continue
		}
		if best == nil || p.unclaimed < best.unclaimed ||
			p.unclaimed == best.unclaimed && p.worker.Held() < best.worker.Held() {
			best = p
		}
	}
	if n > 1 {
		s.rotate = (s.rotate + 1) % n
	}
	return best
}

// offerWaiting gives waiting calls to workers that can take them.
func (s *Shard) offerWaiting() {
	for s.queue.live > 0 {
		p := s.choose()
		if p == nil {
			return
		}
		c := s.queue.oldest()
		s.unqueue(c)
		if !p.offer(c) {
			s.putBack(c)
			if p.dead || p.full {
				continue // the others may have room
			}
			return
		}
	}
}

// Wake says that the loop is awake, at this time, so that nobody rings in vain.
func (s *Shard) Wake(now int64) {
	s.now = now
	for _, p := range s.ports {
		p.outbox.Disarm()
	}
}

// Turn takes what the workers wrote and offers what waits. It reports whether the workers
// had written anything.
func (s *Shard) Turn() (progress bool) {
	for _, p := range s.ports {
		if s.take(p) {
			progress = true
		}
		p.settle()
		if p.full && p.inbox.Unread() < uint64(inboxRoomy) {
			p.full = false
		}
		p.unblock()
	}
	s.offerWaiting()
	if s.nextTick != 0 && s.now >= s.nextTick {
		s.nextTick = 0
		s.tick()
	}
	return progress
}

// tick looks at calls that have waited too long.
func (s *Shard) tick() {
	d := s.dispatch
	usable := false
	for _, p := range s.ports {
		if !p.dead && p.worker.State() == WorkerReady {
			usable = true
		}
	}
	switch {
	case usable:
		s.noWorkerSince = 0
	case s.noWorkerSince == 0:
		s.noWorkerSince = s.now
	}
	for {
		c := s.queue.oldest()
		if c == nil {
			return
		}
		waited := time.Duration(s.now - c.arrived)
		switch {
		case !usable && d.settings.WorkerTimeout > 0 && time.Duration(s.now-s.noWorkerSince) > d.settings.WorkerTimeout:
			s.unqueue(c)
			s.refuse(c, observe.RefusedNoWorker, 503, "No worker is ready.", d.settings.RetryAfter)
		case usable && d.settings.QueueTimeout > 0 && waited > d.settings.QueueTimeout:
			s.unqueue(c)
			s.refuse(c, observe.RefusedQueueTimeout, 503, "The server is overloaded.", d.settings.RetryAfter)
		default:
			return
		}
	}
}

// Publish makes what was written for the workers visible and rings those that sleep.
func (s *Shard) Publish() {
	for _, p := range s.ports {
		if p.inbox.Pending() && p.inbox.Publish() {
			p.rungTurn, p.rung = p.worker.Link.Turns(), true
			link.Ring(p.worker.Link.Bell)
			s.counters.Add(observe.LinkBells, 1)
		}
	}
}

// Arm prepares for sleep. ok is false when a worker has written something after all. The
// sleep must not last longer than limit; 0 is no limit.
func (s *Shard) Arm() (limit time.Duration, ok bool) {
	for i, p := range s.ports {
		if !p.dead && !p.outbox.Arm() {
			for _, q := range s.ports[:i] {
				q.outbox.Disarm()
			}
			return 0, false
		}
		// A worker rings at the end of its drain only. Until then an answer that it has
		// finished must not wait behind a neighbour that blocks the loop.
		if p.rung {
			if p.worker.Link.Turns() != p.rungTurn && !p.worker.Link.Draining() {
				p.rung = false
			} else {
				limit = watchDrain
			}
		}
	}
	waiting := s.queue.live > 0
	for _, p := range s.ports {
		waiting = waiting || p.unclaimed > 0
	}
	if waiting {
		if s.nextTick == 0 {
			s.nextTick = s.now + int64(tick)
		}
		if left := max(time.Duration(s.nextTick-s.now), time.Millisecond); limit == 0 || left < limit {
			limit = left
		}
	}
	return limit, true
}

// Attach adds a worker. It takes over one use of the worker's link.
func (s *Shard) Attach(w *Worker) { s.ports = append(s.ports, newPort(s, w)) }

// Detach removes a worker that is gone: what it wrote before its end is still taken, then
// its unclaimed calls go back into the queue and its claimed ones fail. It gives up this
// shard's use of the link.
func (s *Shard) Detach(w *Worker) {
	for i, p := range s.ports {
		if p.worker != w {
			continue
		}
		for !p.dead && s.take(p) {
		}
		p.settle()
		p.dead = true
		s.ports = append(s.ports[:i:i], s.ports[i+1:]...)
		for slot := range p.calls {
			if c := p.calls[slot]; c != nil {
				s.orphan(p, c)
			}
		}
		w.Link.Release()
		return
	}
}

// orphan decides about a call whose worker is gone.
func (s *Shard) orphan(p *port, c *Call) {
	p.calls[c.slot] = nil
	s.hold(p, -1)
	switch {
	case c.state.ended():
		s.recycle(c)
	case c.state == offered:
		s.requeue(c)
	default:
		s.fail(c, observe.Failed502, 502, "The worker that ran this call ended.")
		s.recycle(c)
	}
}

// fail ends a call that a worker had begun, in the core's words. The slot stays taken.
func (s *Shard) fail(c *Call, reason observe.Counter, status int, text string) {
	a := c.answer
	if c.state == answering {
		reason = observe.FailedCut
	} else {
		s.access(c, status)
	}
	s.end(c, failed, reason)
	a.Fail(status, text, 0)
}

// access tells the access log of an answer.
func (s *Shard) access(c *Call, status int) {
	f := s.dispatch.settings.Access
	if f == nil {
		return
	}
	l := &s.line
	readStart(c.start, l)
	l.Status = status
	f(s.index, l)
}

// InFlight is how many calls of this shard wait or run, ended ones that a worker still
// holds included.
func (s *Shard) InFlight() int {
	n := s.queue.live
	for _, p := range s.ports {
		n += len(p.calls) - len(p.free)
	}
	return n
}

// DrainWorker takes back what w has not begun and tells it that no new call will come.
// Its state must be WorkerDraining already.
func (s *Shard) DrainWorker(w *Worker) {
	p := s.portOf(w)
	if p == nil || p.dead {
		return
	}
	p.settle()
	for i := len(p.offers) - 1; i >= p.offersAt; i-- { // the last first: they go to the queue's front
		o := p.offers[i]
		if p.calls[o.slot] == o.call && p.generations[o.slot] == o.generation && p.slots.TakeBack(o.slot, o.generation) {
			p.takenBack(o.call)
			s.requeue(o.call)
		}
	}
	p.notify(link.Drain)
}

// StopWorker tells w, which holds no call any more, to end.
func (s *Shard) StopWorker(w *Worker) {
	if p := s.portOf(w); p != nil && !p.dead {
		p.notify(link.Stop)
	}
}

func (s *Shard) portOf(w *Worker) *port {
	for _, p := range s.ports {
		if p.worker == w {
			return p
		}
	}
	return nil
}

// requeue puts a call back to where it was before its offer.
func (s *Shard) requeue(c *Call) {
	c.port = nil
	s.move(c, queued)
	s.putBack(c)
}

// putBack returns a call to the head of the queue.
func (s *Shard) putBack(c *Call) {
	s.queue.pushFront(c)
	s.dispatch.waiting.Add(1)
	s.dispatch.bytes.Add(int64(c.size()))
	s.counters.Add(observe.CallsWaiting, 1)
}
