package listen

import (
	"net"
	"strconv"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
)

// Kind is the kind of a listening socket.
type Kind string

// Kinds, named as in the control plane's JSON.
const (
	TCP  Kind = "tcp"
	Unix Kind = "unix"
)

// Listener is one listening socket. It is not safe for concurrent use, but its FD is.
type Listener struct {
	FD   int    // non-blocking, close-on-exec; -1 once closed
	Kind Kind   // TCP or Unix
	Host string // of a TCP socket: its numeric address, with a zone if it has one
	Port int    // of a TCP socket: the port that it has, also when 0 was asked for; else -1
	Path string // of a unix socket, "@name" for an abstract one; "" when it has no name
	// Wildcard says that connections come in on any address of the machine, so that a
	// call's server address is that of its connection (getsockname).
	Wildcard bool

	lent   bool        // somebody else opened it and may go on listening
	origin origin      // the option that asked for it
	file   *socketFile // the socket's file if we made it
}

// Local is the listener's own address, as a call's server address has it.
func (l *Listener) Local() call.Addr {
	if l.Kind == Unix {
		return call.Addr{Host: l.Path, Port: -1}
	}
	return call.Addr{Host: l.Host, Port: int32(l.Port)}
}

// URL is the address as people read it: "http://127.0.0.1:8000", "http://[::1]:8000",
// "unix:/run/app.sock".
func (l *Listener) URL(scheme call.Scheme) string {
	if l.Kind == Unix {
		return unixPrefix + l.Path
	}
	return scheme.String() + "://" + net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
}

// Unlink removes the file of a unix socket, if we made it and nobody has replaced it, so
// that nobody else connects; connections that wait in the backlog can still be accepted.
func (l *Listener) Unlink() {
	if l.file != nil {
		l.file.remove()
		l.file = nil
	}
}

// Close unlinks, then closes the socket; what waits in its backlog is reset. Closing
// twice is harmless. An inherited socket goes on listening in whoever else has it; one of
// our own does not, though a child that the app forked may hold a copy.
func (l *Listener) Close() error {
	// In this order: while the socket lives its inode number cannot be used again, which
	// makes Unlink's comparison exact.
	l.Unlink()
	if l.FD < 0 {
		return nil
	}
	fd := l.FD
	l.FD = -1
	if !l.lent {
		unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	return unix.Close(fd)
}

// describe fills in the address of a bound socket from the kernel.
func (l *Listener) describe() error {
	sa, err := unix.Getsockname(l.FD)
	if err != nil {
		return err
	}
	l.Port = -1
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		l.Kind, l.Host, l.Port = TCP, net.IP(sa.Addr[:]).String(), sa.Port
		l.Wildcard = sa.Addr == [4]byte{}
	case *unix.SockaddrInet6:
		l.Kind, l.Host, l.Port = TCP, (&net.IPAddr{IP: sa.Addr[:], Zone: zoneName(sa.ZoneId)}).String(), sa.Port
		l.Wildcard = sa.Addr == [16]byte{}
	case *unix.SockaddrUnix:
		l.Kind, l.Path = Unix, sa.Name
	default:
		return unix.EAFNOSUPPORT
	}
	return nil
}

func zoneName(id uint32) string {
	if id == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(id)); err == nil {
		return i.Name
	}
	return strconv.Itoa(int(id))
}
