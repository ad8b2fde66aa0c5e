package dispatch

import "time"

const (
	paceFactor = 1.02                  // how much faster than they are done calls are offered,
	paceFill   = 0.1                   // and by so much more while the window is empty
	paceSaved  = 20 * time.Millisecond // how much of that may be made up for
	paceAhead  = 10 * time.Millisecond // how much may lie unclaimed, beside
	paceLate   = 0.5                   // of what the loop is late by
)

// pace bounds how fast calls are offered to a loop whose capacity is known. What is claimed
// together wakes together, and the loop is late and then idle however well the number of calls was
// chosen: so after a pause, too, they are offered hardly faster than they are done.
type pace struct {
	tokens float64 // calls that may be offered
	at     int64   // when they were last counted
}

// paced says whether one more call may be offered now as far as the pace is concerned.
func (p *port) paced() bool {
	a, now := &p.admission, p.shard.now
	if a.lateAt == 0 {
		return p.unclaimed < p.batch.limit()
	}
	rate := a.rate(now)
	if rate == 0 {
		return p.unclaimed < p.batch.limit()
	}
	faster := rate * (paceFactor + paceFill*max(0, 1-float64(p.active())/a.window))
	a.pace.tokens = min(a.pace.tokens+faster*float64(now-a.pace.at), max(1, rate*float64(paceSaved)))
	a.pace.at = now
	if float64(p.unclaimed) >= max(1, rate*float64(paceAhead))+paceLate*rate*float64(p.lag()) {
		return false
	}
	if a.pace.tokens < 1 {
		a.boundAt = now
		p.shard.paceNext(now + int64((1-a.pace.tokens)/faster))
		return false
	}
	return true
}

// paceNext has the loop wake up when the next call may be offered.
func (s *Shard) paceNext(at int64) {
	if s.nextPace == 0 || at < s.nextPace {
		s.nextPace = at
	}
}
