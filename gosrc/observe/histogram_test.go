package observe

import (
	"math"
	"testing"
	"time"
)

func TestBucketsCoverEverything(t *testing.T) {
	for _, us := range []uint64{0, 1, 15, 16, 17, 31, 32, 33, 1000, 1<<20 - 1, 1 << 20, 1<<32 - 1} {
		i := bucketOf(us)
		var bottom uint64
		if i > 0 {
			bottom = bucketTop(i - 1)
		}
		if us < bottom || us >= bucketTop(i) {
			t.Errorf("%d µs is in bucket %d, which is [%d, %d)", us, i, bottom, bucketTop(i))
		}
	}
	for i := 1; i < numBuckets; i++ {
		bottom, top := bucketTop(i-1), bucketTop(i)
		if bucketOf(bottom) != i || bucketOf(top-1) != i {
			t.Fatalf("bucket %d is [%d, %d), but its ends are in %d and %d", i, bottom, top, bucketOf(bottom), bucketOf(top-1))
		}
		if width := top - bottom; width > 1 && width > bottom/subBuckets {
			t.Fatalf("bucket %d at %d is %d wide; want at most 1/%d", i, bottom, width, subBuckets)
		}
	}
	for _, us := range []uint64{1 << 32, 1 << 40, math.MaxUint64} {
		if got := bucketOf(us); got != numBuckets-1 {
			t.Errorf("bucket of %d µs = %d; want the last, %d", us, got, numBuckets-1)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h Histogram
	var d Distribution
	d.Add(&h)
	if d.Quantile(0.5) != 0 || d.Mean() != 0 || d.Count != 0 {
		t.Errorf("of nothing: median %v, mean %v; want 0", d.Quantile(0.5), d.Mean())
	}
	for i := 1; i <= 1000; i++ {
		h.Record(int64(i) * int64(time.Millisecond))
	}
	d.Add(&h)
	for _, tt := range []struct {
		q    float64
		want time.Duration
	}{
		{0, time.Millisecond},
		{0.5, 500 * time.Millisecond},
		{0.9, 900 * time.Millisecond},
		{0.99, 990 * time.Millisecond},
		{1, time.Second},
	} {
		got := d.Quantile(tt.q)
		if got < tt.want || float64(got) > float64(tt.want)*(1+1.0/subBuckets)+1000 {
			t.Errorf("quantile %v = %v; want %v or a sixteenth more", tt.q, got, tt.want)
		}
	}
	if d.Max != time.Second || d.Mean() != 500500*time.Microsecond {
		t.Errorf("max, mean = %v, %v; want 1s, 500.5ms", d.Max, d.Mean())
	}
}

func TestHistogramExtremes(t *testing.T) {
	var h Histogram
	h.Record(-5)
	h.Record(math.MaxInt64)
	var d Distribution
	d.Add(&h)
	if d.Count != 2 || d.Quantile(0.5) != time.Microsecond || d.Quantile(1) < 71*time.Minute {
		t.Errorf("count %d, median %v, longest %v", d.Count, d.Quantile(0.5), d.Quantile(1))
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Record(12345678)
	}
}
