package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

type sseReport struct {
	Connections int            `json:"connections"`
	Events      int            `json:"events"`
	Gaps        int            `json:"gaps"` // events out of sequence: a lost or doubled one
	Errors      map[string]int `json:"errors"`
	Seconds     float64        `json:"seconds"`
	Late        quantiles      `json:"late_us"` // from the app's stamp to the client's read
}

// runSSE reads events of the form "data: SEQUENCE NANOSECONDS", the stamp being CLOCK_MONOTONIC, which
// processes on one machine share.
func runSSE(args []string) (any, error) {
	f := flag.NewFlagSet("sse", flag.ExitOnError)
	var t target
	t.flags(f)
	connections := f.Int("connections", 1000, "subscribers")
	duration := f.Duration("duration", 5*time.Second, "length of the run")
	_ = f.Parse(args)
	if err := t.prepare(); err != nil {
		return nil, err
	}
	report := &sseReport{Connections: *connections, Errors: map[string]int{}}
	var late []time.Duration
	var mu sync.Mutex // guards report and late
	var wg sync.WaitGroup
	start := time.Now()
	deadline := start.Add(*duration)
	for n := range *connections {
		wg.Go(func() {
			s := subscriber{}
			stage, err := s.run(&t, n, deadline)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				report.Errors[stage+": "+kind(err)]++
			}
			report.Events += len(s.late)
			report.Gaps += s.gaps
			late = append(late, s.late...)
		})
	}
	wg.Wait()
	report.Seconds = time.Since(start).Seconds()
	report.Late = quantilesOf(late)
	return report, nil
}

type subscriber struct {
	late []time.Duration
	gaps int
}

// run reads until the deadline, which is the good end; anything earlier is an error.
func (s *subscriber) run(t *target, n int, deadline time.Time) (stage string, err error) {
	c, err := t.dial(n)
	if err != nil {
		return "connect", err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return "connect", err
	}
	if _, err := c.Write(t.request); err != nil {
		return "write", err
	}
	answer, err := http.ReadResponse(c.reader, t.parsed)
	if err != nil {
		return "read", err
	}
	if answer.StatusCode != 200 {
		return "status", fmt.Errorf("%d", answer.StatusCode)
	}
	lines := bufio.NewReader(answer.Body)
	for expected := int64(0); ; expected++ {
		sequence, stamp, err := readEvent(lines)
		if err != nil && !time.Now().Before(deadline) {
			return "", nil
		}
		if err != nil {
			return "read", err
		}
		if sequence != expected {
			s.gaps++
			expected = sequence
		}
		s.late = append(s.late, monotonic()-stamp)
	}
}

func readEvent(r *bufio.Reader) (sequence int64, stamp time.Duration, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		data, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r\n"), []byte("data: "))
		if !ok {
			continue
		}
		if _, err := fmt.Fscan(bytes.NewReader(data), &sequence, &stamp); err != nil {
			return 0, 0, fmt.Errorf("event %q is not two numbers: %w", data, io.ErrUnexpectedEOF)
		}
		return sequence, stamp, nil
	}
}

func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
