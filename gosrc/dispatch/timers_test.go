package dispatch

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/schedule"
)

const ms = int64(time.Millisecond)

// timerSet is a TIMER_SET payload.
func timerSet(key string, interval, first time.Duration, flags uint32) []byte {
	b := make([]byte, link.TimerSetFixedSize)
	binary.LittleEndian.PutUint64(b[link.TimerSetInterval:], uint64(interval))
	binary.LittleEndian.PutUint64(b[link.TimerSetFirst:], uint64(first))
	binary.LittleEndian.PutUint32(b[link.TimerSetFlags:], flags)
	binary.LittleEndian.PutUint32(b[link.TimerSetKeyLength:], uint32(len(key)))
	binary.LittleEndian.PutUint32(b[link.TimerSetDataLength:], 4)
	return append(append(b, key...), "data"...)
}

func (w *fakeWorker) setTimer(key string, interval, first time.Duration, flags uint32) {
	w.write(link.TimerSet, 0, 0, timerSet(key, interval, first, flags))
}

// fired is a TIMER record that a worker has claimed.
type fired struct {
	id     uint64
	key    string
	number uint64
}

func (f fired) String() string { return fmt.Sprintf("%s %d", f.key, f.number) }

// timers takes what is in the inbox and claims the timers among it; with claim false it
// leaves them unclaimed, as a loop that is blocked behind its inbox does.
func (w *fakeWorker) timers(t *testing.T, claim bool) (list []fired) {
	t.Helper()
	for {
		r, ok, err := w.end.Inbox.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if r.Type != link.Timer {
			continue
		}
		n := binary.LittleEndian.Uint32(r.Payload[link.TimerKeyLength:])
		slot, generation, _ := w.end.Slots.Of(r.Call)
		if claim && w.end.Slots.Claim(slot, generation, 1) {
			list = append(list, fired{r.Call, string(r.Payload[link.TimerFixedSize : link.TimerFixedSize+n]),
				binary.LittleEndian.Uint64(r.Payload[link.TimerNumber:])})
		}
	}
	w.end.Inbox.Release()
	return list
}

func (w *fakeWorker) timerDone(f fired, failed uint64) {
	b := binary.LittleEndian.AppendUint64(nil, f.id)
	w.write(link.TimerDone, 0, 0, binary.LittleEndian.AppendUint64(b, failed))
}

// at moves the clock and turns.
func (b *bench) at(now int64) {
	b.now = 1e9 + now
	b.shard.Wake(b.now)
	b.turn()
	s := b.dispatch.Timers()
	if due, sum := s.Due.Load(), s.Done.Load()+s.Missed.Load()+s.Skipped.Load()+uint64(s.Open.Load()); due != sum {
		b.t.Fatalf("%d times were due; done, missed, skipped and open are %d", due, sum)
	}
}

func (b *bench) wantTimers(done, missed, skipped uint64) {
	b.t.Helper()
	s := b.dispatch.Timers()
	got := [...]uint64{s.Done.Load(), s.Missed.Load(), s.Skipped.Load()}
	if want := [...]uint64{done, missed, skipped}; got != want {
		b.t.Errorf("done, missed, skipped = %v; want %v", got, want)
	}
}

func wantFired(t *testing.T, got []fired, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != "["+strings.Join(want, " ")+"]" {
		t.Errorf("the worker began %v; want %v", got, want)
	}
}

func TestTimerRunsOnOneWorker(t *testing.T) {
	b := newBench(t, nil)
	v, w := b.worker(1), b.worker(2)
	v.setTimer("k", 200*time.Millisecond, 200*time.Millisecond, 0)
	w.setTimer("k", 200*time.Millisecond, 200*time.Millisecond, 0)
	b.at(0)
	if limit, _ := b.shard.Arm(false); limit < 200*time.Millisecond || limit > 201*time.Millisecond {
		t.Errorf("the loop may sleep for %v; want until the timer is due", limit)
	}
	b.shard.Wake(b.now)
	for n := range int64(10) {
		b.at((n + 1) * 200 * ms)
		begun, other := v.timers(t, true), w.timers(t, true)
		if len(begun)+len(other) != 1 {
			t.Fatalf("due time %d began %v and %v; want it once", n+1, begun, other)
		}
		for _, f := range begun {
			v.timerDone(f, 0)
		}
		for _, f := range other {
			w.timerDone(f, 1)
		}
		b.at((n+1)*200*ms + 1)
	}
	b.wantTimers(10, 0, 0)
	if failed := b.dispatch.Timers().Failed.Load(); failed == 0 || failed == 10 {
		t.Errorf("%d of 10 were run by the second worker; want them shared", failed)
	}
	if v.Held() != 0 || w.Held() != 0 {
		t.Errorf("the workers hold %d and %d slots; want none", v.Held(), w.Held())
	}
}

