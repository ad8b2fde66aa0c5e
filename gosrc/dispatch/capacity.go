package dispatch

import "time"

const (
	slack = 30 * time.Millisecond // so much work may stand before the loop, beside what waits in the app

	knownAfter = 100 * time.Millisecond // of lateness, before the loop's capacity is believed,
	knownEnded = 4                      // and so many calls that it was done with meanwhile
	knownFor   = time.Second            // and twice what a call takes, without lateness, after which it is forgotten
	leastTakes = 2 * time.Millisecond   // who takes less shows the lateness at once: there is nothing to foresee
	fade       = 0.99                   // a tick; half of it is gone after 700 ms
	mostTook   = 1024                   // calls that the mean of what one takes is made of

	judgeEvery   = 50 * time.Millisecond // or what a call takes: how often there is a judgement
	mostLate     = 0.35                  // of the ticks since then: there is no headroom,
	leastLate    = 0.15                  // and more of it
	leastUp      = 0.1                   // twice as much each time, up to
	mostUp       = 1.0
	mostHeadroom = 256.0
)

// capacity is what a port knows about its worker's loop: how many calls it gets done, and how
// long one takes. By Little's law their product is how many it holds when it is just busy.
type capacity struct {
	// While the loop is late it is busy all the time, and what it gets done then is what it can.
	lateTime  float64 // ns that it was late, and
	lateEnded float64 // calls that it was done with meanwhile; both fade

	// What a call takes, without the time that it stood behind others in the loop's turns.
	takes      float64 // ns
	took, many float64 // of so many calls; both fade

	turns  uint64 // the worker's turns,
	turnAt int64  // when the last of them began,
	turned int64  // and how long the one before it was, as far as an offer shows it

	turningAt int64 // when turning was how long the present one took
	turning   int64

	// The two are wrong for a while where the app changes or the machine is busy with others.
	// If the loop is not late although calls are held back, there may be more of them.
	headroom   float64 // how many times more
	up         float64 // how much it grows by next time
	judgedAt   int64
	endedSince int // calls that it was done with since then
	ticks      int // at which an offer showed whether the loop is late,
	lateTicks  int // those at which it was,
	heldTicks  int // and at which it was not although calls were held back
}

// look takes note that the worker's loop has begun a new turn.
func (p *port) look() {
	if turns := p.worker.Link.Turns(); turns != p.turns {
		p.turned = p.turningFor()
		p.turns, p.turnAt = turns, p.shard.now
	}
}

// turningFor is how long the loop's present turn takes already: as long as an offer lies there,
// and the loop has not looked for more.
func (p *port) turningFor() int64 {
	if p.unclaimed == 0 {
		return 0
	}
	o := p.oldestOffer()
	if o == nil {
		return 0
	}
	return p.shard.now - max(p.turnAt, o.call.offered)
}

// tookOne takes note of how long a call took, from its claim. One that waits becomes ready at
// some moment of a turn, waits for that turn's end, and then for those before it in the next.
func (c *capacity) tookOne(took int64) {
	c.took += float64(min(max(took-c.turning-c.turned/2, 0), int64(longHeld)))
	if c.many++; c.many > mostTook {
		c.took, c.many = c.took/2, c.many/2
	}
	c.takes = c.took / c.many
}

// tick takes note of what was done since the last one.
func (c *capacity) tick(late bool, elapsed int64, ended int) {
	if late {
		c.lateTime, c.lateEnded = fade*c.lateTime+float64(elapsed), fade*c.lateEnded+float64(ended)
	}
	if c.many > knownEnded {
		c.took, c.many = fade*c.took, fade*c.many
	}
	c.endedSince += ended
}

// forget has it start anew.
func (c *capacity) forget() { c.lateTime, c.lateEnded = 0, 0 }

// rate is how many calls the loop gets done in a nanosecond, 0 while that is not known.
func (a *admission) rate(now int64) float64 {
	if a.lateTime < float64(knownAfter) || a.lateEnded < knownEnded || a.takes < float64(leastTakes) || a.calmSince(now) {
		return 0
	}
	return a.headroom * a.lateEnded / a.lateTime
}

// calmSince says that the loop has been prompt for so long, with nothing held back, that what
// it could do when it was late says nothing any more.
func (a *admission) calmSince(now int64) bool {
	return float64(now-max(a.lateAt, a.boundAt)) > float64(knownFor)+2*a.takes
}

// judge corrects what is known of the capacity. What comes of that is seen only when the calls
// that it let in are done.
func (a *admission) judge(now int64) {
	elapsed := float64(now - a.judgedAt)
	switch known := a.rate(now) > 0; {
	case !known:
		a.headroom, a.up = 1, leastUp
	case elapsed < max(a.takes, float64(judgeEvery)) || a.ticks == 0:
		return
	default:
		// It can do what it did, whatever it did while it was late: that may have been a
		// moment at which others had the processor.
		a.lateEnded = max(a.lateEnded, float64(a.endedSince)/elapsed*a.lateTime)
		late := float64(a.lateTicks) / float64(a.ticks)
		switch {
		case late > mostLate:
			a.headroom, a.up = 1, leastUp
		case late <= leastLate && a.heldTicks > 0:
			a.headroom = min(a.headroom*(1+a.up), mostHeadroom)
			a.up = min(2*a.up, mostUp)
		}
	}
	a.judgedAt, a.endedSince, a.ticks, a.lateTicks, a.heldTicks = now, 0, 0, 0, 0
}
