package observe

import (
	"encoding/json"
	"sync"
	"testing"
	"time"
)

func TestCounterNamesAreUniqueAndComplete(t *testing.T) {
	seen := map[string]Counter{}
	for c := Counter(0); c < numCounters; c++ {
		name := c.String()
		if name == "" {
			t.Errorf("counter %d has no name", c)
		}
		if other, twice := seen[name]; twice {
			t.Errorf("counters %d and %d are both %q", other, c, name)
		}
		seen[name] = c
	}
	if got := numCounters.String(); got != "unknown" {
		t.Errorf("name of no counter = %q; want unknown", got)
	}
	if len(refusals) != 7 || len(failures) != 4 {
		t.Errorf("reasons of refusals and failures = %d, %d; want 7, 4", len(refusals), len(failures))
	}
}

func TestRejectedNamesTheStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		want   string
	}{
		{400, "connections.rejected.400"},
		{408, "connections.rejected.408"},
		{411, "connections.rejected.411"},
		{413, "connections.rejected.413"},
		{414, "connections.rejected.414"},
		{417, "connections.rejected.417"},
		{431, "connections.rejected.431"},
		{501, "connections.rejected.501"},
		{505, "connections.rejected.505"},
		{426, "connections.rejected.other"},
	} {
		if got := Rejected(tt.status).String(); got != tt.want {
			t.Errorf("Rejected(%d) = %q; want %q", tt.status, got, tt.want)
		}
	}
}

func TestShardIsSeenAfterPublish(t *testing.T) {
	r := NewRegistry()
	s := r.Shard()
	s.Inc(CallsArrived)
	s.Add(BytesIn, 100)
	if got := r.Snapshot().Get(CallsArrived); got != 0 {
		t.Errorf("before Publish arrived = %d; want 0", got)
	}
	s.Publish()
	s.Publish() // nothing new: nothing happens
	got := r.Snapshot()
	if got.Get(CallsArrived) != 1 || got.Get(BytesIn) != 100 {
		t.Errorf("arrived, bytes in = %d, %d; want 1, 100", got.Get(CallsArrived), got.Get(BytesIn))
	}
}

func TestEveryCounterIsPublished(t *testing.T) {
	r := NewRegistry()
	s := r.Shard()
	for c := Counter(0); c < numCounters; c++ {
		s.Add(c, uint64(c)+1)
	}
	s.Publish()
	snap := r.Snapshot()
	for c := Counter(0); c < numCounters; c++ {
		if got, want := snap.Get(c), uint64(c)+1; got != want {
			t.Errorf("%v = %d; want %d", c, got, want)
		}
	}
}

func TestShardsAreSummed(t *testing.T) {
	r := NewRegistry()
	a, b := r.Shard(), r.Shard()
	a.Inc(CallsWaiting)
	a.Inc(CallsWaiting)
	b.Dec(CallsWaiting)
	a.Publish()
	b.Publish()
	r.Add(LoopPanics, 3)
	snap := r.Snapshot()
	if got := snap.Get(CallsWaiting); got != 1 {
		t.Errorf("gauge over two shards = %d; want 1", got)
	}
	if got := snap.Get(LoopPanics); got != 3 {
		t.Errorf("counter of no shard = %d; want 3", got)
	}
}

func TestImbalance(t *testing.T) {
	ends := append(append([]Counter{CallsAnswered, CallsLeft, CallsInFlight}, refusals...), failures...)
	for _, end := range ends {
		r := NewRegistry()
		s := r.Shard()
		s.Inc(CallsArrived)
		s.Publish()
		if got := r.Snapshot().Imbalance(); got != 1 {
			t.Errorf("imbalance of a call that is nowhere = %d; want 1", got)
		}
		s.Inc(end)
		s.Publish()
		if got := r.Snapshot().Imbalance(); got != 0 {
			t.Errorf("imbalance of a call that is %v = %d; want 0", end, got)
		}
		s.Inc(end)
		s.Publish()
		if got := r.Snapshot().Imbalance(); got != -1 {
			t.Errorf("imbalance of a call that is %v twice = %d; want -1", end, got)
		}
	}
}

