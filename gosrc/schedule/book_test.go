package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const second = int64(time.Second)

func set(t *testing.T, b *Book, worker int, s Spec, now int64) *Timer {
	t.Helper()
	if s.Key == "" {
		s.Key = "k"
	}
	old, err := b.Set(worker, s, now)
	if err != nil {
		t.Fatal(err)
	}
	return old
}

// popped is what Pop gives at a time, as text: number@seconds+passed.
func popped(b *Book, now int64) string {
	var list []string
	for {
		d, ok := b.Pop(now)
		if !ok {
			return strings.Join(list, " ")
		}
		list = append(list, fmt.Sprintf("%s %d@%g+%d", d.Timer.Key, d.Number, float64(d.At)/1e9, d.Passed))
	}
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q; want %q", what, got, want)
	}
}

func TestDueTimes(t *testing.T) {
	b := NewBook()
	set(t, b, 1, Spec{Interval: time.Second, First: time.Second}, 0)
	want(t, "early", popped(b, second-1), "")
	want(t, "on time", popped(b, second), "k 1@1+0")
	want(t, "a little late", popped(b, 2*second+second/2), "k 2@2+0")
	want(t, "long asleep", popped(b, 6*second), "k 6@6+3")
	want(t, "after it", popped(b, 7*second), "k 7@7+0")
	if got := b.Next(); got != 8*second {
		t.Errorf("Next = %d; want %d", got, 8*second)
	}
}

func TestOnce(t *testing.T) {
	b := NewBook()
	set(t, b, 1, Spec{First: time.Second, Data: []byte("x")}, 0)
	timer := b.heap[0]
	want(t, "due", popped(b, 9*second), "k 1@1+0")
	want(t, "once", popped(b, 99*second), "")
	if b.Len() != 0 || b.taken != 1 || b.bytes != timer.size() || b.Next() != 0 {
		t.Errorf("%d timers, %d taken, %d bytes; want it to count until it is released", b.Len(), b.taken, b.bytes)
	}
	for range 2 {
		b.Release(timer)
		if b.taken != 0 || b.bytes != 0 {
			t.Errorf("%d taken, %d bytes are left; want none", b.taken, b.bytes)
		}
	}
}

func TestSettingItAgainKeepsItsDueTimes(t *testing.T) {
	b := NewBook()
	every := Spec{Interval: time.Second, First: time.Second}
	set(t, b, 1, every, 0)
	if old := set(t, b, 2, every, second/2); old != nil {
		t.Errorf("the timer was replaced by itself")
	}
	want(t, "of the first", popped(b, second), "k 1@1+0")
	other := every
	other.Interval = 3 * time.Second
	if old := set(t, b, 2, other, second); old == nil || !old.Runs(1) {
		t.Errorf("got %v replaced; want the timer of before", old)
	}
	d, _ := b.Pop(2 * second)
	if d.Timer.Runs(1) || !d.Timer.Runs(2) {
		t.Error("a worker that has not set the new one runs it")
	}
}

func TestWorkersComeAndGo(t *testing.T) {
	b := NewBook()
	set(t, b, 1, Spec{Interval: time.Second, First: time.Second}, 0)
	set(t, b, 1, Spec{Key: "once", First: 5 * time.Second, Any: true}, 0)
	set(t, b, 1, Spec{Key: "own", Interval: time.Second, First: time.Second, Local: true}, 0)
	set(t, b, 2, Spec{Key: "own", Interval: time.Second, First: time.Second, Local: true}, 0)
	if b.Len() != 4 {
		t.Fatalf("%d timers; want 4: local keys are each worker's own", b.Len())
	}
	b.Gone(1, false)
	want(t, "nobody runs k", popped(b, second), "k 1@1+0 own 1@1+0")
	set(t, b, 3, Spec{Interval: time.Second, First: time.Second}, second/2)
	b.Ready()
	want(t, "another took its place", popped(b, 2*second), "k 2@2+0 own 2@2+0")
	b.Gone(3, false)
	b.Ready() // of code that does not have it
	b.Gone(2, false)
	want(t, "only once is left", popped(b, 9*second), "once 1@5+0")
}

// Where workers are replaced one by one the new ones are ready before the old ones are gone.
func TestATimerThatNewCodeDoesNotHave(t *testing.T) {
	b := NewBook()
	for _, worker := range []int{1, 2} {
		set(t, b, worker, Spec{Interval: time.Second, First: time.Second}, 0)
		set(t, b, worker, Spec{Key: "once", First: 5 * time.Second, Any: true}, 0)
	}
	b.Ready() // of a third one
	b.Gone(1, true)
	want(t, "the second has it", popped(b, second), "k 1@1+0")
	b.Ready()
	b.Gone(2, true)
	want(t, "nobody has it", popped(b, 9*second), "once 1@5+0")
}

func TestCancelAndClear(t *testing.T) {
	b := NewBook()
	set(t, b, 1, Spec{Interval: time.Second}, 0)
	set(t, b, 1, Spec{Key: "a", First: time.Second}, 0)
	set(t, b, 1, Spec{Key: "b", First: time.Second, Local: true}, 0)
	if b.Cancel(1, "missing", false) != nil || b.Cancel(2, "b", true) != nil {
		t.Error("a timer that is not there was cancelled")
	}
	if b.Cancel(2, "a", false) == nil {
		t.Error("a shared timer cannot be cancelled by another worker; it should")
	}
	if got := b.Clear(); got != 1 || b.Len() != 0 || b.bytes != 0 {
		t.Errorf("Clear = %d, %d timers and %d bytes left; want 1, 0 and 0", got, b.Len(), b.bytes)
	}
}

func TestJitter(t *testing.T) {
	b := NewBook()
	set(t, b, 1, Spec{Interval: time.Second, First: time.Second, Jitter: time.Second / 2}, 0)
	for n := int64(1); n < 100; n++ {
		at := b.Next()
		if at < n*second || at > n*second+second/2 {
			t.Fatalf("due time %d comes at %d; want at most half a second after it", n, at)
		}
		want(t, "jitter", popped(b, at), fmt.Sprintf("k %d@%d+0", n, n))
	}
}

func TestLimits(t *testing.T) {
	b := NewBook()
	for _, s := range []Spec{
		{},
		{Key: strings.Repeat("k", MaxKey+1)},
		{Key: "k", Data: make([]byte, MaxData+1)},
		{Key: "k", Interval: 1},
		{Key: "k", Interval: -1},
		{Key: "k", Interval: MaxDelay + 1},
		{Key: "k", First: -1},
		{Key: "k", First: MaxDelay + 1},
		{Key: "k", Jitter: -1},
	} {
		if _, err := b.Set(1, s, 0); err == nil {
			t.Errorf("%.40v was set; want an error", s)
		}
	}
	for i := range MaxTimers {
		set(t, b, 1, Spec{Key: fmt.Sprint(i)}, 0)
	}
	if _, err := b.Set(1, Spec{Key: "one more"}, 0); err == nil {
		t.Error("more timers than there may be")
	}
	set(t, b, 1, Spec{Key: "7", First: time.Second}, 0) // in the place of another
	b.Clear()
	var err error
	for i := 0; err == nil; i++ {
		if _, err = b.Set(1, Spec{Key: fmt.Sprint(i), Data: make([]byte, MaxData)}, 0); i*MaxData > MaxBytes {
			t.Fatal("the arguments' memory has no bound")
		}
	}
}
