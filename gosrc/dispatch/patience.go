package dispatch

import (
	"time"

	"spvn/gosrc/observe"
)

// In which order waiting calls are offered. First come, first served is right as long as
// clients wait: every one of a closed loop's is answered, however long the queue is. It is
// wrong when they give up, for then each call is begun just before its client leaves and
// nobody is answered (Facebook's "Fail at Scale" has the adaptive LIFO). So the newest call
// goes first while the oldest has used up half of its client's patience. That is the queue's
// timeout, as long as clients wait; when they leave it is how long they waited, less what a
// call takes once it is begun. Those that leave say nothing about the others where as many
// wait for twice as long: somebody hangs up early, whatever the server does.
const (
	judgePatience = 250 * time.Millisecond // how often it is judged
	leavingShare  = 16                     // one in so many of the calls that leave the queue, or fewer, says nothing
	oldestTurn    = 8                      // every so many the oldest is served, if it is older than most would wait
	leavingMany   = 8                      // so many that left are judged at once: each tick costs a tick of answers in time
	someTimeout   = 10 * time.Second       // patience where the queue has no timeout
)

// patience is what a shard knows about how long clients wait.
type patience struct {
	judgedAt int64
	begun    int   // calls offered out of the queue since then
	left     int   // clients that left before their answer began
	ages     int64 // the sum of their ages
	shown    int64 // ns that clients wait before they leave, 0: they do not leave
	shownAt  int64 // when they last did
	takes    int64 // ns that a call takes once it is begun
	turn     int   // counts the calls offered newest first
}

// gaveUp takes note of a client that left before its answer began.
func (p *patience) gaveUp(age int64) {
	p.left++
	p.ages += age
}

// judge makes up its mind about the time since the last judgement. waiting is the queue.
func (p *patience) judge(now int64, waiting *queue) {
	if now-p.judgedAt < int64(judgePatience) && (p.shown != 0 || p.left < leavingMany) {
		return
	}
	switch {
	case p.left > 1 && p.left*leavingShare > p.begun:
		age := p.ages / int64(p.left)
		if waiting.older(now-2*age, p.left) == p.left {
			p.shown = 0
		} else {
			p.shown, p.shownAt = age, now
		}
	case now-p.shownAt > 2*p.shown:
		p.shown = 0 // whoever is served at once has no time to lose patience
	}
	p.judgedAt, p.begun, p.left, p.ages = now, 0, 0, 0
}

// nextOf is the call of the queue that should be offered now, nil when none waits.
func (s *Shard) nextOf(q *queue) *Call {
	c := q.oldest()
	if c == nil || q != &s.queue {
		return c
	}
	timeout := int64(s.dispatch.settings.QueueTimeout)
	if timeout <= 0 {
		timeout = int64(someTimeout)
	}
	standing := timeout / 2
	if s.patience.shown != 0 {
		standing = min(standing, max(s.patience.shown-s.patience.takes, 0)/2)
	}
	age := s.now - c.arrived
	if age <= standing {
		return c
	}
	// Those that have waited for half of the timeout will not leave by themselves: a part of
	// them is answered, too.
	if s.patience.turn++; age > timeout/2 && s.patience.turn%oldestTurn == 0 {
		return c
	}
	return q.newest()
}

// offerWaiting gives waiting calls to workers that can take them: first those of priority
// paths, then those that run again.
func (s *Shard) offerWaiting() {
	if s.urgent.live > 0 {
		s.offerFrom(&s.urgent, (*port).ahead)
	}
	if s.again.live > 0 {
		s.offerFrom(&s.again, (*port).rerunnable)
	}
	s.offerFrom(&s.queue, (*port).ready)
}

func (s *Shard) offerFrom(q *queue, can func(*port) bool) {
	for q.live > 0 {
		p := s.choose(can)
		if p == nil {
			return
		}
		c := s.nextOf(q)
		s.unqueue(c)
		s.counters.Observe(observe.QueueWait, s.now-c.arrived)
		if !p.offer(c) {
			s.putBack(c) // p is full or dead now; the others may have room
		} else if q == &s.queue {
			s.patience.begun++
		}
	}
}
