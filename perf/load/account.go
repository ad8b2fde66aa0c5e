package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// account says what became of every planned call. A goroutine has its own and merges it when it ends.
type account struct {
	Planned int            `json:"planned"`
	OK      int            `json:"ok"`
	Status  map[string]int `json:"status"` // answers other than 200, by code
	Errors  map[string]int `json:"errors"` // calls without a whole answer, by kind
	Unsent  int            `json:"unsent"` // planned on a connection that failed before their turn

	calls    []time.Duration // write to last byte of the answer
	connects []time.Duration
	firsts   []time.Duration // dial to last byte of the connection's first answer
}

func newAccount() *account {
	return &account{Status: map[string]int{}, Errors: map[string]int{}}
}

func (a *account) merge(b *account) {
	a.Planned += b.Planned
	a.OK += b.OK
	a.Unsent += b.Unsent
	for k, n := range b.Status {
		a.Status[k] += n
	}
	for k, n := range b.Errors {
		a.Errors[k] += n
	}
	a.calls = append(a.calls, b.calls...)
	a.connects = append(a.connects, b.connects...)
	a.firsts = append(a.firsts, b.firsts...)
}

// answered notes a call that has a whole answer.
func (a *account) answered(code int, took time.Duration) {
	if code == 200 {
		a.OK++
	} else {
		a.Status[fmt.Sprint(code)]++
	}
	a.calls = append(a.calls, took)
}

func (a *account) failed(stage string, err error) {
	a.Errors[stage+": "+kind(err)]++
}

// total collects the accounts of many goroutines.
type total struct {
	mu sync.Mutex // guards account
	account
}

func newTotal() *total { return &total{account: *newAccount()} }

func (t *total) add(a *account) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.merge(a)
}

// balance reports an error when a call is missing from the account or in it twice: a fault of this program.
func (a *account) balance() error {
	sum := a.OK + a.Unsent
	for _, n := range a.Status {
		sum += n
	}
	for _, n := range a.Errors {
		sum += n
	}
	if sum != a.Planned {
		return fmt.Errorf("the account does not balance: planned %d, accounted for %d", a.Planned, sum)
	}
	return nil
}

// kind names an error without addresses and ports, so that equal failures count together.
func kind(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.EPIPE):
		return "broken pipe"
	case errors.Is(err, syscall.EMFILE):
		return "out of descriptors here"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "out of ports here"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "closed"
	}
	return kindOfText(err.Error())
}

// kindOfText does the same for libraries that hand over only a text.
func kindOfText(text string) string {
	for _, known := range []struct{ part, kind string }{
		{"connection refused", "refused"},
		{"connection reset", "reset"},
		{"broken pipe", "broken pipe"},
		{"too many open files", "out of descriptors here"},
		{"cannot assign requested address", "out of ports here"},
		{"Timeout", "timeout"},
		{"timeout", "timeout"},
		{"deadline exceeded", "timeout"},
		{"EOF", "closed"},
		{"server closed idle connection", "closed"},
	} {
		if strings.Contains(text, known.part) {
			return known.kind
		}
	}
	return text
}

// quantiles are microseconds.
type quantiles struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99.9"`
	Max   float64 `json:"max"`
}

// quantilesOf sorts its argument. The quantile q of n values is the one at rank ceil(q*n): a value that happened.
func quantilesOf(values []time.Duration) quantiles {
	n := len(values)
	if n == 0 {
		return quantiles{}
	}
	slices.Sort(values)
	at := func(perMille int) float64 {
		rank := (n*perMille + 999) / 1000
		return micros(values[max(rank, 1)-1])
	}
	var sum time.Duration
	for _, v := range values {
		sum += v
	}
	return quantiles{
		Count: n, Mean: micros(sum) / float64(n),
		P50: at(500), P90: at(900), P99: at(990), P999: at(999), Max: micros(values[n-1]),
	}
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
