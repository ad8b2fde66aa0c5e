package listen

import (
	"golang.org/x/sys/unix"
)

// inherit duplicates a descriptor that somebody else opened and makes sure that it is a
// stream socket. The new one shares its flags with the old one, so both are non-blocking
// from now on.
func inherit(o origin, fd int) (*Listener, *Error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		if err == unix.EBADF {
			return nil, o.errorf(err, "file descriptor %d is not open; was it passed on to this process?", fd)
		}
		return nil, o.errorf(err, "cannot duplicate file descriptor %d: %s", fd, reason(err))
	}
	l := &Listener{FD: dup, lent: true}
	fail := func(e *Error) (*Listener, *Error) {
		l.Close()
		return nil, e
	}
	typ, err := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == unix.ENOTSOCK {
		return fail(o.errorf(err, "file descriptor %d is not a socket", fd))
	}
	if err != nil {
		return fail(o.errorf(err, "cannot ask file descriptor %d for its type: %s", fd, reason(err)))
	}
	if typ != unix.SOCK_STREAM {
		return fail(o.errorf(nil, "file descriptor %d is a socket, but not a stream socket (TCP or unix)", fd))
	}
	if err := l.describe(); err != nil {
		if err == unix.EAFNOSUPPORT {
			return fail(o.errorf(err, "file descriptor %d is a socket of another family than IPv4, IPv6 and unix", fd))
		}
		return fail(o.errorf(err, "cannot ask file descriptor %d for its address: %s", fd, reason(err)))
	}
	if _, err := unix.Getpeername(dup); err == nil {
		return fail(o.errorf(nil, "file descriptor %d is a connection, not a listening socket", fd))
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		return fail(o.errorf(err, "cannot make file descriptor %d non-blocking: %s", fd, reason(err)))
	}
	return l, nil
}

// listening says whether the socket listens already.
func listening(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && n != 0
}
