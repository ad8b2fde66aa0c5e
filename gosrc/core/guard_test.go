package main

import (
	"errors"
	"strings"
	"testing"
)

func TestGuardPassesOnWhatTheCallReturns(t *testing.T) {
	bad := errors.New("bad")
	for _, test := range []struct {
		answer string
		err    error
	}{{"{}", nil}, {"", bad}} {
		answer, err := guard("Start", func() (string, error) { return test.answer, test.err })
		if answer != test.answer || err != test.err {
			t.Errorf("got %q, %v; want %q, %v", answer, err, test.answer, test.err)
		}
	}
}

func TestGuardMakesAnErrorOfAPanic(t *testing.T) {
	answer, err := guard("Start", func() (string, error) { panic("lost my way") })
	if answer != "" || err == nil {
		t.Fatalf("got %q, %v; want an error", answer, err)
	}
	for _, want := range []string{"the core failed in Start: lost my way", "guard_test.go"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q; want %q in it", err, want)
		}
	}
}