func TestTimerRunsOnEveryWorker(t *testing.T) {
	b := newBench(t, nil)
	v, w, stranger := b.worker(1), b.worker(2), b.worker(3)
	v.setTimer("k", time.Second, time.Second, link.TimerAll)
	w.setTimer("k", time.Second, time.Second, link.TimerAll)
	b.at(0)
	b.at(1000 * ms)
	wantFired(t, v.timers(t, true), "k 1")
	wantFired(t, w.timers(t, true), "k 1")
	wantFired(t, stranger.timers(t, true))
	b.at(2000 * ms)
	b.wantTimers(0, 0, 2) // both still run
	b.shard.Detach(v.Worker)
	b.at(2001 * ms)
	b.wantTimers(0, 1, 2)
}

func TestTimerOfAWorkerThatDied(t *testing.T) {
	b := newBench(t, nil)
	v, w := b.worker(1), b.worker(2)
	for _, x := range []*fakeWorker{v, w} {
		x.setTimer("k", time.Second, time.Second, 0)
	}
	b.at(0)
	b.at(1000 * ms)
	first, second := v, w
	begun := v.timers(t, true)
	if len(begun) == 0 {
		first, second = w, v
		begun = w.timers(t, true)
	}
	wantFired(t, begun, "k 1")
	b.shard.Detach(first.Worker)
	b.at(1001 * ms)
	wantFired(t, second.timers(t, true)) // it may have done half of it: not again
	b.wantTimers(0, 1, 0)
	// The next one, offered and not begun, moves.
	third := b.worker(3)
	third.setTimer("k", time.Second, time.Second, 0)
	second.SetState(WorkerDraining)
	b.at(2000 * ms)
	b.shard.Detach(third.Worker)
	second.SetState(WorkerReady)
	b.at(2001 * ms)
	wantFired(t, second.timers(t, true), "k 2")
}

func TestTimerLeavesABlockedWorker(t *testing.T) {
	b := newBench(t, nil)
	v, w := b.worker(1), b.worker(2)
	v.setTimer("k", time.Second, time.Second, 0)
	b.at(0)
	b.at(1000 * ms) // only v runs it
	w.setTimer("k", time.Second, time.Second, 0)
	b.at(1010 * ms)
	wantFired(t, w.timers(t, true))
	b.at(1021 * ms)
	wantFired(t, w.timers(t, true), "k 1")
	wantFired(t, v.timers(t, true)) // too late: it was taken back
}

func TestTimerWithoutWorkers(t *testing.T) {
	b := newBench(t, nil)
	v := b.worker(1)
	v.setTimer("k", time.Second, time.Second, 0)
	v.setTimer("once", 0, time.Second, link.TimerAny)
	v.setTimer("own", 0, time.Second, link.TimerLocal)
	b.at(0)
	b.shard.Detach(v.Worker)
	b.at(1000 * ms)
	b.at(2000 * ms)
	b.at(3500 * ms)
	b.wantTimers(0, 2, 0)
	w := b.worker(2)
	w.setTimer("k", time.Second, time.Second, 0)
	w.write(link.Ready, 0, 0, nil)
	b.at(3501 * ms)
	got := w.timers(t, true)
	slices.SortFunc(got, func(a, b fired) int { return strings.Compare(a.key, b.key) })
	wantFired(t, got, "k 3", "once 1")
	// Code without the timer takes over.
	b.shard.Detach(w.Worker)
	x := b.worker(3)
	x.write(link.Ready, 0, 0, nil)
	b.at(9000 * ms)
	b.at(9001 * ms)
	if n := b.dispatch.Timers().Set.Load(); n != 0 {
		t.Errorf("%d timers are left; want none", n)
	}
}