// Whoever reads while loops count sees each of a shard's batches whole.
func TestSnapshotIsConsistentWhileLoopsCount(t *testing.T) {
	const loops, rounds = 3, 30_000
	r := NewRegistry()
	var counting sync.WaitGroup
	for range loops {
		s := r.Shard()
		counting.Go(func() {
			for i := range rounds {
				s.Inc(CallsArrived)
				s.Inc(CallsInFlight)
				if i%3 == 0 { // in the middle of a call
					s.Publish()
				}
				s.Dec(CallsInFlight)
				switch i % 4 {
				case 0:
					s.Inc(CallsAnswered)
				case 1:
					s.Inc(Failed502)
				case 2:
					s.Inc(RefusedQueueFull)
				case 3:
					s.Inc(CallsLeft)
				}
				s.Observe(CallTime, int64(i))
				s.Publish()
			}
		})
	}
	done := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			var last uint64
			for {
				snap := r.Snapshot()
				if got := snap.Imbalance(); got != 0 {
					t.Errorf("imbalance = %d; want 0", got)
					return
				}
				if got := snap.Get(CallsInFlight); got > loops {
					t.Errorf("in flight = %d; want at most %d", got, loops)
					return
				}
				if got := snap.Get(CallsArrived); got < last {
					t.Errorf("arrived went from %d to %d", last, got)
					return
				} else {
					last = got
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	counting.Wait()
	close(done)
	reading.Wait()
	snap := r.Snapshot()
	if got := snap.Get(CallsArrived); got != loops*rounds {
		t.Errorf("arrived = %d; want %d", got, loops*rounds)
	}
	if got := snap.Timings[CallTime].Count; got != loops*rounds {
		t.Errorf("call times = %d; want %d", got, loops*rounds)
	}
}

func TestSnapshotJSON(t *testing.T) {
	r := NewRegistry()
	s := r.Shard()
	s.Add(CallsArrived, 7)
	s.Add(RefusedQueueFull, 2)
	s.Add(RefusedNoWorker, 1)
	s.Add(FailedCut, 3)
	s.Add(Failed500, 1)
	s.Observe(ClaimDelay, int64(1500*time.Millisecond))
	s.Publish()
	r.Source("access_log.dropped", func() uint64 { return 9 })
	text, err := json.Marshal(r.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Calls struct {
			Arrived, Refused, Failed int
			RefusedBy                map[string]int `json:"refused_by"`
			FailedBy                 map[string]int `json:"failed_by"`
		}
		AccessLog map[string]int `json:"access_log"`
		Timings   map[string]struct {
			Count int
			Max   float64
			P50   float64
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if got.Calls.Arrived != 7 || got.Calls.Refused != 3 || got.Calls.Failed != 4 {
		t.Errorf("arrived, refused, failed = %d, %d, %d; want 7, 3, 4", got.Calls.Arrived, got.Calls.Refused, got.Calls.Failed)
	}
	if got.Calls.RefusedBy["queue_full"] != 2 || got.Calls.FailedBy["cut"] != 3 {
		t.Errorf("reasons = %v, %v", got.Calls.RefusedBy, got.Calls.FailedBy)
	}
	if got.AccessLog["dropped"] != 9 {
		t.Errorf("source = %v; want dropped: 9", got.AccessLog)
	}
	if d := got.Timings["claim_delay"]; d.Count != 1 || d.Max != 1.5 || d.P50 != 1.5 {
		t.Errorf("claim delay = %+v; want one of 1.5 s", d)
	}
}

func BenchmarkShardAdd(b *testing.B) {
	s := NewRegistry().Shard()
	for b.Loop() {
		s.Inc(CallsArrived)
	}
}

// One wake-up with one call in it: a dozen counts, then Publish.
func BenchmarkShardWakeup(b *testing.B) {
	s := NewRegistry().Shard()
	for b.Loop() {
		for c := range CallsLeft {
			s.Inc(c)
		}
		s.Add(BytesIn, 100)
		s.Add(BytesOut, 100)
		s.Inc(CallsInFlight)
		s.Dec(CallsInFlight)
		s.Inc(LoopWakeups)
		s.Publish()
	}
}
