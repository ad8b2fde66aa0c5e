package dispatch

import (
	"encoding/binary"
	"testing"
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// pooledWorker is a worker that runs n calls at a time.
func (b *bench) pooledWorker(id int, n byte) *fakeWorker {
	w := b.worker(id)
	w.SetState(WorkerReady)
	w.write(link.Ready, 0, 0, []byte{n, 0, 0, 0, 0, 0, 0, 0})
	b.turn()
	return w
}

func TestAPoolGetsAsManyCallsAsItHasThreads(t *testing.T) {
	b := newBench(t, nil)
	w := b.pooledWorker(1, 3)
	for range 10 {
		b.start(request())
	}
	b.turn()
	begun := w.read(t, 100, b.now)
	if len(begun) != 3 {
		t.Fatalf("got %d calls; want 3", len(begun))
	}
	// Threads that are in their calls for long say nothing about the worker: its window stays what it was.
	for range 200 {
		binary.LittleEndian.PutUint64(w.Link.Memory()[link.HeaderTurns:], w.Link.Turns()+1) // its loop answers when it is rung
		b.tick(10 * time.Millisecond)
	}
	b.want(observe.WorkersStalled, 0)
	b.want(observe.CallsTakenBack, 0)
	for i := range 2 {
		w.write(link.Response, link.FlagLast|link.FlagDone, begun[i].id, responsePayload(200, 0, "x"))
	}
	b.turn()
	if got := len(w.read(t, 100, b.now)); got != 2 {
		t.Errorf("got %d calls for two free threads; want 2", got)
	}
}

func TestAPoolWithoutThreadsLeavesCallsToOthers(t *testing.T) {
	b := newBench(t, nil)
	busy, free := b.pooledWorker(1, 1), b.pooledWorker(2, 4)
	for range 5 {
		b.start(request())
	}
	b.turn()
	if got, other := len(busy.read(t, 100, b.now)), len(free.read(t, 100, b.now)); got != 1 || other != 4 {
		t.Errorf("got %d and %d calls; want 1 and 4", got, other)
	}
}

func TestAnOfferInExcessOfAPoolIsNoStall(t *testing.T) {
	b := newBench(t, nil)
	w := b.pooledWorker(1, 4)
	for range 4 {
		b.start(request())
	}
	b.turn()
	if got := len(w.read(t, 3, b.now)); got != 3 {
		t.Fatalf("got %d calls; want 3", got)
	}
	w.setThreads(3) // as if another loop had offered at the same time
	for range 60 {
		binary.LittleEndian.PutUint64(w.Link.Memory()[link.HeaderTurns:], w.Link.Turns()+1)
		b.tick(10 * time.Millisecond)
	}
	for range 20 { // less than a worker has to answer that it lives
		b.tick(10 * time.Millisecond)
	}
	b.want(observe.WorkersStalled, 0)
}

func TestATimerTakesNoThreadOfAPool(t *testing.T) {
	b := newBench(t, nil)
	w := b.pooledWorker(1, 2)
	w.setTimer("k", time.Minute, 0, 0)
	b.turn()
	b.turn()
	wantFired(t, w.timers(t, true), "k 1") // it runs for long, in a thread of its own
	b.start(request())
	b.turn()
	w.read(t, 100, b.now)
	b.turn()
	if b.shard.ports[0].threadsBusy() {
		t.Error("one of two threads is in a call, and both count as busy")
	}
	b.start(request())
	b.turn()
	if got := len(w.read(t, 100, b.now)); got != 1 {
		t.Errorf("got %d calls for the free thread; want 1", got)
	}
	if w.Held() != 3 {
		t.Errorf("the worker holds %d; want two calls and the timer, which a drain waits for", w.Held())
	}
}

func TestAThreadThatIsFreedIsSharedWithOtherLoops(t *testing.T) {
	var nudged []int
	b := newBench(t, func(s *Settings) { s.Nudge = func(loop int) { nudged = append(nudged, loop) } })
	b.dispatch.shards = append(b.dispatch.shards, nil) // another loop, of which only this much is seen here
	w := b.pooledWorker(1, 1)
	answer := func() {
		t.Helper()
		begun := w.read(t, 100, b.now)
		if len(begun) != 1 {
			t.Fatalf("got %d calls; want 1", len(begun))
		}
		w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 0, "x"))
		b.turn()
	}
	b.start(request())
	b.turn()
	answer()
	if len(nudged) != 0 {
		t.Errorf("loops %v were woken though nothing waits there", nudged)
	}
	b.dispatch.waiting.Add(1) // in the other loop
	b.start(request())
	b.start(request())
	b.turn()
	answer()
	if len(nudged) != 0 {
		t.Errorf("loops %v were woken for a thread that was needed here", nudged)
	}
	answer()
	if len(nudged) != 1 || nudged[0] != 1 {
		t.Errorf("loops %v were woken; want the other one, once", nudged)
	}
	b.dispatch.waiting.Add(-1)
}
