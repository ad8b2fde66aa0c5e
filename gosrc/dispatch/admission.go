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
// Three things keep that signal honest:
//   - A call that has been held for a second waits more than it runs (a long poll, a stream,
//     an accepted WebSocket): it is not counted, or one late moment beside a thousand of them
//     would shut the window until they end.
//   - A window that is shut gives no signal. Where nothing was claimed and nothing is
//     offered, one call goes past it as a probe.
//   - An app that burns its time long after the claim shows its lateness just as long after
//     the window grew. What the loop got done while it was late, times how long a call takes
//     while it is not, is what the window should be (Little's law): up to there it is opened
//     at once, and beyond it grows slowly.
const (
	lateDelay   = 20 * time.Millisecond // more shrinks the window
	promptDelay = 10 * time.Millisecond // less lets it grow
	shrinkTo    = 0.8                   // of the calls held
	growBy      = 0.25
	creepBy     = 0.05 // beyond the knee, each time that a call could have ended
	firstWindow = 64
	leastWindow = 2 // one that runs and one that is there when it ends

	longHeld  = time.Second            // a call held for longer is not counted
	lookAtOld = 100 * time.Millisecond // how often such calls are looked for

	kneeAfter = 100 * time.Millisecond // of lateness, before the loop's capacity is believed
	kneeFor   = time.Second            // and twice what a call takes, without lateness, after which it is forgotten
	trustLost = 0.97                   // the knee is trusted less for each tick that is late
	trustWon  = 0.05                   // and more for each that is prompt
)

// admission is a port's window and what it is steered by.
type admission struct {
	window     float64 // how many calls may be held, the old ones not counted
	old        int     // held for longer than longHeld
	probing    bool    // one call may go past the window
	worstDelay int64   // from offer to claim since the last tick
	claims     int     // since the last tick
	ended      int     // calls that the worker was done with since the last tick

	steeredAt int64
	lookedAt  int64   // when old calls were last looked for
	lateAt    int64   // when the loop was last late
	lateTime  float64 // ns that it was late, and
	lateEnded float64 // calls that it was done with meanwhile; both fade
	calm      float64 // ns that a call takes while the loop is not late
	trust     float64 // in the knee, 0 to 1
	creptAt   int64   // when the window last grew beyond the knee
}

// active is how many calls the window counts.
func (p *port) active() int { return p.held - p.old }

// steer moves the window by what happened since the last tick.
func (p *port) steer() {
	if p.worker.pooled() {
		return
	}
	a, now := &p.admission, p.shard.now
	worst := a.worstDelay
	if o := p.oldestOffer(); o != nil {
		worst = max(worst, now-o.call.offered)
	}
	if now-a.lookedAt >= int64(lookAtOld) && (worst > int64(lateDelay) || float64(p.active()) >= a.window-1) {
		p.lookForOld()
	}
	active := float64(p.active())
	elapsed := float64(min(now-a.steeredAt, int64(probe)))
	switch {
	case worst > int64(lateDelay):
		if a.calmSince(now) {
			a.lateTime, a.lateEnded, a.trust = 0, 0, 1
		}
		a.lateAt = now
		const fade = 0.99 // a tick; half of it is gone after 700 ms
		a.lateTime, a.lateEnded = fade*a.lateTime+elapsed, fade*a.lateEnded+float64(a.ended)
		floor := max(leastWindow, a.trust*a.knee(now))
		a.window = min(a.window, max(floor, shrinkTo*min(a.window, active)))
		a.trust *= trustLost
	case worst < int64(promptDelay) && a.claims > 0:
		a.trust = min(1, a.trust+trustWon)
		if active >= a.window-1 {
			a.grow(now, active)
		}
	}
	a.probing = a.claims == 0 && p.unclaimed == 0
	a.worstDelay, a.claims, a.ended = 0, 0, 0
	a.steeredAt = now
}

// done takes note of a call that the worker is done with. How long it took says something
// about the app only if the loop was not late meanwhile.
func (a *admission) done(offered, now int64) {
	a.ended++
	if offered > a.lateAt {
		took := float64(now - offered)
		if a.calm == 0 {
			a.calm = took
		}
		a.calm += (took - a.calm) / 64
	}
}

// knee is how many calls keep the loop busy without making it late, 0 while nobody knows.
func (a *admission) knee(now int64) float64 {
	if a.lateTime < float64(kneeAfter) || a.calm == 0 || a.calmSince(now) {
		return 0
	}
	return a.lateEnded / a.lateTime * a.calm
}

// calmSince says that the loop has been prompt for so long that what it could do when it
// was late says nothing any more.
func (a *admission) calmSince(now int64) bool {
	return float64(now-a.lateAt) > float64(kneeFor)+2*a.calm
}

// grow opens a window that was reached while calls were claimed promptly.
func (a *admission) grow(now int64, active float64) {
	knee := a.knee(now)
	switch {
	case knee == 0:
		a.window = min(a.window+max(1, growBy*a.window), 2*max(active, leastWindow))
	case a.window < knee:
		a.window = min(a.window+max(1, growBy*a.window), knee)
	case float64(now-a.creptAt) >= a.calm:
		a.creptAt = now
		a.window += max(1, creepBy*a.window)
	}
}

// lookForOld finds the calls that have been held for so long that they are not counted.
func (p *port) lookForOld() {
	now := p.shard.now
	p.lookedAt = now
	for _, c := range p.calls {
		if c != nil && !c.old && c.state != offered && now-c.offered > int64(longHeld) {
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
	return p.usable() && p.unclaimed < p.batch.limit() && (float64(p.active()) < p.window || p.probing)
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
