package main

import (
	"flag"
	"fmt"
	"sync"
	"time"
)

type closedReport struct {
	account
	Connections int       `json:"connections"`
	Seconds     float64   `json:"seconds"`
	Call        quantiles `json:"call_us"`
	Connect     quantiles `json:"connect_us"`
	First       quantiles `json:"first_us"`
}

// runClosed opens all connections at once. With -calls each connection asks that many and is done (a burst);
// with -duration each asks until the time is over, connecting again after an error. A call that has begun is always waited for.
func runClosed(args []string) (any, error) {
	f := flag.NewFlagSet("closed", flag.ExitOnError)
	var t target
	t.flags(f)
	connections := f.Int("connections", 100, "connections opened at once")
	calls := f.Int("calls", 0, "calls on each connection; 0: until -duration")
	duration := f.Duration("duration", 5*time.Second, "length of the run without -calls")
	_ = f.Parse(args)
	if *connections < 1 {
		return nil, fmt.Errorf("-connections is %d; it must be 1 or more", *connections)
	}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	sum := newTotal()
	begin := make(chan struct{})
	var wg sync.WaitGroup
	var deadline time.Time // written before begin is closed
	for n := range *connections {
		wg.Go(func() {
			<-begin
			if *calls > 0 {
				sum.add(burstConnection(&t, n, *calls))
			} else {
				sum.add(loopConnection(&t, n, deadline))
			}
		})
	}
	start := time.Now()
	deadline = start.Add(*duration)
	close(begin)
	wg.Wait()
	report := &closedReport{
		account: sum.account, Connections: *connections, Seconds: time.Since(start).Seconds(),
		Call: quantilesOf(sum.calls), Connect: quantilesOf(sum.connects), First: quantilesOf(sum.firsts),
	}
	return report, report.balance()
}

// burstConnection plans calls on one connection; after an error the rest of them are unsent.
func burstConnection(t *target, n, calls int) *account {
	a := newAccount()
	a.Planned = calls
	start := time.Now()
	c, err := t.dial(n)
	if err != nil {
		a.failed("connect", err)
		a.Unsent = calls - 1
		return a
	}
	defer c.Close()
	a.connects = append(a.connects, time.Since(start))
	for i := range calls {
		asked := time.Now()
		code, reusable, stage, err := c.call(t)
		if err != nil {
			a.failed(stage, err)
			a.Unsent = calls - i - 1
			return a
		}
		a.answered(code, time.Since(asked))
		if i == 0 {
			a.firsts = append(a.firsts, time.Since(start))
		}
		if !reusable {
			a.Unsent = calls - i - 1
			return a
		}
	}
	return a
}

// retryPause keeps a connection that is refused from spinning; it is not part of any latency.
const retryPause = 10 * time.Millisecond

// loopConnection asks until the deadline. Each attempt is one planned call: a failed connect is a failed call.
func loopConnection(t *target, n int, deadline time.Time) *account {
	a := newAccount()
	var c *client
	drop := func() {
		if c != nil {
			_ = c.Close() // the connection is of no use any more, whatever Close says
			c = nil
		}
	}
	defer drop()
	first := true
	start := time.Now()
	for time.Now().Before(deadline) {
		a.Planned++
		if c == nil {
			dialled := time.Now()
			fresh, err := t.dial(n)
			if err != nil {
				a.failed("connect", err)
				time.Sleep(retryPause)
				continue
			}
			c = fresh
			a.connects = append(a.connects, time.Since(dialled))
		}
		asked := time.Now()
		code, reusable, stage, err := c.call(t)
		if err != nil {
			a.failed(stage, err)
			drop()
			continue
		}
		a.answered(code, time.Since(asked))
		if first {
			a.firsts = append(a.firsts, time.Since(start))
			first = false
		}
		if !reusable {
			drop()
		}
	}
	return a
}
