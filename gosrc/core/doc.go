//go:build !python

// Package main is spvn._core: package control as a Python extension module, and nothing
// else.
//
// core.go and core.c are generated (make generate). They need Python's headers, so they
// carry the build tag python, which setup.py sets; without it this is an empty program,
// and `go build ./...`, `go vet ./...` and `go test ./...` work on any machine.
package main

func main() {}
