package listen

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error says in one line why an address cannot be used.
type Error struct {
	Option  string // the option it came from, "--bind"
	Value   string // its value as it was written
	Message string // the whole line: option, value, what happened, what to do
	Err     error  // the cause, often a syscall.Errno; may be nil
}

func (e *Error) Error() string { return e.Message }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// origin is where an address was written.
type origin struct {
	option, value string
}

// errorf makes the message "option value: what happened; what to do". Control characters
// of the value are escaped, so that it stays one line.
func (o origin) errorf(cause error, format string, args ...any) *Error {
	what := fmt.Sprintf(format, args...)
	return &Error{o.option, o.value, o.option + " " + printable(o.value) + ": " + what, cause}
}

// printable is s, quoted when it would be misread in a line of text.
func printable(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }) {
		return fmt.Sprintf("%+q", s)
	}
	return s
}

// tcpError explains why bind or listen failed for a host and port.
func (o origin) tcpError(err error, where string, port int) *Error {
	if where == o.value {
		where = "this address" // the message has it already
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return o.errorf(err, "%s is already in use; stop the process that listens there, or choose another port", where)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return o.errorf(err, "%s is not one of this machine's; 0.0.0.0 stands for all of its IPv4 addresses", where)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		if port > 0 && port < 1024 {
			return o.errorf(err, "no permission to listen on %s; ports below 1024 need root or CAP_NET_BIND_SERVICE, so choose a higher one", where)
		}
		return o.errorf(err, "no permission to listen on %s", where)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return o.errorf(err, "this machine has no IPv6, which %s needs", where)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return o.errorf(err, "no file descriptor is left to listen on %s; raise the limit (ulimit -n)", where)
	}
	return o.errorf(err, "cannot listen on %s: %s", where, reason(err))
}

// unixError explains why a unix socket cannot be made.
func (o origin) unixError(err error, path string) *Error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return o.errorf(err, "the directory of %s does not exist; create it first", printable(path))
	case errors.Is(err, unix.ENOTDIR):
		return o.errorf(err, "a part of %s before its last is not a directory", printable(path))
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return o.errorf(err, "no permission to make or replace %s; see the owner and mode of its directory", printable(path))
	case errors.Is(err, unix.EADDRINUSE):
		return o.errorf(err, "another process listens there; stop it, or choose another path")
	case errors.Is(err, unix.EROFS):
		return o.errorf(err, "the file system of %s is read-only", printable(path))
	}
	return o.errorf(err, "cannot listen there: %s", reason(err))
}

// reason is the kernel's own words without Go's decoration.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