func TestTimerIsLateByAnInterval(t *testing.T) {
	b := newBench(t, nil)
	v := b.worker(1)
	v.setTimer("k", time.Second, time.Second, 0)
	b.at(0)
	for n := range int64(5) {
		b.at((n + 1) * 1000 * ms)
	}
	b.wantTimers(0, 4, 0)
	wantFired(t, v.timers(t, true), "k 5")
}

func TestTimerOverlap(t *testing.T) {
	for _, flags := range []uint32{0, link.TimerOverlap} {
		b := newBench(t, nil)
		v := b.worker(1)
		v.setTimer("k", time.Second, time.Second, flags)
		b.at(0)
		var begun []fired
		for n := range int64(3) {
			b.at((n + 1) * 1000 * ms)
			begun = append(begun, v.timers(t, true)...)
		}
		if flags == 0 {
			wantFired(t, begun, "k 1")
			b.wantTimers(0, 0, 2)
		} else {
			wantFired(t, begun, "k 1", "k 2", "k 3")
		}
		v.timerDone(begun[0], 0)
		b.at(4000 * ms)
		wantFired(t, v.timers(t, true), "k 4")
	}
}

func TestTimerCancelAndReplace(t *testing.T) {
	b := newBench(t, nil)
	v := b.worker(1)
	cancel := func(key string) {
		p := binary.LittleEndian.AppendUint32(make([]byte, 4), uint32(len(key)))
		v.write(link.TimerCancel, 0, 0, append(p, key...))
	}
	v.setTimer("k", time.Second, time.Second, 0)
	v.setTimer("once", 0, time.Second, link.TimerAny)
	v.setTimer("changed", time.Second, time.Second, 0)
	b.at(0)
	b.at(1000 * ms)
	cancel("k")
	cancel("once")
	cancel("unknown")
	v.setTimer("changed", 3*time.Second, 3*time.Second, 0)
	b.at(1001 * ms)
	wantFired(t, v.timers(t, true))
	b.wantTimers(0, 0, 3)
	b.at(3999 * ms)
	wantFired(t, v.timers(t, true))
	b.at(4001 * ms)
	wantFired(t, v.timers(t, true), "changed 1")
}

func TestTimersOfAWorkerThatDrains(t *testing.T) {
	b := newBench(t, nil)
	v := b.worker(1)
	v.setTimer("a", time.Second, time.Second, 0)
	v.setTimer("own", time.Second, time.Second, link.TimerLocal)
	v.setTimer("b", 0, 2*time.Second, link.TimerAny)
	b.at(0)
	b.at(1000 * ms)
	begun := v.timers(t, true)
	b.at(1001 * ms)
	v.SetState(WorkerDraining)
	b.shard.DrainWorker(v.Worker)
	b.at(2000 * ms)
	wantFired(t, v.timers(t, true))
	if v.Held() != 2 {
		t.Errorf("the worker holds %d; want the two that run", v.Held())
	}
	w := b.worker(2)
	b.at(2001 * ms)
	wantFired(t, w.timers(t, true), "b 1")
	for _, f := range begun {
		v.timerDone(f, 0)
	}
	b.at(2002 * ms)
	if v.Held() != 0 {
		t.Errorf("the worker holds %d; want none", v.Held())
	}
}

func TestTimersEndWithTheServer(t *testing.T) {
	var lines []string
	b := newBench(t, func(s *Settings) { s.Log = func(_, _, m string) { lines = append(lines, m) } })
	v := b.worker(1)
	v.setTimer("k", time.Second, time.Second, 0)
	v.setTimer("once", 0, time.Minute, link.TimerAny)
	b.at(0)
	b.dispatch.Drain()
	b.at(1000 * ms)
	wantFired(t, v.timers(t, true))
	if limit, _ := b.shard.Arm(false); limit != 0 && limit != watchDrain {
		t.Errorf("the loop sleeps for %v; want no timer to wake it", limit)
	}
	if got := strings.Join(lines, "\n"); !strings.Contains(got, "1 delayed call(s) will not be run") {
		t.Errorf("the log has %q; want the delayed call", got)
	}
}

