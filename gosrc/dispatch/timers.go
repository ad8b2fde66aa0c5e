package dispatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
	"spvn/gosrc/schedule"
)

// Timers: package schedule says what is due; here it is given to workers. They belong to
// the first shard, because control records come through the first outbox.
//
// A due time goes to a worker as a call does: it takes a call slot, the worker claims the
// slot by compare-and-swap before it runs anything, and until then the core can take it
// back. So a due time is never run twice; one that a worker had claimed when it died is
// missed, and is not given out again, since nobody knows how far it came.
//
// The life of a due time, with a counter for each end:
//
//	due ──► waiting (no worker can take it) ──► offered ──► running ──► done
//	           │                                   │           └──────► missed (the worker ended)
//	           └───────────────────────────────────┴──► missed (the next one is due), skipped
//
// so that due = done + missed + skipped + pending + running.
const (
	maxOverlap = 64                     // due times of one timer that run at a time
	waitLook   = 100 * time.Millisecond // how often a waiting due time looks for a worker
)

// TimerStats counts due times. A due time of a timer that all workers run counts once for
// each.
type TimerStats struct {
	Due     atomic.Uint64 // came
	Done    atomic.Uint64 // a worker has run it, well or not
	Failed  atomic.Uint64 // of them, those that raised an exception
	Missed  atomic.Uint64 // nobody could run it in time, or its worker ended meanwhile
	Skipped atomic.Uint64 // the one before was still running, or the timer was cancelled
	Refused atomic.Uint64 // timers that were not set: too many, or too large
	Set     atomic.Int64  // gauge: timers that there are
	Open    atomic.Int64  // gauge: due times waiting, offered or running
}

type timers struct {
	shard   *Shard
	stats   *TimerStats
	book    *schedule.Book
	waiting []*firing // in the order in which they came
	offered []*firing // not seen claimed yet
	pending map[place]*firing
	running map[place]int
	stopped bool
}

// place is where the due times of a timer follow one another: one line for all workers, or
// one for each.
type place struct {
	timer *schedule.Timer
	port  *port
}

// firing is one due time on its way.
type firing struct {
	schedule.Due
	only *port // a timer that every worker runs

	port             *port // where it was offered
	slot, generation uint32
	offeredAt        int64
	claimed          bool
}

func (f *firing) place() place { return place{f.Timer, f.only} }

func newTimers(s *Shard, stats *TimerStats) *timers {
	return &timers{
		shard: s, stats: stats, book: schedule.NewBook(),
		pending: map[place]*firing{}, running: map[place]int{},
	}
}

// record handles what a worker says about timers. An error means that the worker is mad.
func (t *timers) record(p *port, r link.Record) error {
	if t == nil {
		return errors.New("a timer's record in another outbox than the first")
	}
	switch r.Type {
	case link.TimerSet:
		return t.set(p, r.Payload)
	case link.TimerCancel:
		return t.cancel(p, r.Payload)
	}
	if len(r.Payload) < 16 {
		return errRecord
	}
	return t.done(p, binary.LittleEndian.Uint64(r.Payload), binary.LittleEndian.Uint64(r.Payload[8:]) != 0)
}

func (t *timers) set(p *port, shared []byte) error {
	if len(shared) < link.TimerSetFixedSize {
		return errRecord
	}
	b := append([]byte(nil), shared...) // lengths are checked on a private copy
	u32 := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(b[at:])) }
	duration := func(at int) time.Duration { return time.Duration(binary.LittleEndian.Uint64(b[at:])) }
	key, data := u32(link.TimerSetKeyLength), u32(link.TimerSetDataLength)
	rest := b[link.TimerSetFixedSize:]
	if key+data > uint64(len(rest)) {
		return errRecord
	}
	flags := u32(link.TimerSetFlags)
	replaced, err := t.book.Set(p.worker.ID, schedule.Spec{
		Key: string(rest[:key]), Data: rest[key : key+data : key+data],
		Interval: duration(link.TimerSetInterval), First: duration(link.TimerSetFirst), Jitter: duration(link.TimerSetJitter),
		All: flags&link.TimerAll != 0, Overlap: flags&link.TimerOverlap != 0,
		Local: flags&link.TimerLocal != 0, Any: flags&link.TimerAny != 0,
	}, t.shard.now)
	if err != nil {
		t.stats.Refused.Add(1)
		t.log("error", "timer-refused", "%v; it is not set", err)
	}
	if replaced != nil {
		t.withdraw(replaced)
	}
	return nil
}

