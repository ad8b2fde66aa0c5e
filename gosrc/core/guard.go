package main

import (
	"fmt"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Python ignores SIGPIPE, and Go's runtime replaces that by a handler of its own when it
// is loaded: put it back, or a write to a closed pipe by Python code reaches Go. This is
// the only word that the core says about signals, which belong to Python.
func init() {
	signal.Ignore(syscall.SIGPIPE)
}

// guard runs an exported call and makes an error of its panic, which would end the
// process if it reached C.
func guard(name string, call func() (string, error)) (answer string, err error) {
	defer func() {
		if p := recover(); p != nil {
			answer, err = "", fmt.Errorf("the core failed in %s: %v\n%s", name, p, debug.Stack())
		}
	}()
	return call()
}