func TestTimersOfAMadWorker(t *testing.T) {
	short := timerSet("key", time.Second, 0, 0)
	binary.LittleEndian.PutUint32(short[link.TimerSetKeyLength:], 1<<31)
	for name, record := range map[string]struct {
		kind    uint16
		payload []byte
	}{
		"set, short":          {link.TimerSet, make([]byte, 8)},
		"set, key too long":   {link.TimerSet, short},
		"cancel, short":       {link.TimerCancel, nil},
		"cancel, key missing": {link.TimerCancel, []byte{0, 0, 0, 0, 99, 0, 0, 0}},
		"done, short":         {link.TimerDone, make([]byte, 8)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.worker(1).write(record.kind, 0, 0, record.payload)
			b.turn()
			if len(b.corrupt) != 1 {
				t.Error("it was believed")
			}
		})
	}
	t.Run("done, not claimed", func(t *testing.T) {
		b := newBench(t, nil)
		v := b.worker(1)
		v.setTimer("k", 0, 0, 0)
		b.at(0)
		b.at(1)
		for id := range b.shard.ports[0].firings {
			v.timerDone(fired{id: id}, 0)
		}
		b.turn()
		if len(b.corrupt) != 1 {
			t.Error("it was believed")
		}
	})
	t.Run("refused", func(t *testing.T) {
		b := newBench(t, nil)
		v := b.worker(1)
		v.setTimer("k", 1, 1, 0)
		v.timerDone(fired{id: 77}, 0)
		b.turn()
		if got := b.dispatch.Timers().Refused.Load(); got != 1 || len(b.corrupt) != 0 {
			t.Errorf("%d refused, %v; want 1 and no violation", got, b.corrupt)
		}
	})
}

// Workers come, block, drain and die at random: no due time is begun twice, and each one
// is accounted for.
func TestTimersNeverRunTwice(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 1))
		b := newBench(t, nil)
		type place struct {
			key    string
			number uint64
			worker int
		}
		begun := map[place]bool{}
		var live []*fakeWorker
		running := map[*fakeWorker][]fired{}
		id := 0
		b.at(0)
		for now := int64(0); now < 5000; now += random.Int64N(30) {
			b.at(now * ms)
			if len(live) < 4 && random.IntN(10) == 0 {
				id++
				w := b.worker(id)
				w.setTimer("one", 200*time.Millisecond, 200*time.Millisecond, 0)
				w.setTimer("over", 150*time.Millisecond, 150*time.Millisecond, link.TimerOverlap)
				w.setTimer("all", 300*time.Millisecond, 300*time.Millisecond, link.TimerAll)
				w.setTimer(fmt.Sprint("once", id), 0, time.Second, link.TimerAny)
				live = append(live, w)
			}
			for i, w := range live {
				if random.IntN(5) != 0 {
					for _, f := range w.timers(t, true) {
						at := place{f.key, f.number, 0}
						if f.key == "all" {
							at.worker = w.ID
						}
						if begun[at] {
							t.Fatalf("seed %d: %v began twice", seed, f)
						}
						begun[at] = true
						running[w] = append(running[w], f)
					}
				}
				if n := len(running[w]); n > 0 && random.IntN(3) == 0 {
					w.timerDone(running[w][n-1], 0)
					running[w] = running[w][:n-1]
				}
				if random.IntN(40) == 0 {
					if w.State() == WorkerReady && random.IntN(2) == 0 {
						w.SetState(WorkerDraining)
						b.shard.DrainWorker(w.Worker)
						break
					}
					w.SetState(WorkerGone)
					b.shard.Detach(w.Worker)
					live = slices.Delete(live, i, i+1)
					break
				}
			}
		}
		for _, w := range live {
			b.shard.Detach(w.Worker)
		}
		b.at(6000 * ms)
		if len(b.corrupt) != 0 {
			t.Fatal(b.corrupt)
		}
	}
}

