package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

type rateReport struct {
	account
	Rate        int       `json:"rate"`
	Connections int       `json:"connections"`
	Seconds     float64   `json:"seconds"`
	Late        quantiles `json:"late_us"` // how far behind its schedule this program sent
	Call        quantiles `json:"call_us"` // from the scheduled moment, so lateness counts too
	Series      []point   `json:"series"`
}

// point is one slice of the run, by the scheduled moment of its calls.
type point struct {
	Second float64 `json:"second"`
	Calls  int     `json:"calls"`
	Lost   int     `json:"lost"` // anything but a 200
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`

	latencies []time.Duration
}

// slice is the width of a point.
const slice = 100 * time.Millisecond

// runRate is an open loop: call number n is sent at n/rate, however slow the answers are. Go's HTTP client would ask a GET
// again on a connection that died; a POST it does not once a byte was written, so the body also keeps the account honest.
func runRate(args []string) (any, error) {
	f := flag.NewFlagSet("rate", flag.ExitOnError)
	url := f.String("url", "http://127.0.0.1:8000/", "what to call")
	rate := f.Int("rate", 1000, "calls a second")
	duration := f.Duration("duration", 10*time.Second, "length of the run")
	size := f.Int("body", 4, "bytes of request body")
	connections := f.Int("connections", 100, "most connections at once")
	timeout := f.Duration("timeout", 10*time.Second, "a call without its answer after this is lost")
	_ = f.Parse(args)
	if *rate < 1 || *size < 1 || *connections < 1 {
		return nil, fmt.Errorf("-rate %d, -body %d, -connections %d: each must be 1 or more", *rate, *size, *connections)
	}
	attacker := vegeta.NewAttacker(
		vegeta.HTTP2(false), vegeta.KeepAlive(true), vegeta.Timeout(*timeout),
		vegeta.Connections(*connections), vegeta.MaxConnections(*connections),
	)
	targeter := vegeta.NewStaticTargeter(vegeta.Target{
		Method: http.MethodPost, URL: *url, Body: bytes.Repeat([]byte{'x'}, *size),
		Header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
	pace := vegeta.ConstantPacer{Freq: *rate, Per: time.Second}

	report := &rateReport{account: *newAccount(), Rate: *rate, Connections: *connections}
	report.Planned = int(duration.Seconds() * float64(*rate))
	var late []time.Duration
	var results []*vegeta.Result
	start := time.Now()
	for r := range attacker.Attack(targeter, pace, *duration, "load") {
		results = append(results, r)
	}
	report.Seconds = time.Since(start).Seconds()
	report.Unsent = report.Planned - len(results)
	report.Series = make([]point, (*duration+slice-1)/slice)
	begin := scheduleStart(results, *rate)
	for _, r := range results {
		due := time.Duration(r.Seq) * time.Second / time.Duration(*rate)
		behind := max(r.Timestamp.Sub(begin)-due, 0)
		late = append(late, behind)
		p := &report.Series[min(int(due/slice), len(report.Series)-1)]
		p.Calls++
		if r.Code == 0 {
			report.Errors[kindOfText(r.Error)]++
			p.Lost++
			continue
		}
		if r.Error != "" && r.Code == 200 { // the head came, the body did not
			report.Errors["read body: "+kindOfText(r.Error)]++
			p.Lost++
			continue
		}
		report.answered(int(r.Code), r.Latency+behind)
		p.latencies = append(p.latencies, r.Latency+behind)
		if r.Code != 200 {
			p.Lost++
		}
	}
	for i := range report.Series {
		p := &report.Series[i]
		q := quantilesOf(p.latencies)
		p.Second, p.P50, p.P99, p.Max = (time.Duration(i) * slice).Seconds(), q.P50, q.P99, q.Max
	}
	report.Late, report.Call = quantilesOf(late), quantilesOf(report.calls)
	return report, report.balance()
}

// scheduleStart is the moment from which every call was due at Seq/rate: vegeta starts its clock inside Attack, so it is taken
// from the call that was sent the least late.
func scheduleStart(results []*vegeta.Result, rate int) time.Time {
	var begin time.Time
	for _, r := range results {
		t := r.Timestamp.Add(-time.Duration(r.Seq) * time.Second / time.Duration(rate))
		if begin.IsZero() || t.Before(begin) {
			begin = t
		}
	}
	return begin
}
