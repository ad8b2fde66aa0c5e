package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"
)

type idleReport struct {
	Event   string         `json:"event"` // "open", then "checked"
	Open    int            `json:"open"`
	Errors  map[string]int `json:"errors"`
	Seconds float64        `json:"seconds"`
}

// idleDialers is how many connections are being opened at a time: a steady arrival, not a burst, so that
// what is measured is an idle connection and not the peak of opening it.
const idleDialers = 64

// runIdle reports twice: when all connections are open and were answered once, and, after a line (or the end)
// of standard input, how many of them still answer.
func runIdle(args []string) (any, error) {
	f := flag.NewFlagSet("idle", flag.ExitOnError)
	var t target
	t.flags(f)
	connections := f.Int("connections", 15000, "connections to hold")
	limit := f.Duration("limit", 60*time.Second, "longest time for opening them all, and again for checking them all")
	_ = f.Parse(args)
	if err := t.prepare(); err != nil {
		return nil, err
	}
	start := time.Now()
	clients := make([]*client, *connections)
	opened := eachConnection(clients, start.Add(*limit), func(n int) (string, error) {
		c, err := t.dial(n)
		if err != nil {
			return "connect", err
		}
		clients[n] = c
		return c.once(&t)
	})
	opened.Event, opened.Seconds = "open", time.Since(start).Seconds()
	if err := printJSON(opened); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		fmt.Fprintln(os.Stderr, "load: standard input ended; checking the connections now")
	}
	start = time.Now()
	checked := eachConnection(clients, start.Add(*limit), func(n int) (string, error) {
		if clients[n] == nil {
			return "connect", fmt.Errorf("never opened")
		}
		return clients[n].once(&t)
	})
	checked.Event, checked.Seconds = "checked", time.Since(start).Seconds()
	return checked, nil
}

// once asks one call and wants a 200.
func (c *client) once(t *target) (string, error) {
	code, reusable, stage, err := c.call(t)
	if err == nil && code != 200 {
		return "status", fmt.Errorf("%d", code)
	}
	if err == nil && !reusable {
		return "read", fmt.Errorf("the server ended the connection")
	}
	return stage, err
}

// eachConnection runs do for every connection, idleDialers at a time; those whose turn does not come before the deadline
// are errors.
func eachConnection(clients []*client, deadline time.Time, do func(n int) (stage string, err error)) *idleReport {
	report := &idleReport{Errors: map[string]int{}}
	var mu sync.Mutex // guards report
	var wg sync.WaitGroup
	next := make(chan int)
	for range idleDialers {
		wg.Go(func() {
			for n := range next {
				stage, err := "waiting", error(os.ErrDeadlineExceeded)
				if time.Now().Before(deadline) {
					stage, err = do(n)
				}
				mu.Lock()
				if err != nil {
					report.Errors[stage+": "+kind(err)]++
				} else {
					report.Open++
				}
				mu.Unlock()
			}
		})
	}
	for n := range clients {
		next <- n
	}
	close(next)
	wg.Wait()
	return report
}
