package dispatch

import (
	"time"

	"spvn/gosrc/observe"
)

// Admission: how many calls a worker may hold at a time. The one signal is the time from
// offer to claim. While the worker's loop keeps up it is microseconds, and it grows as
// soon as the loop is late, whether the app burns its time before its first await or
// after. An app that only waits never makes it grow, so ten thousand sleeping calls are
// no overload. (Facebook's "Fail at Scale" and Netflix's concurrency-limits have the idea.)
const (
	lateDelay   = 20 * time.Millisecond // more shrinks the window
	promptDelay = 10 * time.Millisecond // less lets it grow
	shrinkTo    = 0.8                   // of the calls held
	growBy      = 0.25
	firstWindow = 64
	leastWindow = 2 // one that runs and one that is there when it ends

	// standing is how old the queue's head must be for the newest calls to go first: their
	// clients are still there. Sooner would starve clients who would have waited.
	standing = 500 * time.Millisecond
)

// steer moves the window by the delays since the last tick.
func (p *port) steer() {
	if p.worker.pooled() {
		return
	}
	worst := p.worstDelay
	if o := p.oldestOffer(); o != nil {
		worst = max(worst, p.shard.now-o.call.offered)
	}
	switch held := float64(p.held); {
	case worst > int64(lateDelay):
		p.window = max(leastWindow, shrinkTo*min(p.window, held))
	case worst < int64(promptDelay) && held >= p.window-1 && p.claims > 0:
		p.window = min(p.window+max(1, growBy*p.window), 2*max(held, leastWindow))
	}
	p.worstDelay, p.claims = 0, 0
}

// ready says whether one more call can be offered here.
func (p *port) ready() bool {
	if p.worker.pooled() {
		return p.usable() && p.worker.hasThread()
	}
	return p.usable() && float64(p.held) < p.window && p.unclaimed < p.batch.limit()
}

// usable says whether a call that must not wait can be offered here.
func (p *port) usable() bool {
	return !p.dead && !p.full && p.stalledSince == 0 && p.worker.State() == WorkerReady &&
		(len(p.free) > 0 || len(p.calls) < p.slots.Count())
}

// choose is the worker that will begin a call soonest, nil when none can take one. can
// says which may: ready, or usable for a call that goes ahead of the window. Ties rotate.
func (s *Shard) choose(can func(*port) bool) *port {
	var best *port
	n := len(s.ports)
	for i := range n {
		p := s.ports[(s.rotate+i)%n]
		if can(p) && (best == nil || p.before(best)) {
			best = p
		}
	}
	if n > 1 {
		s.rotate = (s.rotate + 1) % n
	}
	return best
}

// before says whether p will begin a call sooner than q.
func (p *port) before(q *port) bool {
	if p.unclaimed != q.unclaimed {
		return p.unclaimed < q.unclaimed
	}
	return p.worker.Held() < q.worker.Held()
}

// offerWaiting gives waiting calls to workers that can take them: first those that run
// again, each alone among its kind in its worker, so that one that kills workers is known.
func (s *Shard) offerWaiting() {
	s.offerFrom(&s.again, func(p *port) bool { return p.usable() && p.reruns == 0 })
	s.offerFrom(&s.queue, (*port).ready)
}

func (s *Shard) offerFrom(q *queue, can func(*port) bool) {
	for q.live > 0 {
		p := s.choose(can)
		if p == nil {
			return
		}
		c := q.oldest()
		if time.Duration(s.now-c.arrived) > standing {
			c = q.newest()
		}
		s.unqueue(c)
		s.counters.Observe(observe.QueueWait, s.now-c.arrived)
		if !p.offer(c) {
			s.putBack(c) // p is full or dead now; the others may have room
		}
	}
}
