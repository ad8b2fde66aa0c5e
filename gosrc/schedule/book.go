// Package schedule is the app's timers as data: which there are, who may run them, and
// when each is due next. It knows neither workers' links nor a clock: package dispatch
// asks it what is due, and hands that to a worker.
//
// Rules:
//   - A Book belongs to one goroutine, its poll loop's; nothing here locks, waits or
//     starts anything. Times are the loop's, in monotonic nanoseconds.
//   - A timer is known by its key, and the last Set of a key wins. Setting it once more as
//     it is only adds one more worker that can run it: its due times go on as they were,
//     whoever comes and goes.
//   - Due times that passed while nobody looked are not made up for: Pop gives the last
//     one and says how many were before it.
package schedule

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Limits of a Book.
const (
	MaxTimers   = 10000
	MaxBytes    = 64 << 20 // of keys and data together
	MaxKey      = 1 << 10
	MaxData     = 64 << 10
	MinInterval = time.Millisecond
	MaxDelay    = 100 * 365 * 24 * time.Hour // sums of it and a clock do not overflow
)

// Spec is what a worker says about a timer.
type Spec struct {
	Key  string
	Data []byte // for the worker that runs it

	Interval time.Duration // 0: due once
	First    time.Duration // until the first due time
	Jitter   time.Duration // how much later than due it may be given out, at random

	All     bool // every worker that has set it runs each due time
	Overlap bool // a due time is run although the one before still runs
	Local   bool // its worker's alone, and ends with it
	Any     bool // Data says all: workers that have not set it run it too
}

// Timer is one timer. Its fields are read by package dispatch and changed here only.
type Timer struct {
	Spec
	owner   int              // the worker of a local one
	workers map[int]struct{} // that have set it
	number  uint64           // due times given out or passed
	due     int64            // the next one
	fire    int64            // when it is given out: due and the jitter
	index   int              // in the heap; -1: not in it
	taken   bool             // due once, popped and not yet released
}

// Runs says whether a worker can run it.
func (t *Timer) Runs(worker int) bool {
	if t.Local {
		return t.owner == worker
	}
	_, ok := t.workers[worker]
	return ok || t.Any
}

// Due is one due time that has come.
type Due struct {
	Timer  *Timer
	Number uint64 // counted from 1; the same for every worker that runs it
	At     int64
	Passed int // due times before it that came and went since the last Pop
}

// name is a key within its space: local keys are each worker's own.
type name struct {
	key    string
	worker int // 0: shared
}

// Book is the timers of one server.
type Book struct {
	timers map[name]*Timer
	heap   timerHeap
	bytes  int
	taken  int // timers that were due once and are not over: they count still
}

// NewBook makes an empty one.
func NewBook() *Book { return &Book{timers: map[name]*Timer{}} }

// Len is how many timers there are.
func (b *Book) Len() int { return len(b.timers) }

func (s *Spec) name(worker int) name {
	if s.Local {
		return name{s.Key, worker}
	}
	return name{s.Key, 0}
}

func (s *Spec) size() int { return len(s.Key) + len(s.Data) + 256 }

func (s *Spec) check() error {
	switch {
	case s.Key == "" || len(s.Key) > MaxKey:
		return fmt.Errorf("a timer's key must have 1 to %d bytes, got %d", MaxKey, len(s.Key))
	case len(s.Data) > MaxData:
		return fmt.Errorf("timer %q: its arguments take %d bytes and may take %d", s.Key, len(s.Data), MaxData)
	case s.Interval != 0 && s.Interval < MinInterval || s.Interval > MaxDelay:
		return fmt.Errorf("timer %q: an interval of %v is not possible", s.Key, s.Interval)
	case s.First < 0 || s.First > MaxDelay || s.Jitter < 0 || s.Jitter > MaxDelay:
		return fmt.Errorf("timer %q: a time of %v and a jitter of %v are not possible", s.Key, s.First, s.Jitter)
	}
	return nil
}

// like says whether t is what s asks for, due times aside.
func (t *Timer) like(s *Spec) bool {
	return t.Interval != 0 && t.Interval == s.Interval && t.Jitter == s.Jitter && t.All == s.All &&
		t.Overlap == s.Overlap && t.Any == s.Any && string(t.Data) == string(s.Data)
}

