package observe

import (
	"encoding/json"
	"strings"
)

// Snapshot is every number at one moment: each shard as of its last Publish.
type Snapshot struct {
	Counters [NumCounters]uint64
	Timings  [NumTimings]Distribution
	Sources  map[string]uint64 // by name
}

// Snapshot reads all shards.
func (r *Registry) Snapshot() *Snapshot {
	s := &Snapshot{Sources: map[string]uint64{}}
	r.mu.Lock()
	shards, sources := r.shards, r.sources // append-only, so the slices stay valid
	r.mu.Unlock()
	for _, src := range sources {
		s.Sources[src.name] = src.read()
	}
	for c := range r.counts {
		s.Counters[c] = r.counts[c].Load()
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	for _, shard := range shards {
		shard.read(&s.Counters)
		for t := range s.Timings {
			s.Timings[t].Add(&shard.timings[t])
		}
	}
	return s
}

// Get is the sum of one counter over the shards.
func (s *Snapshot) Get(c Counter) uint64 { return s.Counters[c] }

// Refused is how many calls the core answered in the app's place.
func (s *Snapshot) Refused() uint64 { return s.sum(refusals) }

// Failed is how many calls ended without the app's whole answer, the client still there.
func (s *Snapshot) Failed() uint64 { return s.sum(failures) }

func (s *Snapshot) sum(group []Counter) uint64 {
	var n uint64
	for _, c := range group {
		n += s.Counters[c]
	}
	return n
}

// Imbalance is arrived - (answered + refused + failed + left + in flight): 0, or some
// call's life has a hole.
func (s *Snapshot) Imbalance() int64 {
	return int64(s.Get(CallsArrived) - s.Get(CallsAnswered) - s.Refused() - s.Failed() -
		s.Get(CallsLeft) - s.Get(CallsInFlight))
}

// Tree is the snapshot as nested objects: a name's parts, split at its dots, are the keys.
// Next to the reasons under calls.refused_by and calls.failed_by it has their sums as
// calls.refused and calls.failed. Durations are in seconds.
func (s *Snapshot) Tree() map[string]any {
	tree := map[string]any{}
	for c, n := range s.Counters {
		place(tree, Counter(c).String(), n)
	}
	for name, n := range s.Sources {
		place(tree, name, n)
	}
	place(tree, "calls.refused", s.Refused())
	place(tree, "calls.failed", s.Failed())
	for t := range s.Timings {
		d := &s.Timings[t]
		place(tree, "timings."+Timing(t).String(), map[string]any{
			"count": d.Count,
			"mean":  d.Mean().Seconds(),
			"p50":   d.Quantile(0.5).Seconds(),
			"p90":   d.Quantile(0.9).Seconds(),
			"p99":   d.Quantile(0.99).Seconds(),
			"p999":  d.Quantile(0.999).Seconds(),
			"max":   d.Max.Seconds(),
		})
	}
	return tree
}

// MarshalJSON is Tree as JSON, its keys in order.
func (s *Snapshot) MarshalJSON() ([]byte, error) { return json.Marshal(s.Tree()) }

func place(tree map[string]any, name string, value any) {
	for {
		head, rest, nested := strings.Cut(name, ".")
		if !nested {
			tree[name] = value
			return
		}
		sub, ok := tree[head].(map[string]any)
		if !ok {
			sub = map[string]any{}
			tree[head] = sub
		}
		tree, name = sub, rest
	}
}
