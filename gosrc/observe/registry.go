package observe

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Registry holds a server's counters: one shard for each poll loop, and one that any
// goroutine may use. Its methods may be called concurrently.
type Registry struct {
	counts [NumCounters]atomic.Uint64 // of Add

	mu      sync.Mutex
	shards  []*Shard
	sources []source
}

type source struct {
	name string
	read func() uint64
}

// NewRegistry makes a registry without shards.
func NewRegistry() *Registry { return &Registry{} }

// Shard adds a shard. Its numbers stay in the sums when its loop has ended.
func (r *Registry) Shard() *Shard {
	s := &Shard{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shards = append(r.shards, s)
	return s
}

// Source adds a number that something else counts, under a name like a counter's
// ("access_log.dropped"). read is called for each Snapshot and must not block.
func (r *Registry) Source(name string, read func() uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = append(r.sources, source{name, read})
}

// Add counts from any goroutine: for rare things outside of a loop. It is seen at once.
func (r *Registry) Add(c Counter, n uint64) { r.counts[c].Add(n) }

// Shard is one loop's counters. Its methods are for the goroutine that owns it; readers
// see what was counted up to the last Publish, all of it or none, which is what makes a
// Snapshot's sums right at every moment.
type Shard struct {
	// Owned by the loop. A count is a plain addition; a bit says that it has changed.
	local [NumCounters]uint64
	dirty [(NumCounters + 63) / 64]uint64

	_ [128]byte // keeps readers off the loop's cache lines

	// Written by Publish. version is odd while it writes.
	version atomic.Uint64
	counts  [NumCounters]atomic.Uint64
	timings [NumTimings]Histogram

	_ [128]byte
}

// Add counts n of c, or raises the gauge c by n.
func (s *Shard) Add(c Counter, n uint64) {
	s.local[c] += n
	s.dirty[c>>6] |= 1 << (c & 63)
}

// Inc is Add(c, 1).
func (s *Shard) Inc(c Counter) { s.Add(c, 1) }

// Dec lowers a gauge by 1. One shard may raise and another lower the same gauge.
func (s *Shard) Dec(c Counter) { s.Add(c, ^uint64(0)) }

// Observe records a duration in nanoseconds. Readers see it at once.
func (s *Shard) Observe(t Timing, ns int64) { s.timings[t].Record(ns) }

// Publish lets readers see what was counted. A loop calls it once in each wake-up, before
// it sleeps; it costs some 5 ns for each counter that changed.
func (s *Shard) Publish() {
	if s.dirty == [len(s.dirty)]uint64{} {
		return
	}
	s.version.Add(1)
	for i := range s.dirty {
		for d := s.dirty[i]; d != 0; d &= d - 1 {
			c := i<<6 + bits.TrailingZeros64(d)
			s.counts[c].Store(s.local[c])
		}
		s.dirty[i] = 0
	}
	s.version.Add(1)
}

// read adds what was published to sums. Reading takes some 100 ns and a loop publishes once
// in many microseconds, so the bound on tries is only reached when its thread lost its
// processor in the middle of a Publish; then the sums may be off by that batch.
func (s *Shard) read(sums *[NumCounters]uint64) {
	var got [NumCounters]uint64
	for range 1000 {
		before := s.version.Load()
		for c := range got {
			got[c] = s.counts[c].Load()
		}
		if before&1 == 0 && s.version.Load() == before {
			break
		}
		runtime.Gosched()
	}
	for c, n := range got {
		sums[c] += n
	}
}
