package dispatch

import (
	"slices"
	"testing"
	"time"
)

// When clients begin to give up the oldest waiting calls are those that are lost next: what is
// begun until that is known is lost as well.
func TestPatienceIsLearnedAtOnce(t *testing.T) {
	p := patience{begun: 40}
	for range leavingMany {
		p.gaveUp(int64(time.Second))
	}
	p.judge(int64(20*time.Millisecond), &queue{})
	if p.shown != int64(time.Second) {
		t.Errorf("after %d clients left within 20 ms their patience is %v; want 1s", leavingMany, time.Duration(p.shown))
	}
}

// Who hangs up after a moment, whatever happens, must not have the others wait until they are refused.
func TestThoseWhoLeaveEarlyDoNotReorderTheQueue(t *testing.T) {
	for _, wait := range []time.Duration{5 * time.Millisecond, 300 * time.Millisecond} {
		s := simulate(t, 1, 0)
		const patient, leaving, seconds = 512, 20, 15
		for range patient {
			s.arrive(s.now, earlyKind, true)
		}
		s.patience = wait
		for i := range int64(seconds * leaving) {
			s.arrive(s.now+i*int64(time.Second)/leaving, earlyKind, false)
		}
		s.patience = 0
		s.run(seconds * time.Second)
		slices.Sort(s.took)
		if slowest := s.took[len(s.took)-1]; s.refused > 0 || slowest > 5*time.Second {
			t.Errorf("%d calls a second whose clients leave after %v: %d others were refused, and the slowest took %v; want none, and less than 5 s",
				leaving, wait, s.refused, slowest)
		}
	}
}
