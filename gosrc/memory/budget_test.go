package memory

import (
	"runtime/debug"
	"testing"
	"time"
)

func TestBudget(t *testing.T) {
	b := NewBudget(800)
	for _, step := range []struct {
		add                 int
		over, roomy, scarce bool
	}{
		{600, false, true, false},
		{100, false, true, true},
		{100, false, false, true},
		{1, true, false, true},
		{-101, false, true, true},
		{-700, false, true, false},
	} {
		b.Add(step.add)
		if b.Over() != step.over || b.Roomy() != step.roomy || b.Scarce() != step.scarce {
			t.Errorf("after %+d: over %v, roomy %v, scarce %v with %d of 800; want %v, %v, %v",
				step.add, b.Over(), b.Roomy(), b.Scarce(), b.Used(), step.over, step.roomy, step.scarce)
		}
	}
}

func TestWithoutBound(t *testing.T) {
	for name, b := range map[string]*Budget{"nil": nil, "0": NewBudget(0)} {
		b.Add(1 << 40)
		if b.Over() || !b.Roomy() || b.Scarce() {
			t.Errorf("%s: over %v, roomy %v, scarce %v; want never over", name, b.Over(), b.Roomy(), b.Scarce())
		}
	}
}

// percent is the collector's GOGC once it is as wanted, or after a while.
func percent(want int) int {
	var got int
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		collector.mu.Lock()
		got = debug.SetGCPercent(100)
		debug.SetGCPercent(got)
		collector.mu.Unlock()
		if got == want {
			break
		}
	}
	return got
}

func TestThrift(t *testing.T) {
	usual := percent(100)
	first, second := NewBudget(800).Thrifty(), NewBudget(800).Thrifty()
	for _, step := range []struct {
		budget    *Budget
		add, want int
	}{
		{first, 199, usual},
		{first, 1, percents[1]},
		{second, 2000, percents[3]},
		{first, 200, percents[3]},
		{first, -400, percents[3]},
		{second, -1399, percents[3]}, // 601: still its level
		{second, -102, percents[2]},  // 499
		{second, -300, usual},        // 199 is below the second level's bounds, and below the first level
	} {
		step.budget.Add(step.add)
		if got := percent(step.want); got != step.want {
			t.Errorf("after %+d: GOGC is %d; want %d", step.add, got, step.want)
		}
	}
}
