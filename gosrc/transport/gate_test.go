package transport

import (
	"fmt"
	"testing"
	"time"

	"spvn/gosrc/observe"
)

func TestGateCountsConnections(t *testing.T) {
	g := NewGate(2, 0)
	for i, want := range []bool{true, true, false} {
		ok, reason := g.enter("1.2.3.4", 1)
		if ok != want || !ok && reason != observe.ConnectionsOverAddress {
			t.Errorf("connection %d: got %v, %v; want %v", i+1, ok, reason, want)
		}
	}
	if ok, _ := g.enter("1.2.3.5", 1); !ok {
		t.Error("another address was refused; want its own count")
	}
	g.leave("1.2.3.4", 2)
	if ok, _ := g.enter("1.2.3.4", 2); !ok {
		t.Error("a connection was refused after one had closed; want it let in")
	}
}

func TestGateRate(t *testing.T) {
	g := NewGate(0, 2)
	second := int64(time.Second)
	for i, step := range []struct {
		at   int64
		want bool
	}{{0, true}, {0, true}, {0, false}, {second / 4, false}, {second / 2, true}, {second/2 + 1, false}, {10 * second, true}, {10 * second, true}, {10 * second, false}} {
		ok, reason := g.enter("::1", step.at)
		if ok != step.want || !ok && reason != observe.ConnectionsOverRate {
			t.Errorf("step %d at %v: got %v, %v; want %v", i, time.Duration(step.at), ok, reason, step.want)
		}
		if ok {
			g.leave("::1", step.at)
		}
	}
}

func TestGateForgets(t *testing.T) {
	g := NewGate(5, 1000)
	for i := range 10 * gateSweep {
		now := int64(i) * int64(time.Millisecond)
		address := fmt.Sprint(i)
		if ok, _ := g.enter(address, now); !ok {
			t.Fatalf("address %d was refused", i)
		}
		g.leave(address, now)
	}
	if n := len(g.addresses); n > 2*gateSweep {
		t.Errorf("%d addresses are remembered; want those of the last moments only", n)
	}
	if g := NewGate(0, 0); g != nil {
		t.Error("a gate without bounds; want nil")
	}
}