// A worker that went mad with a due time in its hands costs that due time, and the loop nothing.
func TestAMadWorkerWithADueTime(t *testing.T) {
	b := newBench(t, nil)
	mad := b.worker(1)
	mad.setTimer("k", time.Second, time.Second, 0)
	b.at(0)
	b.at(1000 * ms)
	p := b.shard.ports[0]
	if len(p.firings) != 1 {
		t.Fatalf("%d due times were offered; want one", len(p.firings))
	}
	slots := mad.Link.Memory()[link.HeaderSize:]
	for i := range slots[:len(slots)/64] {
		slots[i] = 0xff
	}
	b.at(1001 * ms)
	if len(b.corrupt) == 0 {
		t.Fatal("the worker was not found mad")
	}
	b.shard.Detach(mad.Worker)
	for i := range 5 {
		b.at((1002 + int64(i)) * ms)
	}
	if n := len(b.shard.timers.offered); n != 0 {
		t.Errorf("%d due times are still looked at; want none", n)
	}
}

// A due time of a timer that new code does not have ends with it, wherever it is.
func TestADueTimeThatNewCodeDoesNotHave(t *testing.T) {
	for _, waits := range []bool{true, false} {
		b := newBench(t, nil)
		old := b.worker(1)
		old.setTimer("old", time.Second, time.Second, 0)
		b.at(0)
		b.worker(2)
		b.at(900 * ms)
		if waits {
			old.SetState(WorkerDraining)
		}
		b.at(1000 * ms) // waits, or is offered to the old one, whose loop is busy
		old.SetState(WorkerDraining)
		b.shard.DrainWorker(old.Worker)
		b.at(1100 * ms)
		b.shard.Detach(old.Worker)
		b.at(1200 * ms)
		if n := b.dispatch.Timers().Open.Load(); n != 0 {
			t.Errorf("waits %v: %d due times are left; want none", waits, n)
		}
		if limit, _ := b.shard.Arm(false); limit != 0 {
			t.Errorf("waits %v: the loop sleeps for %v; want for as long as nothing happens", waits, limit)
		}
		b.wantTimers(0, 0, 1)
	}
}

// Delayed calls that are due and that no worker has begun count as those that are not due, and those that find no room
// cost a turn of the loop nothing.
func TestDueTimesThatWaitAreBounded(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	const many = schedule.MaxTimers + 100
	for i := range many {
		w.setTimer(fmt.Sprintf("k%d", i), 0, 0, link.TimerAny)
		if i%50 == 0 {
			b.at(int64(i) * ms)
		}
	}
	b.at(many * ms)
	if n := b.dispatch.Timers().Open.Load(); n > schedule.MaxTimers {
		t.Errorf("%d due times are open; want %d at most", n, schedule.MaxTimers)
	}
	if n := b.dispatch.Timers().Refused.Load(); n < 50 {
		t.Errorf("%d timers were refused; want those that are too many", n)
	}
	run := 0
	for now := int64(many); b.dispatch.Timers().Open.Load() > 0; now++ {
		begun := w.timers(t, true)
		if len(begun) == 0 && now > many+1000 {
			t.Fatal("due times wait for ever")
		}
		for _, f := range begun {
			w.timerDone(f, 0)
			run++
		}
		b.at(now * ms)
	}
	if run < schedule.MaxTimers-100 {
		t.Errorf("%d were run; want all that were set", run)
	}
	w.setTimer("another", 0, time.Hour, link.TimerAny)
	b.at(2 * many * ms)
	if n := b.shard.timers.book.Len(); n != 1 {
		t.Errorf("%d timers are set; want another: there is room again", n)
	}
}

// A worker says once that it is over.
func TestAWorkerIsOverOnce(t *testing.T) {
	for _, kind := range []uint16{link.Stopped, link.StartFailed} {
		b := newBench(t, nil)
		w := b.worker(1)
		w.write(kind, 0, 0, make([]byte, 8))
		b.turn()
		if len(b.corrupt) != 0 {
			t.Fatalf("%v", b.corrupt)
		}
		w.write(kind, 0, 0, make([]byte, 8))
		b.turn()
		if len(b.corrupt) != 1 {
			t.Errorf("a second record %d is taken; want a violation", kind)
		}
	}
}
