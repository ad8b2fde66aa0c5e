package dispatch

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// LostCall is a call that a worker had begun when it ended.
type LostCall struct {
	Method, Path string
	Age          time.Duration
	Rerun        bool // it runs again elsewhere
	Again        bool // it ran for the second time
}

// Attach adds a worker. It takes over one use of the worker's link.
func (s *Shard) Attach(w *Worker) { s.ports = append(s.ports, newPort(s, w)) }

// Detach removes a worker that is gone: what it wrote before its end is still taken, then
// its unclaimed calls go back into the queue, and those that it had begun are run again
// or fail. It gives up this shard's use of the link.
func (s *Shard) Detach(w *Worker) (lost []LostCall) {
	for i, p := range s.ports {
		if p.worker != w {
			continue
		}
		// A forked process that outlived it may go on writing: no more than fits is the worker's own.
		for n := 0; n <= link.OutboxSize/link.RecordHeaderSize/recordsATurn && s.take(p); n++ {
		}
		p.settle()
		p.dead = true
		p.recovered()
		s.ports = append(s.ports[:i:i], s.ports[i+1:]...)
		p.takeBackAll()
		s.timers.lost(p)
		for _, other := range s.ports {
			other.rounds = rounds{}
		}
		for _, c := range p.inOrder() {
			if !c.state.ended() {
				lost = append(lost, s.describe(c))
			} else {
				w.beside.Add(1)
			}
			rerun := s.orphan(p, c)
			if rerun {
				lost[len(lost)-1].Rerun = true
			}
		}
		w.Link.Release()
		if s.dispatch.over.Load() {
			s.RefuseWaiting()
		}
		return lost
	}
	return nil
}

// inOrder is the calls that have a slot, in the order in which they were offered. Each of those that
// run again goes to the queue's head: the one that was begun last, which is the likeliest to have
// ended the worker, runs first.
func (p *port) inOrder() []*Call {
	calls := make([]*Call, 0, p.held)
	for _, c := range p.calls {
		if c != nil {
			calls = append(calls, c)
		}
	}
	slices.SortStableFunc(calls, func(a, b *Call) int { return cmp.Compare(a.offered, b.offered) })
	return calls
}

func (s *Shard) describe(c *Call) LostCall {
	l := &s.line
	readStart(c.start, l)
	return LostCall{Method: string(l.Method), Path: string(l.Path), Age: time.Duration(s.now - c.offered), Again: c.again}
}

// orphan decides about a call whose worker is gone after it began it. One that is offered still has a
// slot that was overwritten, and may have been begun.
func (s *Shard) orphan(p *port, c *Call) (rerun bool) {
	p.forget(c)
	switch {
	case c.state.ended():
		s.recycle(c)
	case s.dispatch.settings.RetrySafe && c.state < answering && !c.spoke && !c.again && !c.fed &&
		!p.worker.noRetry.Load() && safe(c.start):
		c.again = true
		c.startOver()
		s.requeue(c)
		return true
	default:
		s.fail(c, observe.Failed502, 502, "The worker that ran this request ended before it had answered.")
		s.recycle(c)
	}
	return false
}

// startOver forgets what the worker that ended was told, had received and had no room for.
func (c *Call) startOver() {
	c.forwarded, c.outstanding = c.flags&link.FlagLast != 0, 0
	if !c.forwarded {
		c.outstanding = int(binary.LittleEndian.Uint32(c.start[link.CallBodyLength:]))
	}
	c.charge(c.outstanding + len(c.body) - c.charged) // what the app had received is due to it again
	c.told, c.dismissed, c.blocked = false, false, false
}

// safe says whether a call may be run twice: its method is safe (RFC 9110 9.2.1).
func safe(start []byte) bool {
	n := int(binary.LittleEndian.Uint16(start[link.CallMethodLength:]))
	switch string(start[link.CallFixedSize : link.CallFixedSize+n]) {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// DrainWorker takes back what w has not begun and tells it that no new call will come.
// Its state must be WorkerDraining already.
func (s *Shard) DrainWorker(w *Worker) {
	if p := s.portOf(w); p != nil && !p.dead {
		p.settle()
		p.takeBackAll()
		s.timers.drained(p)
		if s.index == 0 {
			p.notify(link.Drain)
		}
		s.restartSockets(p)
		if s.dispatch.over.Load() {
			s.RefuseWaiting()
		}
	}
}

// DisconnectWorker tells the app of every call that w still runs that its client has left:
// the time to finish is over. Their connections are still there for what it says now.
func (s *Shard) DisconnectWorker(w *Worker) {
	p := s.portOf(w)
	if p == nil || p.dead {
		return
	}
	for _, c := range p.calls {
		if c != nil && !c.told {
			c.dismissed = true
			c.pump()
		}
	}
}

// CutWorker ends every call that w still runs. Their slots stay taken.
func (s *Shard) CutWorker(w *Worker) {
	p := s.portOf(w)
	if p == nil {
		return
	}
	for _, c := range p.calls {
		if c != nil && !c.state.ended() && c.state != offered {
			s.fail(c, observe.Failed504, 504, "The request took longer than its worker could wait.")
			p.abandon(c)
		}
	}
}

// StopWorker tells w to end: lifespan shutdown, then STOPPED.
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

// takeBackAll returns every call that the worker has not begun to the head of the queue.
func (p *port) takeBackAll() {
	for i := len(p.offers) - 1; i >= p.offersAt; i-- { // the last first, so that they keep their order
		o := p.offers[i]
		if p.current(&o) && p.slots.TakeBack(o.slot, o.generation) {
			p.unclaimed--
			p.forget(o.call)
			p.shard.requeue(o.call)
		}
	}
}

// forget ends the worker's hold on a call, which goes on elsewhere or is over.
func (p *port) forget(c *Call) {
	if c.counted && !c.old {
		p.over--
	}
	c.counted = false
	p.slots.Free(c.slot, c.generation)
	p.calls[c.slot] = nil
	p.generations[c.slot]++ // records that still name the old one are stale
	p.free = append(p.free, c.slot)
	if c.again {
		p.reruns--
	}
	if c.abandoned {
		c.abandoned = false
		p.shard.counters.Dec(observe.CallsAbandoned)
		p.shard.dispatch.abandoned.Add(-1)
	}
	if c.old {
		p.old--
		c.old = false
	}
	p.hold(-1)
	p.shard.freed = p.shard.freed || p.worker.pooled()
	c.port = nil
}

// release is forget for a call that is over.
func (p *port) release(c *Call) {
	if c.claimed {
		p.done(c)
	}
	p.forget(c)
	p.shard.recycle(c)
}

func (p *port) hold(n int) {
	p.held += n
	p.worker.held.Add(int64(n))
	p.shard.counters.Add(observe.CallsHeld, uint64(n)) // a gauge: adding -1 lowers it
}

// notify writes a control record of the worker itself. The last eighth of an inbox takes
// thousands of them, so only a worker that is stuck for good has no room.
func (p *port) notify(kind uint16) {
	if _, ok := p.write(0, kind, 0, 0, control); !ok {
		p.shard.counters.Inc(observe.LinkInboxFull)
	}
}
