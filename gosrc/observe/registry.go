package observe

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Registry holds a server's counters: one shard for each poll loop, and one that any
// goroutine may use. Its methods may be called concurrently.
type Registry struct {
	counts [NumCounters]atomic.Uint64 // of Add

	reading sync.Mutex // held by the one reader of the shards

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
	dirty counterSet

	_ [128]byte // keeps readers off the loop's cache lines

	// There are two copies, and there is one reader at a time, so that the loop always
	// finds one that it can write without waiting.
	copies  [2]shardCopy
	latest  atomic.Uint32 // the copy that was written last
	timings [NumTimings]Histogram

	_ [128]byte
}

type shardCopy struct {
	missing counterSet // owned by the loop: what has changed since it wrote this copy

	mu     sync.Mutex
	counts [NumCounters]uint64 // guarded by mu
}

type counterSet [(NumCounters + 63) / 64]uint64

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
// it sleeps; it never waits, and costs about 20 ns and a few for each changed counter.
func (s *Shard) Publish() {
	if s.dirty == (counterSet{}) {
		return
	}
	for i, d := range s.dirty {
		s.copies[0].missing[i] |= d
		s.copies[1].missing[i] |= d
	}
	s.dirty = counterSet{}
	at := s.latest.Load()
	if s.copies[at].mu.TryLock() {
		s.write(&s.copies[at])
		return
	}
	at ^= 1
	s.copies[at].mu.Lock() // the reader has the other one
	s.write(&s.copies[at])
	s.latest.Store(at)
}

// write brings a locked copy up to date and unlocks it.
func (s *Shard) write(to *shardCopy) {
	for i := range to.missing {
		for d := to.missing[i]; d != 0; d &= d - 1 {
			c := i<<6 + bits.TrailingZeros64(d)
			to.counts[c] = s.local[c]
		}
	}
	to.mu.Unlock()
	to.missing = counterSet{}
}

// read adds what was published last to sums. Registry.reading must be held.
func (s *Shard) read(sums *[NumCounters]uint64) {
	from := &s.copies[s.latest.Load()]
	from.mu.Lock()
	defer from.mu.Unlock()
	for c, n := range from.counts {
		sums[c] += n
	}
}
