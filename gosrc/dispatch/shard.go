package dispatch

import (
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/observe"
)

const (
	recordsATurn = 1024     // records taken from one outbox in one turn
	outboxChunk  = 64 << 10 // their space is given back whenever it is this much
)

// Shard is the dispatch of one poll loop. Its loop calls, in this order and again and
// again: Wake, Start and the methods of calls (as input comes), Turn, Publish, Arm.
type Shard struct {
	dispatch *Dispatch
	index    int
	counters *observe.Shard
	now      int64
	nextTick int64 // 0: none is due
	lastTick int64 // 0: nothing has waited since
	nextPace int64 // when a call may be offered that the pace alone holds back, 0: none is held back
	clock    int64 // of waiting calls: stands still while no worker could take them

	ports    []*port
	rotate   int // where the search for a worker starts, so that ties rotate
	queue    queue
	urgent   queue // calls of priority paths
	again    queue // calls that run for the second time, because their worker ended
	patience patience
	pool     []*Call

	head   []byte // private copy of the head of an answer
	fields []call.Field
	spare  [][]byte // buffers for messages that wait for room in an inbox
	line   AccessLine
	told   call.Answer // of the record in hand

	squeezed  []*Call    // their reading pauses until the budget for bodies has room
	freed     bool       // a thread of a pool since the last turn
	tight     bool       // the workers know that the budget for output is overdrawn
	deadlines *deadlines // nil until a call has one
	refusals  map[observe.Counter]*refusalLog
	tellAt    int64   // when the log is to know of more refusals; 0: there were none
	timers    *timers // the app's; nil in all shards but the first

	noWorkerSince int64 // since when no worker could take calls, 0: one can
}

var _ call.Dispatcher = (*Shard)(nil)

// Start implements call.Dispatcher.
func (s *Shard) Start(r *call.Request, a call.Answer) call.Call {
	d := s.dispatch
	c := s.newCall()
	c.answer = a
	c.arrived, c.queuedAt = s.now, s.clock
	c.start = appendStart(c.start[:0], r, r.Body)
	c.bodyLast, c.forwarded = r.BodyLast, r.BodyLast
	if len(c.start) > maxStart && len(r.Body) > 0 {
		// A large head and a large body that came at once: the body follows in its own records.
		c.start = appendStart(c.start[:0], r, nil)
		c.charge(len(r.Body))
		c.keep(r.Body)
		c.forwarded = false
	} else if !r.BodyLast {
		c.outstanding = len(r.Body)
		c.charge(len(r.Body))
	}
	c.flags = startFlags(r, c.forwarded)
	if d.timed {
		s.setDeadlines(c, r)
	}
	c.webSocket = r.WebSocket
	c.received = int64(len(r.Body))
	s.counters.Add(observe.CallsArrived, 1)
	s.counters.Add(observe.CallsInFlight, 1)
	inFlight := d.inFlight.Add(1)
	class := d.classOf(r)
	switch {
	case class == readiness || class == liveness:
		return s.answerCheck(c, class)
	case len(c.start) > maxStart || len(r.Client.Host) > maxHost:
		return s.refuse(c, observe.RefusedHeadTooLarge, 431, "The request's head is too large.", 0)
	case class == priority:
		return s.startPriority(c)
	case d.settings.Concurrency > 0 && inFlight+d.abandoned.Load() > int64(d.settings.Concurrency):
		return s.refuse(c, observe.RefusedLimit, 503, "The server is at its limit of concurrent calls.", d.settings.RetryAfter)
	}
	if left := d.Quarantine.Holds(r.Method, r.Path, s.now); left > 0 {
		return s.refuse(c, observe.RefusedQuarantine, 503,
			"Requests like this one have ended the app's workers, and are not tried again for a while.", 1+int(left/time.Second))
	}
	if s.queue.live == 0 {
		if p := s.choose((*port).ready); p != nil && p.offer(c) {
			return c
		}
	}
	if d.over.Load() {
		return s.refuse(c, observe.RefusedStopping, 503, stopping, d.settings.RetryAfter)
	}
	if d.full() {
		return s.refuse(c, observe.RefusedQueueFull, 503, "The server is overloaded.", d.settings.RetryAfter)
	}
	s.enqueue(c)
	return c
}

// full says whether the queue has reached its bounds.
func (d *Dispatch) full() bool {
	return d.waiting.Load() >= int64(d.settings.QueueCalls) || d.bytes.Load() >= int64(d.settings.QueueBytes)
}

// countBytes takes note that n bytes more of a call wait.
func (c *Call) countBytes(n int) {
	d := c.shard.dispatch
	d.bytes.Add(int64(n))
	if c.priority {
		d.urgentBytes.Add(int64(n))
	}
}

// refuse answers a call in the core; the app never hears of it.
func (s *Shard) refuse(c *Call, reason observe.Counter, status int, text string, retryAfter int) call.Call {
	s.noteRefusals(reason, text, 1)
	return s.turnAway(c, reason, status, text, retryAfter)
}

// turnAway is refuse, of which the log was told.
func (s *Shard) turnAway(c *Call, reason observe.Counter, status int, text string, retryAfter int) call.Call {
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
	if c.socket != nil {
		c.dropSocket()
	}
	c.charge(-c.charged)
	s.relax(c)
	c.dropBody()
	start := c.start[:0]
	if cap(start) > keepStart {
		start = nil
	}
	if c.blocked {
		// A port still lists it; unblock skips it and the garbage collector takes it.
		c.port = nil
		return
	}
	*c = Call{shard: s, start: start}
	if len(s.pool) < 4096 {
		s.pool = append(s.pool, c)
	}
}

func (s *Shard) enqueue(c *Call) {
	s.queueOf(c).push(c)
	s.dispatch.waiting.Add(1)
	c.countBytes(c.size())
	s.counters.Add(observe.CallsQueued, 1)
	s.counters.Add(observe.CallsWaiting, 1)
}

func (s *Shard) unqueue(c *Call) {
	s.queueOf(c).remove(c)
	s.dispatch.waiting.Add(-1)
	c.countBytes(-c.size())
	s.counters.Dec(observe.CallsWaiting)
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
	n := s.queue.live + s.urgent.live + s.again.live
	for _, p := range s.ports {
		n += len(p.calls) - len(p.free)
	}
	return n
}

func (s *Shard) queueOf(c *Call) *queue {
	switch {
	case c.again:
		return &s.again
	case c.priority:
		return &s.urgent
	}
	return &s.queue
}

// requeue puts a call back that a worker had, and that has waited since it arrived unless it was begun.
func (s *Shard) requeue(c *Call) {
	if c.state != offered {
		c.queuedAt = s.clock
	}
	s.move(c, queued)
	s.putBack(c)
}

// putBack returns a call to the head of the queue.
func (s *Shard) putBack(c *Call) {
	s.queueOf(c).pushFront(c)
	s.dispatch.waiting.Add(1)
	c.countBytes(c.size())
	s.counters.Add(observe.CallsWaiting, 1)
}
