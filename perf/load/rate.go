package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

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
	planned := max(int(duration.Seconds()*float64(*rate)), 1)
	pace := countedPacer{vegeta.ConstantPacer{Freq: *rate, Per: time.Second}, uint64(planned)}

	report := &rateReport{account: *newAccount(), Rate: *rate, Connections: *connections, Series: newSeries(*duration)}
	report.Planned = planned
	var late []time.Duration
	var results []*vegeta.Result
	start := time.Now()
	for r := range attacker.Attack(targeter, pace, 0, "load") {
		results = append(results, r)
	}
	report.Seconds = time.Since(start).Seconds()
	report.Unsent = planned - len(results)
	begin := scheduleStart(results, *rate)
	for _, r := range results {
		due := time.Duration(r.Seq) * time.Second / time.Duration(*rate)
		late = append(late, max(r.Timestamp.Sub(begin)-due, 0))
		p := report.Series.at(due)
		switch {
		case r.Code == 0:
			report.Errors[kindOfText(r.Error)]++
			p.Lost++
		case r.Code == 200 && r.Error != "": // the head came, the body did not
			report.Errors["read body: "+kindOfText(r.Error)]++
			p.Lost++
		default:
			report.answered(int(r.Code), r.Latency)
			p.answered(int(r.Code), r.Latency)
		}
	}
	report.Late, report.Call = quantilesOf(late), quantilesOf(report.calls)
	report.Series.finish()
	return report, report.balance()
}

// countedPacer ends after so many calls. Vegeta's own end, after so much time, leaves out the calls it is late with.
type countedPacer struct {
	vegeta.ConstantPacer
	planned uint64
}

func (p countedPacer) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits >= p.planned {
		return 0, true
	}
	return p.ConstantPacer.Pace(elapsed, hits)
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
