package main

import (
	"testing"
	"time"
)

// What comes behind the run's end is no goodput of the run.
func TestAnswersAreCountedWhenTheyCome(t *testing.T) {
	s := newSeries(300 * time.Millisecond)
	for _, after := range []time.Duration{0, 99 * time.Millisecond, 100 * time.Millisecond, 299 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		s.came(after)
	}
	if s[0].Good != 2 || s[1].Good != 1 || s[2].Good != 1 {
		t.Errorf("answers in the slices: %d, %d, %d; want 2, 1, 1", s[0].Good, s[1].Good, s[2].Good)
	}
}
