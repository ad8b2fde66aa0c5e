package dispatch

import (
	"time"

	"spvn/gosrc/observe"
)

// stallAfter is how long a worker may leave its oldest offer unclaimed, claiming nothing
// else, before its offers go to workers that can claim now.
const stallAfter = 20 * time.Millisecond

// stuckAfter is how long such a worker may keep its offers while others have no room for them:
// under overload a loop is behind a little all the time, and without offers it is idle at its turn's end.
const stuckAfter = 200 * time.Millisecond

// oldestOffer is the offer that has waited longest for its claim, nil when none waits.
func (p *port) oldestOffer() *offer {
	for ; p.offersAt < len(p.offers); p.offersAt++ {
		o := &p.offers[p.offersAt]
		if p.current(o) {
			return o
		}
		*o = offer{}
	}
	p.offers, p.offersAt = p.offers[:0], 0
	return nil
}

// current says whether an offer still stands: not claimed, not taken back.
func (p *port) current(o *offer) bool {
	return p.calls[o.slot] == o.call && p.generations[o.slot] == o.generation && o.call.state == offered
}

// watch finds out whether the worker's loop moves.
func (p *port) watch() {
	if p.dead {
		return
	}
	s := p.shard
	// A loop that moves takes records, or begins drains.
	tail, turns := p.inbox.Consumed(), p.worker.Link.Turns()
	if tail != p.markTail || turns != p.markTurns || p.held == 0 && p.stalledSince == 0 && !p.probed {
		p.markTail, p.markTurns, p.markedAt = tail, turns, s.now
		p.recovered()
		return
	}
	still := time.Duration(s.now - p.markedAt)
	if o := p.oldestOffer(); o != nil && !p.threadsBusy() {
		if p.stalledSince == 0 && time.Duration(s.now-o.call.offered) > stallAfter && still > stallAfter {
			p.stall(o.call.offered)
		}
	} else if still >= probe && !p.probed {
		// It holds calls and has nothing to claim, or no thread for it: it is asked whether it lives.
		p.probed = true
		p.inbox.Publish()
		p.ring()
	}
	settings := &s.dispatch.settings
	if p.stalledSince == 0 && p.probed && still > 2*probe {
		p.stall(p.markedAt)
	}
	if p.stalledSince != 0 && !p.warned && settings.StallWarning > 0 {
		if d := time.Duration(s.now - p.stalledSince); d >= settings.StallWarning {
			p.warned = true
			settings.Stalled(p.worker, s.index, d)
		}
	}
}

// ask rings a worker that holds no call, to see whether it lives: a health check wants to know, and nothing else would
// show it. The answer is for the next one.
func (p *port) ask() {
	if p.dead || p.probed || p.held > 0 || p.stalledSince != 0 || p.worker.State() != WorkerReady {
		return
	}
	p.watch()
	p.probed = true
	p.inbox.Publish()
	p.ring()
}

// stall takes note that the worker's loop stands still, since then.
func (p *port) stall(since int64) {
	p.stalledSince = since
	p.worker.stalled.CompareAndSwap(0, since)
	p.shard.counters.Inc(observe.WorkersStalled)
}

// recovered takes note that a stalled worker's loop moves again.
func (p *port) recovered() {
	p.probed = false
	if p.stalledSince == 0 {
		return
	}
	d := time.Duration(p.shard.now - p.stalledSince)
	p.stalledSince = 0
	p.worker.stalled.Store(0)
	if p.warned {
		p.warned = false
		p.shard.dispatch.settings.Recovered(p.worker, p.shard.index, d)
	}
}

// giveUpStalled takes the calls back that wait for stalled workers, and for too long: nobody else can take them, and
// the queue's bounds hold for them too.
func (s *Shard) giveUpStalled() {
	for _, p := range s.ports {
		if p.stalledSince == 0 || p.dead {
			continue
		}
		if o := p.oldestOffer(); o != nil && s.noWorkerFor(o.call) {
			p.settle()
			p.takeBackAll()
		}
	}
}

// relieve moves a stalled worker's unclaimed calls to others, if there are any that can
// claim now; else they stay where they are.
func (s *Shard) relieve(p *port) {
	if p.unclaimed == 0 || s.choose((*port).usable) == nil {
		return
	}
	if s.now-p.stalledSince < int64(stuckAfter) && (s.queue.live > 0 || s.choose((*port).ready) == nil) {
		return
	}
	p.settle()
	p.takeBackAll()
}
