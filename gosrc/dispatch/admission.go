package dispatch

import (
	"time"
)

// Admission: how many calls a worker may hold at a time. The one signal is the time from
// offer to claim. While the worker's loop keeps up it is microseconds, and it grows as
// soon as the loop is late, whether the app burns its time before its first await or
// after. An app that only waits never makes it grow, so ten thousand sleeping calls are
// no overload. (Facebook's "Fail at Scale" and Netflix's concurrency-limits have the idea.)
//
// What the signal alone does not say:
//   - A call that has been held for a second waits more than it runs (a long poll, a stream,
//     an accepted WebSocket): it is not counted, or one late moment beside a thousand of them
//     would shut the window until they end.
//   - A window that is shut gives no signal. Where nothing was claimed and nothing is
//     offered, one call goes past it as a probe.
//   - An app that burns its time long after the claim shows its lateness just as long after
//     the window was moved, so steering by lateness alone swings between too many and none.
//     Once the loop was late its capacity is known (capacity.go), and the window is what
//     Little's law says: the calls that it gets done, times how long one takes without the
//     lateness and a little more, so that there is always work before it. Calls are offered
//     at the pace at which it gets them done (pace.go).
const (
	lateDelay   = 20 * time.Millisecond  // more is late; half of it is prompt
	latestDelay = 200 * time.Millisecond // the same for an app whose calls burn for long:
	lateCalls   = 1.5                    // it is late by so many calls
	growBy      = 0.25
	firstWindow = 64
	leastWindow = 2 // one that runs and one that is there when it ends

	probeAfter = 100 * time.Millisecond // or what a call takes, without a claim, where the capacity is known

	longHeld  = time.Second            // a call held for longer is not counted
	lookAtOld = 100 * time.Millisecond // how often such calls are looked for
)

// admission is a port's window and what it is steered by.
type admission struct {
	window     float64 // how many calls may be held, the old ones not counted
	old        int     // held for longer than longHeld
	over       int     // answered, and the worker has not said yet that it is done
	probing    bool    // one call may go past the window
	worstDelay int64   // from offer to claim since the last tick
	claims     int     // since the last tick
	ended      int     // calls that the worker was done with since the last tick

	steeredAt int64
	lookedAt  int64 // when old calls were last looked for
	lateAt    int64 // when the loop was last late
	boundAt   int64 // when the window or the pace last held a call back

	capacity
	pace pace
}

func newAdmission(now int64) admission {
	return admission{window: firstWindow, steeredAt: now, capacity: capacity{headroom: 1, up: leastUp}}
}

// active is how many calls the window counts.
func (p *port) active() int { return p.held - p.old - p.over }

// steer moves the window by what happened since the last tick.
func (p *port) steer() {
	if p.worker.pooled() {
		return
	}
	a, now := &p.admission, p.shard.now
	worst := max(a.worstDelay, p.lag())
	late := a.lateBy()
	if now-a.lookedAt >= int64(lookAtOld) && (worst > late || float64(p.active()) >= a.window-1) {
		p.lookForOld()
	}
	active := float64(p.active())
	isLate := worst > late
	if isLate {
		if a.calmSince(now) {
			a.forget()
		}
		a.lateAt = now
	} else if active >= a.window-1 {
		a.boundAt = now
	}
	a.tick(isLate, min(now-a.steeredAt, int64(probe)), a.ended)
	if a.claims > 0 || p.unclaimed > 0 {
		a.ticks++
		switch {
		case !isLate && a.boundAt > a.steeredAt:
			a.heldTicks++
		case isLate && active < a.window+1: // else it is the doing of calls that an earlier window let in
			a.lateTicks++
		}
	}
	a.judge(now)
	rate := a.rate(now)
	switch {
	case rate > 0:
		a.window = max(leastWindow, rate*(a.takes+float64(slack))+1)
	case isLate:
		a.window = min(a.window, max(leastWindow, active))
	case worst < late/2 && a.claims > 0 && active >= a.window-1:
		a.window = min(a.window+max(1, growBy*a.window), 2*max(active, leastWindow))
	}
	a.probing = a.claims == 0 && p.unclaimed == 0 && (rate == 0 || float64(now-p.batch.lastClaim) > min(a.takes, float64(probeAfter)))
	a.worstDelay, a.claims, a.ended = 0, 0, 0
	a.steeredAt = now
}

// lag is how late the loop is now, as far as an offer that it has not claimed shows it.
func (p *port) lag() int64 {
	if p.stalledSince != 0 {
		return p.shard.now - p.stalledSince
	}
	if p.unclaimed > 0 {
		p.settle()
		if o := p.oldestOffer(); o != nil {
			return p.shard.now - o.call.offered
		}
	}
	return 0
}

// lateBy is the delay from which on the loop is late: a few calls of those that burn for
// long are no queue.
func (a *admission) lateBy() int64 {
	if a.lateEnded < knownEnded {
		return int64(lateDelay)
	}
	return int64(min(max(float64(lateDelay), lateCalls*a.lateTime/a.lateEnded), float64(latestDelay)))
}

// done takes note of a call that is answered or, where nobody waits for that, given up by
// the app. (Workers say that they are done a turn of their loop later, of many calls together.)
func (p *port) done(c *Call) {
	if c.counted {
		return
	}
	c.counted = true
	if !c.old {
		p.over++
	}
	if c.priority {
		return // they say nothing about those that the window lets in
	}
	a, now := &p.admission, p.shard.now
	if a.turningAt != now { // for many calls of one wake-up
		a.turningAt, a.turning = now, p.turningFor()
	}
	a.ended++
	a.tookOne(now - c.offered - c.delay)
}

// lookForOld finds the calls that have been held for so long that they are not counted.
func (p *port) lookForOld() {
	now := p.shard.now
	p.lookedAt = now
	for _, c := range p.calls {
		if c != nil && !c.old && !c.counted && c.state != offered && now-c.offered > int64(longHeld) {
			c.old = true
			p.old++
		}
	}
}

// ready says whether one more call can be offered here.
func (p *port) ready() bool {
	if p.worker.pooled() {
		return p.usable() && p.hasThread()
	}
	return p.usable() && (p.probing || float64(p.active()) < p.window && p.paced())
}

// usable says whether a call that must not wait can be offered here.
func (p *port) usable() bool {
	return !p.dead && !p.full && p.stalledSince == 0 && p.worker.State() == WorkerReady &&
		(len(p.free) > 0 || len(p.calls) < p.slots.Count())
}

// ahead says whether a call of a priority path can be offered here: the window does not
// hold it back, but an inbox full of such calls does.
func (p *port) ahead() bool { return p.usable() && p.hasThread() && p.unclaimed < 2*maxUnclaimed }

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
