package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestQuantilesOf(t *testing.T) {
	var values []time.Duration
	for n := 1000; n >= 1; n-- {
		values = append(values, time.Duration(n)*time.Microsecond)
	}
	got := quantilesOf(values)
	want := quantiles{Count: 1000, Mean: 500.5, P50: 500, P90: 900, P99: 990, P999: 999, Max: 1000}
	if got != want {
		t.Errorf("quantilesOf(1..1000 us) = %+v; want %+v", got, want)
	}
	if got := quantilesOf(nil); got != (quantiles{}) {
		t.Errorf("quantilesOf(nil) = %+v; want zeros", got)
	}
	if got := quantilesOf([]time.Duration{time.Millisecond}); got.P50 != 1000 || got.P999 != 1000 {
		t.Errorf("quantilesOf(1 ms) = %+v; want 1000 everywhere", got)
	}
}

func TestKind(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "refused"},
		{fmt.Errorf("read tcp 127.0.0.1:1->127.0.0.1:2: %w", syscall.ECONNRESET), "reset"},
		{io.ErrUnexpectedEOF, "closed"},
		{os.ErrDeadlineExceeded, "timeout"},
		{errors.New("Post \"http://x\": context deadline exceeded (Client.Timeout exceeded)"), "timeout"},
		{errors.New("malformed HTTP response"), "malformed HTTP response"},
	} {
		if got := kind(c.err); got != c.want {
			t.Errorf("kind(%q) = %q; want %q", c.err, got, c.want)
		}
	}
}

func TestBalance(t *testing.T) {
	a := newAccount()
	a.Planned = 4
	a.answered(200, time.Millisecond)
	a.answered(503, time.Millisecond)
	a.failed("read", io.EOF)
	if err := a.balance(); err == nil {
		t.Error("balance() with a call missing = nil; want an error")
	}
	a.Unsent = 1
	if err := a.balance(); err != nil {
		t.Errorf("balance() = %v; want nil", err)
	}
}

// Each client against a server that answers, refuses every third call, and closes every fifth connection.
func TestClientsAccountForEveryCall(t *testing.T) {
	calls := make(chan int, 1)
	calls <- 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := <-calls + 1
		calls <- n
		if n%5 == 0 {
			w.Header().Set("Connection", "close")
		}
		if n%3 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, "hello")
	}))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")

	for name, run := range map[string]func() (*account, error){
		"closed by count": func() (*account, error) {
			r, err := runClosed([]string{"-addr", addr, "-connections", "20", "-calls", "3"})
			return &r.(*closedReport).account, err
		},
		"closed by time": func() (*account, error) {
			r, err := runClosed([]string{"-addr", addr, "-connections", "5", "-duration", "50ms"})
			return &r.(*closedReport).account, err
		},
		"open": func() (*account, error) {
			r, err := runOpen([]string{"-addr", addr, "-rate", "500", "-duration", "100ms", "-connections", "5"})
			return &r.(*rateReport).account, err
		},
		"rate": func() (*account, error) {
			r, err := runRate([]string{"-url", server.URL, "-rate", "500", "-duration", "100ms", "-connections", "5"})
			return &r.(*rateReport).account, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := run()
			if err != nil {
				t.Fatalf("run: %v; want nil", err)
			}
			if got.OK == 0 || got.Status["503"] == 0 {
				t.Errorf("ok %d, 503 %d; want some of both", got.OK, got.Status["503"])
			}
			if err := got.balance(); err != nil {
				t.Errorf("balance() = %v; want nil", err)
			}
		})
	}
}

func TestRefusedIsAccountedFor(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	r, err := runClosed([]string{"-addr", addr, "-connections", "4", "-calls", "3"})
	if err != nil {
		t.Fatalf("runClosed: %v; want nil", err)
	}
	got := r.(*closedReport)
	if got.Errors["connect: refused"] != 4 || got.Unsent != 8 {
		t.Errorf("errors %v, unsent %d; want 4 refused, 8 unsent", got.Errors, got.Unsent)
	}
}
