package dispatch

import (
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
	p.judge(int64(20 * time.Millisecond))
	if p.shown != int64(time.Second) {
		t.Errorf("after %d clients left within 20 ms their patience is %v; want 1s", leavingMany, time.Duration(p.shown))
	}
}
