package dispatch

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// Calls that merely wait are all begun again soon after their worker's death: one first, the one
// that was begun last, and then more and more of them.
func TestManyRerunsAreBegunInRounds(t *testing.T) {
	const calls = 60
	b := newBench(t, func(s *Settings) { s.RetrySafe = true })
	first := b.worker(1)
	for range calls {
		b.start(request())
		b.now++
		b.shard.Wake(b.now)
	}
	b.turn()
	begun := first.read(t, calls, b.now)
	if len(begun) != calls {
		t.Fatalf("%d calls were begun; want %d", len(begun), calls)
	}
	b.turn()
	youngest := b.shard.ports[0].calls[uint32(begun[calls-1].id)].arrived
	second := b.worker(2)
	first.SetState(WorkerGone)
	b.shard.Detach(first.Worker)

	running := map[uint64]int64{} // when each ends
	var rounds []int
	for step := range 300 {
		again := second.read(t, 1000, b.now)
		if len(rounds) == 0 && len(again) > 0 {
			if at := b.shard.ports[0].calls[uint32(again[0].id)].arrived; len(again) > 1 || at != youngest {
				t.Errorf("%d calls run first, one of them arrived at %d; want the one that did last, at %d", len(again), at, youngest)
			}
		}
		if len(again) > 0 {
			rounds = append(rounds, len(again))
		}
		for _, s := range again {
			running[s.id] = b.now + int64(time.Second)
		}
		for id, end := range running {
			if end <= b.now {
				second.write(link.Response, link.FlagLast|link.FlagDone, id, responsePayload(200, 0, "ok"))
				delete(running, id)
			}
		}
		binary.LittleEndian.PutUint64(second.Link.Memory()[link.HeaderTurns:], uint64(step)) // its loop turns
		b.now += int64(tick)
		b.shard.Wake(b.now)
		b.turn()
	}
	if want := []int{1, 2, 4, 8, 16, 29}; !slices.Equal(rounds, want) {
		t.Errorf("they were begun in rounds of %v; want %v", rounds, want)
	}
	b.want(observe.CallsRerun, calls)
	b.want(observe.CallsAnswered, calls)
}

// The next death has them begin with one again.
func TestRerunsBeginWithOneAfterEachDeath(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.RetrySafe = true })
	die := func(w *fakeWorker) {
		w.SetState(WorkerGone)
		b.shard.Detach(w.Worker)
	}
	last := b.worker(1)
	for id := 2; id < 4; id++ {
		for range 8 {
			b.start(request())
		}
		b.turn()
		last.read(t, 100, b.now)
		b.turn()
		next := b.worker(id)
		die(last)
		last = next
		for want := 1; want <= 4; want *= 2 {
			b.turn()
			if n := len(last.read(t, 100, b.now)); n != want {
				t.Errorf("after death %d: %d calls are begun at once; want %d", id-1, n, want)
			}
			b.now += int64(harmless)
			b.shard.Wake(b.now)
		}
		for _, s := range last.seen {
			last.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, "ok"))
		}
		b.turn()
		for _, s := range last.read(t, 100, b.now) {
			last.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, "ok"))
		}
		b.turn()
	}
}