func (t *timers) cancel(p *port, shared []byte) error {
	if len(shared) < 8 {
		return errRecord
	}
	flags, n := binary.LittleEndian.Uint32(shared), binary.LittleEndian.Uint32(shared[4:])
	if uint64(n) > uint64(len(shared)-8) {
		return errRecord
	}
	key, local := string(shared[8:8+n]), flags&link.TimerLocal != 0
	if timer := t.book.Cancel(p.worker.ID, key, local); timer != nil {
		t.withdraw(timer)
		return nil
	}
	// A timer that was due once is in the book no more, but may still wait for a worker.
	for place := range t.pending {
		if timer := place.timer; timer.Key == key && timer.Local == local && (!local || timer.Runs(p.worker.ID)) {
			t.withdraw(timer)
		}
	}
	return nil
}

// withdraw takes back the due times of these timers that nobody has begun.
func (t *timers) withdraw(gone ...*schedule.Timer) {
	if len(gone) == 0 {
		return
	}
	are := make(map[*schedule.Timer]bool, len(gone))
	for _, timer := range gone {
		are[timer] = true
	}
	for place, f := range t.pending {
		if are[place.timer] && t.takeBack(f) {
			t.end(f, &t.stats.Skipped)
		}
	}
}

// turn gives out what is due. The shard calls it once in each turn.
func (t *timers) turn() {
	if t == nil || t.stopped {
		return
	}
	if t.shard.dispatch.draining.Load() {
		t.stop()
		return
	}
	now := t.shard.now
	t.settle()
	for next := t.book.Next(); next != 0 && next <= now; next = t.book.Next() {
		d, ok := t.book.Pop(now)
		if !ok {
			break
		}
		t.due(d)
	}
	t.relieve()
	t.giveWaiting()
	t.stats.Set.Store(int64(t.book.Len()))
}

// giveWaiting gives out what nobody could take before, until nobody can take more.
func (t *timers) giveWaiting() {
	waiting, given := t.waiting, 0
	t.waiting = t.waiting[:0]
	for ; given < len(waiting) && t.room(); given++ {
		t.give(waiting[given], nil)
	}
	t.waiting = append(t.waiting, waiting[given:]...) // no further to the back than they were
	clear(waiting[len(t.waiting):])
}

// room says whether some worker may take a due time: one that needs a certain one asks for that.
func (t *timers) room() bool {
	return slices.ContainsFunc(t.shard.ports, func(p *port) bool {
		return !p.dead && !p.full && p.worker.State() == WorkerReady
	})
}

// limit is how long the loop may sleep, given how long it may for other reasons; 0 is no
// limit.
func (t *timers) limit(limit time.Duration) time.Duration {
	if t == nil || t.stopped {
		return limit
	}
	lower := func(d time.Duration) {
		if d = max(d, time.Millisecond); limit == 0 || d < limit {
			limit = d
		}
	}
	if next := t.book.Next(); next != 0 {
		// Rounded up: the loop sleeps for whole milliseconds.
		lower(time.Duration(next-t.shard.now) + time.Millisecond - 1)
	}
	if len(t.waiting) > 0 {
		lower(waitLook)
	}
	if len(t.offered) > 0 {
		lower(tick)
	}
	return limit
}

// due begins the life of a due time that has come.
func (t *timers) due(d schedule.Due) {
	if d.Passed > 0 {
		t.stats.Due.Add(uint64(d.Passed))
		t.stats.Missed.Add(uint64(d.Passed))
		t.log("warning", "timer-passed", "timer %q: %d due time(s) passed unseen and are missed", d.Timer.Key, d.Passed)
	}
	if !d.Timer.All {
		t.begin(&firing{Due: d})
		return
	}
	begun := false
	for _, p := range t.shard.ports {
		if !p.dead && p.worker.State() == WorkerReady && d.Timer.Runs(p.worker.ID) {
			t.begin(&firing{Due: d, only: p})
			begun = true
		}
	}
	if !begun {
		t.book.Release(d.Timer)
	}
}

