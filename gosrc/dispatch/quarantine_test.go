package dispatch

import (
	"fmt"
	"testing"
	"time"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

func TestQuarantine(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	b.dispatch.Quarantine.Add("GET", "/x", b.now, time.Minute)
	a := b.start(request())
	a.said(t, "fail 503")
	for _, other := range []struct{ method, path string }{{"POST", "/x"}, {"GET", "/y"}} {
		r := request()
		r.Method, r.Path = []byte(other.method), []byte(other.path)
		b.start(r)
	}
	b.turn()
	if got := len(w.read(t, 10, b.now)); got != 2 {
		t.Errorf("%d other calls began; want 2", got)
	}
	b.now += int64(time.Minute)
	b.shard.Wake(b.now)
	b.start(request())
	b.turn()
	if got := len(w.read(t, 10, b.now)); got != 1 {
		t.Error("it is kept out for longer than asked")
	}
	b.turn()
	b.want(observe.RefusedQuarantine, 1)
}

func TestQuarantineIsBounded(t *testing.T) {
	var q Quarantine
	for i := range maxQuarantined {
		if !q.Add("GET", fmt.Sprint(i), 0, time.Second) {
			t.Fatalf("number %d was refused", i)
		}
	}
	if q.Add("GET", "one more", 0, time.Second) || !q.Add("GET", "7", 0, 2*time.Second) {
		t.Error("the bound is not kept, or holds for known ones too")
	}
	if !q.Add("GET", "later", int64(time.Second), time.Second) || len(q.until) != 2 {
		t.Errorf("%d are kept out; want 2: the others' time is over", len(q.until))
	}
}

func TestBlame(t *testing.T) {
	first, again := LostCall{Method: "GET", Path: "/1"}, LostCall{Method: "GET", Path: "/2", Again: true}
	for _, tt := range []struct {
		name   string
		lost   []LostCall
		beside int
		want   string
	}{
		{"nothing", nil, 0, ""},
		{"alone", []LostCall{first}, 0, "/1"},
		{"beside another", []LostCall{first, first}, 0, ""},
		{"beside a background task", []LostCall{first}, 1, ""},
		{"again, beside others", []LostCall{first, again, first}, 3, "/2"},
	} {
		if _, path, ok := Blame(tt.lost, tt.beside); path != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: blamed %q, %v; want %q", tt.name, path, ok, tt.want)
		}
	}
}

// What Detach tells is what Blame needs: a call that runs again is marked, and what goes on
// for nobody is counted.
func TestLostCallsForBlame(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.RetrySafe = true })
	v := b.worker(1)
	b.start(request())
	ended := b.start(request())
	b.turn()
	v.read(t, 10, b.now)
	b.turn()
	ended.call.Leave()
	lost := b.shard.Detach(v.Worker)
	if len(lost) != 1 || lost[0].Again || !lost[0].Rerun || v.Beside() != 1 {
		t.Fatalf("lost %+v, %d beside; want one that runs again, 1", lost, v.Beside())
	}
	w := b.worker(2)
	w.setTimer("k", 0, 0, link.TimerAny)
	b.at(0)
	b.at(1)
	w.timers(t, false)
	b.turn()
	lost = b.shard.Detach(w.Worker)
	if len(lost) != 0 || w.Beside() != 0 {
		t.Errorf("lost %+v, %d beside; want nothing: it had begun neither", lost, w.Beside())
	}
	x := b.worker(3)
	b.at(2)
	if begun := x.read(t, 10, b.now); len(begun) != 1 {
		t.Fatalf("%d began; want the call again", len(begun))
	}
	b.turn()
	if lost = b.shard.Detach(x.Worker); len(lost) != 1 || !lost[0].Again {
		t.Errorf("lost %+v; want the call, marked", lost)
	}
}
