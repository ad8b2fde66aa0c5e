package memory

import "testing"

func TestBudget(t *testing.T) {
	b := NewBudget(800)
	for _, step := range []struct {
		add         int
		over, roomy bool
	}{
		{700, false, true},
		{100, false, false},
		{1, true, false},
		{-101, false, true},
		{-700, false, true},
	} {
		b.Add(step.add)
		if b.Over() != step.over || b.Roomy() != step.roomy {
			t.Errorf("after %+d: over %v, roomy %v with %d of 800; want %v, %v", step.add, b.Over(), b.Roomy(), b.Used(), step.over, step.roomy)
		}
	}
}

func TestWithoutBound(t *testing.T) {
	for name, b := range map[string]*Budget{"nil": nil, "0": NewBudget(0)} {
		b.Add(1 << 40)
		if b.Over() || !b.Roomy() {
			t.Errorf("%s: over %v, roomy %v; want never over", name, b.Over(), b.Roomy())
		}
	}
}