func (t *timers) begin(f *firing) {
	t.stats.Due.Add(1)
	t.stats.Open.Add(1)
	at := f.place()
	if before := t.pending[at]; before != nil {
		// Nobody has begun the one before: it is late by a whole interval.
		if t.takeBack(before) {
			t.end(before, &t.stats.Missed)
			t.log("warning", "timer-late", "timer %q: no worker could run it before it was due again; a due time is missed", f.Timer.Key)
		}
	}
	if n := t.running[at]; n > 0 && (!f.Timer.Overlap || n >= maxOverlap) {
		t.end(f, &t.stats.Skipped)
		t.log("warning", "timer-overlap", "timer %q still runs as it is due again; this time is skipped", f.Timer.Key)
		return
	}
	t.pending[at] = f
	t.give(f, nil)
}

// give offers a due time to the worker that will begin it soonest, other than this one;
// without such a worker it waits.
func (t *timers) give(f *firing, other *port) {
	p := f.only
	if p == nil {
		p = t.shard.choose(func(p *port) bool { return p != other && p.usable() && f.Timer.Runs(p.worker.ID) })
	} else if p.dead || p.full || p.worker.State() != WorkerReady {
		p = nil // one that is blocked has it in its inbox until it goes on, or it is due again
	}
	if p == nil || !p.offerTimer(f) {
		f.port = nil
		t.waiting = append(t.waiting, f)
		return
	}
	f.offeredAt = t.shard.now
	t.offered = append(t.offered, f)
}

// settle takes note of what workers have begun.
func (t *timers) settle() {
	kept := t.offered[:0]
	for _, f := range t.offered {
		switch {
		case t.claimed(f):
		default:
			kept = append(kept, f)
		}
	}
	clear(t.offered[len(kept):])
	t.offered = kept
}

// claimed finds out whether the worker has begun a due time that it was offered.
func (t *timers) claimed(f *firing) bool {
	if f.claimed || f.port == nil {
		return true // perhaps over already, if its end came first, or its worker's
	}
	_, ok, err := f.port.slots.Claimed(f.slot, f.generation)
	if err != nil {
		f.port.corrupt(err)
	}
	if !ok {
		return false
	}
	f.claimed = true
	t.book.Release(f.Timer)
	at := f.place()
	if t.pending[at] == f {
		delete(t.pending, at)
	}
	t.running[at]++
	return true
}

// relieve gives due times that a blocked worker has not begun to others, if there are any.
func (t *timers) relieve() {
	for _, f := range append([]*firing(nil), t.offered...) {
		if f.only != nil || time.Duration(t.shard.now-f.offeredAt) <= stallAfter {
			continue
		}
		blocked := f.port
		better := t.shard.choose(func(p *port) bool { return p != blocked && p.usable() && f.Timer.Runs(p.worker.ID) })
		if better != nil && t.takeBack(f) {
			t.give(f, blocked)
		}
	}
	t.settle() // one may have been claimed as it was to be taken back
}

// takeBack withdraws a due time that waits or is offered; false: a worker has begun it.
func (t *timers) takeBack(f *firing) bool {
	if f.port == nil {
		t.waiting = without(t.waiting, f)
		return true
	}
	if f.claimed || !f.port.slots.TakeBack(f.slot, f.generation) {
		t.claimed(f)
		return false
	}
	f.port.endTimer(f)
	f.port = nil
	t.offered = without(t.offered, f)
	return true
}