// Set makes or changes a timer on behalf of a worker. replaced is the timer that had the
// key until now, if this is another one. An error says in a sentence why it was not set.
func (b *Book) Set(worker int, s Spec, now int64) (replaced *Timer, err error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	n := s.name(worker)
	old := b.timers[n]
	if old != nil && old.like(&s) {
		old.workers[worker] = struct{}{}
		return nil, nil
	}
	bytes := b.bytes + s.size()
	if old != nil {
		bytes -= old.size()
	} else if len(b.timers)+b.taken >= MaxTimers {
		return nil, fmt.Errorf("timer %q: there are %d timers already", s.Key, MaxTimers)
	}
	if bytes > MaxBytes {
		return nil, errors.New("the timers' arguments take too much memory")
	}
	if old != nil {
		b.drop(n, old)
	}
	t := &Timer{Spec: s, owner: worker, workers: map[int]struct{}{worker: {}}, due: now + int64(s.First)}
	t.fire = t.due + t.jitter()
	b.timers[n] = t
	b.bytes = bytes
	heap.Push(&b.heap, t)
	return old, nil
}

// Cancel removes a timer; nil: there is none of that key.
func (b *Book) Cancel(worker int, key string, local bool) *Timer {
	n := (&Spec{Key: key, Local: local}).name(worker)
	t := b.timers[n]
	if t != nil {
		b.drop(n, t)
	}
	return t
}

// Next is when Pop will have something, 0 for never.
func (b *Book) Next() int64 {
	if len(b.heap) == 0 {
		return 0
	}
	return max(1, b.heap[0].fire)
}

// Pop takes one due time that has come by now. A timer that is due once is forgotten with it, but for the limits: it
// counts until it is released.
func (b *Book) Pop(now int64) (d Due, ok bool) {
	if len(b.heap) == 0 || b.heap[0].fire > now {
		return Due{}, false
	}
	t := b.heap[0]
	t.number++
	d = Due{Timer: t, Number: t.number, At: t.due}
	if t.Interval == 0 {
		b.drop(t.name(t.owner), t)
		t.taken = true
		b.taken++
		b.bytes += t.size()
		return d, true
	}
	interval := int64(t.Interval)
	if late := now - t.due; late >= interval {
		d.Passed = int(late / interval)
		t.number += uint64(d.Passed)
		t.due += late / interval * interval
		d.Number, d.At = t.number, t.due
	}
	t.due += interval
	t.fire = t.due + t.jitter()
	heap.Fix(&b.heap, 0)
	return d, true
}

// Release says that the due time of a timer was begun, or is over. Of one that was due once nothing is left then.
func (b *Book) Release(t *Timer) {
	if t.taken {
		t.taken = false
		b.taken--
		b.bytes -= t.size()
	}
}

// Ready says that a worker has started, and so has set all that it will: timers that no
// worker has set any more are of code that is gone. It returns those.
func (b *Book) Ready() (gone []*Timer) {
	for n, t := range b.timers {
		if !t.Any && !t.Local && len(t.workers) == 0 {
			b.drop(n, t)
			gone = append(gone, t)
		}
	}
	return gone
}

// Gone says that a worker has ended. Its local timers end with it, and so do shared ones that no worker sets any more,
// if others are ready (so they would have set them). If none is they stay, because somebody is about to take its place.
// It returns those that ended.
func (b *Book) Gone(worker int, others bool) (gone []*Timer) {
	for n, t := range b.timers {
		delete(t.workers, worker)
		if t.Local && t.owner == worker || others && !t.Any && !t.Local && len(t.workers) == 0 {
			b.drop(n, t)
			gone = append(gone, t)
		}
	}
	return gone
}

// Clear removes everything and returns how many timers were due once and never were.
func (b *Book) Clear() (once int) {
	for n, t := range b.timers {
		if t.Interval == 0 {
			once++
		}
		b.drop(n, t)
	}
	return once
}

func (b *Book) drop(n name, t *Timer) {
	delete(b.timers, n)
	b.bytes -= t.size()
	heap.Remove(&b.heap, t.index)
}

func (t *Timer) jitter() int64 {
	if t.Jitter <= 0 {
		return 0
	}
	return rand.Int64N(int64(t.Jitter) + 1)
}

// timerHeap has the timer that is given out first in front.
type timerHeap []*Timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if h[i].fire != h[j].fire {
		return h[i].fire < h[j].fire
	}
	return h[i].Key < h[j].Key
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
