package dispatch

import (
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

const (
	tick       = 10 * time.Millisecond  // how often windows, stalls and waiting calls are looked at
	watchDrain = time.Millisecond       // how long a loop sleeps while a worker drains
	probe      = 250 * time.Millisecond // how often a worker that holds calls is asked whether it lives
)

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
		p.uncrowd()
	}
	if s.nextTick != 0 && s.now >= s.nextTick {
		s.nextTick = 0
		s.tick()
	}
	if s.deadlines != nil && s.deadlines.count > 0 && s.deadlines.tick*deadlineTick <= s.now {
		if s.turnDeadlines() {
			progress = true // answers, and news for the workers, have to leave
		}
	}
	if s.tellAt != 0 && s.now >= s.tellAt {
		s.tellOfRefusals(false)
	}
	s.tighten()
	s.nextPace = 0
	s.offerWaiting()
	s.share()
	s.timers.turn()
	s.schedule()
	return progress
}

// Publish makes what was written for the workers visible and rings those that sleep.
func (s *Shard) Publish() {
	for _, p := range s.ports {
		if !p.inbox.Pending() {
			continue
		}
		if p.inbox.Publish() {
			p.ring()
		} else if !p.rung {
			// It was awake, in a drain that another loop rang for, and takes this too.
			p.rungTurn, p.rung = p.worker.Link.Turns()-1, true
		}
	}
}

// Arm prepares for sleep, which the caller promises to be brief: no longer than link.NapMs. ok is
// false when a worker has written something after all. The sleep must not last longer than
// limit; 0 is no limit.
func (s *Shard) Arm(briefly bool) (limit time.Duration, ok bool) {
	for i, p := range s.ports {
		// Whoever waits for room must not be forgotten because another one wished for it later, and found it.
		if !p.dead && (len(p.blocked) > 0 && p.inbox.WantRoom() || !p.outbox.Arm(briefly)) {
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
	s.schedule()
	if s.nextTick != 0 {
		if left := max(time.Duration(s.nextTick-s.now), time.Millisecond); limit == 0 || left < limit {
			limit = left
		}
	}
	if s.nextPace != 0 {
		if left := max(time.Duration(s.nextPace-s.now), time.Millisecond); limit == 0 || left < limit {
			limit = left
		}
	}
	if s.tellAt != 0 {
		if left := max(time.Duration(s.tellAt-s.now), time.Millisecond); limit == 0 || left < limit {
			limit = left
		}
	}
	if s.deadlines != nil && s.deadlines.count > 0 {
		if left := max(time.Duration(s.deadlines.next()-s.now), time.Millisecond); limit == 0 || left < limit {
			limit = left
		}
	}
	return s.timers.limit(limit), true
}

// schedule sets the time of the next tick, if there is anything to look at.
func (s *Shard) schedule() {
	waiting, holding := s.queue.live > 0 || s.urgent.live > 0 || len(s.squeezed) > 0 || s.again.live > 0, false
	for _, p := range s.ports {
		waiting = waiting || p.unclaimed > 0 || p.stalledSince != 0 || len(p.crowded) > 0
		holding = holding || p.held > 0 || p.probed
	}
	every := tick
	if !waiting {
		if !holding || s.dispatch.settings.StallWarning == 0 {
			s.nextTick, s.lastTick, s.noWorkerSince = 0, 0, 0
			return
		}
		every = probe
	}
	if at := s.now + int64(every); s.nextTick == 0 || at < s.nextTick {
		s.nextTick = at
	}
	if s.lastTick == 0 {
		s.lastTick = s.now
	}
}

// tick looks at the workers' windows, at stalled workers and at calls that have waited too
// long.
func (s *Shard) tick() {
	usable := false
	s.patience.takes = 0
	for _, p := range s.ports {
		p.steer()
		p.watch()
		s.patience.takes = max(s.patience.takes, int64(p.takes))
	}
	for _, p := range s.ports {
		if p.stalledSince != 0 {
			s.relieve(p)
		} else if !p.dead && p.worker.State() == WorkerReady {
			usable = true
		}
	}
	if s.lastTick != 0 && usable {
		s.clock += s.now - s.lastTick
	}
	s.lastTick = s.now
	switch {
	case usable:
		s.noWorkerSince = 0
	case s.noWorkerSince == 0:
		s.noWorkerSince = s.now
	}
	if !usable {
		s.giveUpStalled()
	}
	s.patience.judge(s.now, &s.queue)
	s.unsqueeze()
	s.expire(&s.queue, usable)
	s.expire(&s.urgent, usable)
	s.expire(&s.again, usable)
}

// expire refuses the calls that have waited too long. Their clock stands still while no
// worker could have taken them, and another one bounds that.
func (s *Shard) expire(q *queue, usable bool) {
	settings := &s.dispatch.settings
	for {
		c := q.oldest()
		switch {
		case c == nil:
			return
		case !usable && s.noWorkerFor(c):
			s.unqueue(c)
			s.refuse(c, observe.RefusedNoWorker, 503, "No worker is ready.", settings.RetryAfter)
		case settings.QueueTimeout > 0 && q != &s.urgent && time.Duration(s.clock-c.queuedAt) > settings.QueueTimeout:
			s.unqueue(c)
			s.refuse(c, observe.RefusedQueueTimeout, 503, "The server is overloaded.", settings.RetryAfter)
		default:
			return
		}
	}
}

// noWorkerFor says whether a call has waited for too long while no worker could have taken it.
func (s *Shard) noWorkerFor(c *Call) bool {
	most := s.dispatch.settings.WorkerTimeout
	return most > 0 && time.Duration(s.now-max(s.noWorkerSince, c.arrived)) > most
}

// ring wakes the port's worker.
func (p *port) ring() {
	p.rungTurn, p.rung = p.worker.Link.Turns(), true
	link.Ring(p.worker.Link.Bell)
	p.shard.counters.Add(observe.LinkBells, 1)
}
