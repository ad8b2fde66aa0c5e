// Package control holds all that Python may call.
package control

import "errors"

var errUnwired = errors.New("the core is not wired yet")

// Version is the core's version.
func Version() (string, error) { return `{"version": "0"}`, nil }

// Start starts a server.
func Start(config string) (string, error) { return "", errUnwired }

// AddWorker makes a link for a worker.
func AddWorker(server int, options string) (string, error) { return "", errUnwired }

// RemoveWorker drains a worker.
func RemoveWorker(server, worker int, options string) (string, error) { return "", errUnwired }

// WorkerGone says that a worker ended.
func WorkerGone(server, worker int, options string) (string, error) { return "", errUnwired }

// Drain stops accepting and finishes calls.
func Drain(server int, options string) (string, error) { return "", errUnwired }

// Stop closes everything now.
func Stop(server int) (string, error) { return "", errUnwired }

// Stats is the server's counters.
func Stats(server int) (string, error) { return "", errUnwired }

// Events is what happened since the last call.
func Events(server int) (string, error) { return "", errUnwired }
