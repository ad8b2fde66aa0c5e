package dispatch

import "time"

// Calls that run for the second time, because their worker ended, may be what ended it. A worker
// gets them in rounds: one first, and twice as many whenever those before are done or have done no
// harm for a moment. One that kills workers at once is alone with its death then, or nearly so, and
// a hundred that merely wait are all begun within a second.

// harmless is for how long a round must have run before the next one.
const harmless = 100 * time.Millisecond

// rounds is how far a port is with that.
type rounds struct {
	size int   // of the present round; 0: none was begun since the last death of a worker
	left int   // calls of it that may still be offered
	at   int64 // when the last of it was offered
}

// begun takes note that one more was offered.
func (r *rounds) begun(now int64) {
	if r.left == 0 {
		r.size = max(1, min(2*r.size, 1<<20))
		r.left = r.size
	}
	r.left--
	r.at = now
}

// rerunnable says whether a call that runs again can be offered here. The first goes past the window,
// as it has waited for long enough.
func (p *port) rerunnable() bool {
	if p.reruns == 0 {
		return p.usable() && p.hasThread()
	}
	return (p.rounds.left > 0 || p.shard.now-p.rounds.at >= int64(harmless)) && p.ready()
}
