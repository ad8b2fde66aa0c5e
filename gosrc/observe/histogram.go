package observe

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets of a histogram: microseconds, one bucket each up to 16, then sixteen for each
// power of two, so that a bucket is never wider than 1/16 of what it holds, as in
// HdrHistogram. The last one also holds everything above 2^32 microseconds (71 minutes).
const (
	subBuckets    = 16
	subBucketBits = 4
	maxBits       = 32
	numBuckets    = subBuckets + (maxBits-subBucketBits)*subBuckets
)

// Histogram counts durations in buckets of logarithmic width; it has a constant size of
// 3.7 KB. One goroutine records; any may read at the same time. The zero value is empty.
type Histogram struct {
	// Written by the recording goroutine only, so load and store need no lock prefix.
	sum     atomic.Uint64 // nanoseconds
	max     atomic.Uint64 // nanoseconds
	buckets [numBuckets]atomic.Uint64
}

// Record counts one duration in nanoseconds. A negative one (a clock of another process)
// counts as 0.
func (h *Histogram) Record(ns int64) {
	v := uint64(max(ns, 0))
	b := &h.buckets[bucketOf(v/1000)]
	b.Store(b.Load() + 1)
	h.sum.Store(h.sum.Load() + v)
	if v > h.max.Load() {
		h.max.Store(v)
	}
}

func bucketOf(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	n := bits.Len64(us) - 1 // the highest bit
	if n >= maxBits {
		return numBuckets - 1
	}
	return (n-subBucketBits+1)*subBuckets + int(us>>(n-subBucketBits))&(subBuckets-1)
}

// bucketTop is the upper end of a bucket in microseconds, itself outside of it.
func bucketTop(i int) uint64 {
	if i < subBuckets {
		return uint64(i) + 1
	}
	shift := i/subBuckets - 1
	return (uint64(i%subBuckets) + subBuckets + 1) << shift
}

// Distribution is what was read from one or more histograms. The zero value is empty.
type Distribution struct {
	Count   uint64
	Sum     time.Duration
	Max     time.Duration
	buckets [numBuckets]uint64
}

// Add reads h into d. Durations recorded meanwhile may be in or out.
func (d *Distribution) Add(h *Histogram) {
	for i := range h.buckets {
		n := h.buckets[i].Load()
		d.buckets[i] += n
		d.Count += n
	}
	d.Sum += time.Duration(h.sum.Load())
	d.Max = max(d.Max, time.Duration(h.max.Load()))
}

// Mean is 0 when nothing was recorded.
func (d *Distribution) Mean() time.Duration {
	if d.Count == 0 {
		return 0
	}
	return d.Sum / time.Duration(d.Count)
}

// Quantile is a duration that the share q (0 to 1) of all recorded ones did not exceed,
// too high by at most 1/16 or a microsecond. It is 0 when nothing was recorded.
func (d *Distribution) Quantile(q float64) time.Duration {
	if d.Count == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(d.Count)))
	rank = max(rank, 1)
	var seen uint64
	for i, n := range d.buckets {
		if seen += n; seen >= rank {
			return min(time.Duration(bucketTop(i))*time.Microsecond, d.Max)
		}
	}
	return d.Max
}
