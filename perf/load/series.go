package main

import "time"

// slice is the width of a point.
const slice = 100 * time.Millisecond

// point is one slice of a run, by the moment at which its calls were due. Latencies are microseconds.
type point struct {
	Second float64 `json:"second"`
	Calls  int     `json:"calls"`
	Lost   int     `json:"lost"` // anything but a 200
	Good   int     `json:"good"` // 200s whose last byte came in this slice, whenever they were due (open only)
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`

	latencies []time.Duration
}

// series is latency over time.
type series []point

func newSeries(length time.Duration) series {
	return make(series, max(int((length+slice-1)/slice), 1))
}

// at is the point of a call that was due so long after the start.
func (s series) at(due time.Duration) *point {
	p := &s[min(int(due/slice), len(s)-1)]
	p.Calls++
	return p
}

// came notes a 200 that was whole so long after the start; one that came behind the run is in no slice.
func (s series) came(after time.Duration) {
	if i := int(after / slice); i < len(s) {
		s[i].Good++
	}
}

func (p *point) answered(code int, took time.Duration) {
	p.latencies = append(p.latencies, took)
	if code != 200 {
		p.Lost++
	}
}

// finish computes the quantiles, once every call is in.
func (s series) finish() series {
	for i := range s {
		q := quantilesOf(s[i].latencies)
		s[i].Second, s[i].P50, s[i].P99, s[i].Max = (time.Duration(i) * slice).Seconds(), q.P50, q.P99, q.Max
	}
	return s
}

// rateReport is what both open loops print.
type rateReport struct {
	account
	Rate        int       `json:"rate"`
	Connections int       `json:"connections"`
	Ended       int       `json:"ended"` // idle connections that the server closed (open only)
	Seconds     float64   `json:"seconds"`
	Late        quantiles `json:"late_us"` // how long after they were due this program sent its calls
	Call        quantiles `json:"call_us"` // from then on, the wait for a free connection included
	Series      series    `json:"series"`
}