func without(list []*firing, f *firing) []*firing {
	if i := slices.Index(list, f); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// end ends the life of a due time that no worker has (any more).
func (t *timers) end(f *firing, reason *atomic.Uint64) {
	at := f.place()
	if t.pending[at] == f {
		delete(t.pending, at)
	}
	if f.claimed {
		if t.running[at]--; t.running[at] <= 0 {
			delete(t.running, at)
		}
	}
	t.book.Release(f.Timer)
	reason.Add(1)
	t.stats.Open.Add(-1)
}

// done is what a worker says when it has run a due time.
func (t *timers) done(p *port, id uint64, failed bool) error {
	f := p.firings[id]
	if f == nil {
		t.shard.counters.Add(observe.LinkStaleRecords, 1)
		return nil
	}
	if !t.claimed(f) {
		return errors.New("the end of a timer that was not claimed")
	}
	p.endTimer(f)
	t.end(f, &t.stats.Done)
	f.port = nil
	if failed {
		t.stats.Failed.Add(1)
	}
	return nil
}

// drained takes back what a worker that is to end has not begun.
func (t *timers) drained(p *port) {
	if t == nil {
		return
	}
	for _, f := range p.firings {
		if t.takeBack(f) {
			t.again(f, p)
		}
	}
	t.withdraw(t.book.Gone(p.worker.ID, t.othersReady(p))...)
}

// othersReady says whether a worker other than p's is ready.
func (t *timers) othersReady(p *port) bool {
	for _, other := range t.shard.ports {
		if other != p && !other.dead && other.worker.State() == WorkerReady {
			return true
		}
	}
	return false
}

// lost takes note that a worker is gone: its port is not among the shard's any more.
func (t *timers) lost(p *port) {
	if t == nil {
		return
	}
	for _, f := range p.firings {
		if t.takeBack(f) {
			t.again(f, p)
			continue
		}
		p.worker.beside.Add(1)
		p.endTimer(f)
		t.end(f, &t.stats.Missed)
		f.port = nil
		t.log("warning", "timer-lost", "timer %q: worker %d ended while it ran it; this time counts as missed and is not run again",
			f.Timer.Key, p.worker.ID)
	}
	for _, f := range append([]*firing(nil), t.waiting...) {
		if f.only == p || f.Timer.Local && f.Timer.Runs(p.worker.ID) {
			t.takeBack(f)
			t.end(f, &t.stats.Missed)
		}
	}
	t.withdraw(t.book.Gone(p.worker.ID, t.othersReady(p))...)
}

// again finds another worker for what one could not begin.
func (t *timers) again(f *firing, p *port) {
	if f.only == p || f.Timer.Local {
		t.end(f, &t.stats.Missed)
		return
	}
	t.give(f, p)
}

func (t *timers) ready() {
	if t != nil {
		t.withdraw(t.book.Ready()...)
	}
}

// stop gives out nothing more: the server drains. What runs goes on.
func (t *timers) stop() {
	t.stopped = true
	once := t.book.Clear()
	for _, f := range t.pending {
		if t.takeBack(f) {
			t.end(f, &t.stats.Missed)
			if f.Timer.Interval == 0 {
				once++
			}
		}
	}
	t.stats.Set.Store(0)
	if once > 0 {
		t.log("warning", "timer-stop", "the server stops: %d delayed call(s) will not be run", once)
	}
}

func (t *timers) log(level, key, format string, args ...any) {
	if f := t.shard.dispatch.settings.Log; f != nil {
		f(level, key, fmt.Sprintf(format, args...))
	}
}

// offerTimer puts a due time into the inbox, with a slot to claim. false: there is no room.
func (p *port) offerTimer(f *firing) bool {
	var slot uint32
	if n := len(p.free); n > 0 {
		slot = p.free[n-1]
		p.free = p.free[:n-1]
	} else if len(p.calls) < p.slots.Count() {
		slot = uint32(len(p.calls))
		p.calls = append(p.calls, nil)
		p.generations = append(p.generations, 0)
	} else {
		return false
	}
	generation := p.nextGeneration(slot)
	key, argument := f.Timer.Key, f.Timer.Data
	payload, ok := p.write(link.TimerFixedSize+len(key)+len(argument), link.Timer, 0, p.slots.ID(slot, generation), data)
	if !ok {
		p.free = append(p.free, slot)
		p.full = true
		p.inbox.WantRoom()
		return false
	}
	p.generations[slot] = generation
	putUint64(payload[link.TimerNumber:], f.Number)
	putUint64(payload[link.TimerDue:], uint64(time.Now().UnixNano()-(link.Monotonic()-f.At)))
	binary.LittleEndian.PutUint32(payload[link.TimerKeyLength:], uint32(len(key)))
	binary.LittleEndian.PutUint32(payload[link.TimerDataLength:], uint32(len(argument)))
	copy(payload[link.TimerFixedSize:], key)
	copy(payload[link.TimerFixedSize+len(key):], argument)
	p.slots.Offer(slot, generation)
	f.port, f.slot, f.generation = p, slot, generation
	if p.firings == nil {
		p.firings = map[uint64]*firing{}
	}
	p.firings[p.slots.ID(slot, generation)] = f
	p.worker.held.Add(1) // a worker drains only when its timers have ended too
	p.worker.timers.Add(1)
	return true
}

// endTimer frees the slot of a due time. It was never in the worker's window: a timer may
// run for hours and must not take a call's place.
func (p *port) endTimer(f *firing) {
	delete(p.firings, p.slots.ID(f.slot, f.generation))
	p.slots.Free(f.slot, f.generation)
	p.generations[f.slot]++ // records that still name the old one are stale
	p.free = append(p.free, f.slot)
	p.worker.held.Add(-1)
	p.worker.timers.Add(-1)
}
