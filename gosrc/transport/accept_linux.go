package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
	"spvn/gosrc/observe"
)

const (
	acceptsAWakeUp = 128                   // so that open connections are not starved by new ones
	acceptPause    = 50 * time.Millisecond // while there is no descriptor to be had
	shedAtOnce     = 4                     // idle connections closed when descriptors run short
	youngAge       = 100                   // ms: a connection that has just come, or been answered, may be about to speak
	patience       = time.Second           // for which young ones are kept though others wait
)

// listener is a listening socket in one loop's epoll set.
type listener struct {
	fd       int
	local    call.Addr
	wildcard bool // the local address is the connection's own
	index    uint32
	unix     bool
}

// Listen, on the loop's goroutine, accepts connections from a listening socket, which the
// loops of a server share and its owner closes when every loop has ended or drained.
func (l *Loop) Listen(fd int, local call.Addr, wildcard, unixSocket bool) error {
	ln := &listener{fd: fd, local: local, wildcard: wildcard, unix: unixSocket, index: uint32(len(l.listeners))}
	if !unixSocket {
		// Connections inherit it: an answer is one write, and waits for nothing.
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	l.listeners = append(l.listeners, ln)
	return l.watchListener(ln)
}

func (l *Loop) watchListener(ln *listener) error {
	// EXCLUSIVE: one connection wakes one loop, not all of them.
	return l.epollCtl(unix.EPOLL_CTL_ADD, ln.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, listenerIndex, ln.index)
}

func (l *Loop) closeListeners() {
	for _, ln := range l.listeners {
		l.epollCtl(unix.EPOLL_CTL_DEL, ln.fd, 0, 0, 0)
	}
	l.listeners, l.resumeAt = nil, 0
}

// pauseListeners stops accepting for a moment; the kernel's backlog keeps who comes.
func (l *Loop) pauseListeners() {
	if l.resumeAt != 0 {
		return
	}
	for _, ln := range l.listeners {
		l.epollCtl(unix.EPOLL_CTL_DEL, ln.fd, 0, 0, 0)
	}
	l.resumeAt = l.now + int64(acceptPause)
	if l.crowdedSince == 0 {
		l.crowdedSince = l.now
	}
}

func (l *Loop) resumeListeners() {
	if l.full() && !l.sheds() {
		if slices.ContainsFunc(l.listeners, waited) {
			l.askOthers(false)
		}
		l.resumeAt = l.now + int64(acceptPause)
		return
	}
	l.resumeAt = 0
	if !slices.ContainsFunc(l.listeners, waited) {
		l.crowdedSince = 0
	}
	for _, ln := range l.listeners {
		if err := l.watchListener(ln); err != nil {
			l.config.Log("error", "epoll", fmt.Sprintf("cannot watch a listener: %v; it is tried again", err))
			l.pauseListeners()
			return
		}
	}
}

// accept takes new connections, as many as one wake-up may.
func (l *Loop) accept(ln *listener) {
	for range acceptsAWakeUp {
		if !l.acceptOne(ln) {
			return
		}
	}
}

// acceptAll takes what is left in the backlog before the listener closes, also what waits there for
// room: closing the listener would reset it.
func (l *Loop) acceptAll(ln *listener) {
	for {
		fd, err := l.acceptRaw(ln)
		switch {
		case err == nil:
			l.welcome(ln, fd)
		case passing(err):
		case !exhausted(err) || !l.outOfDescriptors(ln, err):
			return
		}
	}
}

// passing says that accepting may go on: it was about this connection only.
func passing(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EPROTO)
}

// exhausted says that descriptors or the kernel's memory run short.
func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// acceptOne reports whether there may be more.
func (l *Loop) acceptOne(ln *listener) bool {
	if l.resumeAt != 0 || l.full() && !l.makeRoom(ln) {
		return false
	}
	fd, err := l.acceptRaw(ln)
	switch {
	case err == nil:
		l.crowdedSince = 0
		l.welcome(ln, fd)
		return true
	case errors.Is(err, unix.EAGAIN):
		return false
	case passing(err):
		return true
	case exhausted(err):
		return l.outOfDescriptors(ln, err)
	}
	l.counters.Add(observe.AcceptErrors, 1)
	l.config.Log("error", "accept", fmt.Sprintf("cannot accept connections: %v", err))
	l.pauseListeners()
	return false
}

// full says that no more connections may be open. Loops that accept at the same moment may each let one more in.
func (l *Loop) full() bool {
	return l.config.MaxConnections > 0 && l.shared.open.Load() >= int64(l.config.MaxConnections)
}

// makeRoom keeps to the limit on connections by closing the longest idle ones. It reports false
// when there is no room, or nobody who wants it: new ones wait in the backlog until one is closed.
func (l *Loop) makeRoom(ln *listener) bool {
	if !waited(ln) {
		return false
	}
	over := int(l.shared.open.Load()) - l.config.MaxConnections + 1 // another loop may have closed one meanwhile
	if over <= 0 || l.shed(over) > 0 {
		return true
	}
	l.counters.Add(observe.ConnectionsOverLimit, 1)
	l.config.Log("warning", "connections", fmt.Sprintf("%d connections are open and none of this loop's is idle: new ones wait", l.config.MaxConnections))
	l.askOthers(false)
	l.pauseListeners()
	return false
}

// outOfDescriptors makes room for who waits in the backlog by closing idle connections. Where
// none is idle, new ones wait until a connection is closed.
func (l *Loop) outOfDescriptors(ln *listener, cause error) bool {
	if !waited(ln) {
		return false // accept wants a descriptor before it looks whether there is anybody
	}
	l.counters.Add(observe.AcceptErrors, 1)
	l.config.Log("warning", "descriptors", fmt.Sprintf("descriptors run short (%v): the longest idle connections are closed; raise the limit on open files", cause))
	if l.shed(shedAtOnce) == 0 {
		l.askOthers(true)
		l.pauseListeners()
		return false
	}
	return true
}

// askOthers has the server's other loops close an idle connection each, since none of this one's can be: where
// descriptors run short, else while the limit on connections is reached.
func (l *Loop) askOthers(descriptors bool) {
	age := l.sparedAge()
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	for _, other := range l.shared.loops {
		if other != l {
			other.Post(func() {
				if (descriptors || other.full()) && other.shedOlder(age, 1) > 0 {
					l.Post(l.hurry)
				}
			})
		}
	}
}

// hurry has listeners that are paused accept again now.
func (l *Loop) hurry() {
	if l.resumeAt != 0 {
		l.resumeAt = l.now
	}
}

// waited says whether somebody waits in a listener's backlog.
func waited(ln *listener) bool {
	fds := [1]unix.PollFd{{Fd: int32(ln.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	for err == unix.EINTR {
		n, err = unix.Poll(fds[:], 0)
	}
	return err != nil || n > 0
}

// shed closes up to n of the longest idle connections and returns how many it closed. None is
// closed that had no time yet to say something.
func (l *Loop) shed(n int) int { return l.shedOlder(l.sparedAge(), n) }

// shedOlder is shed of those that have been idle for this many milliseconds.
func (l *Loop) shedOlder(age uint32, n int) int {
	closed := 0
	for tries := 2*n + 2; tries > 0 && closed < n && l.idle.first != nil; tries-- {
		c := l.idle.first
		if l.milliseconds()-c.restedAt < age {
			break
		}
		l.idle.remove(c) // to the end, in case that it has something to say after all
		l.idle.push(c)
		if l.shedOne(c) {
			closed++
		}
	}
	l.counters.Add(observe.ConnectionsShed, uint64(closed))
	return closed
}

// sparedAge is for how many milliseconds an idle connection is kept. Clients that never rest for
// longer must not keep new ones out for ever, nor what waits when the listeners close.
func (l *Loop) sparedAge() uint32 {
	if l.closing || l.crowdedSince != 0 && l.now-l.crowdedSince > int64(patience) {
		return 0
	}
	return youngAge
}

// sheds says that an idle connection could be closed now.
func (l *Loop) sheds() bool {
	return l.idle.first != nil && l.milliseconds()-l.idle.first.restedAt >= l.sparedAge()
}

func (l *Loop) shedOne(c *conn) (closed bool) {
	defer l.recoverConn(c)
	if c.served() {
		return c.phase == gone
	}
	c.lose()
	return true
}

// acceptRaw accepts one connection; its peer's address is then in l.peer. The listener does
// not block, so the scheduler need not hear of it.
func (l *Loop) acceptRaw(ln *listener) (int, error) {
	size := uint32(unsafe.Sizeof(l.peer))
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(ln.fd), uintptr(unsafe.Pointer(&l.peer)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func (l *Loop) welcome(ln *listener, fd int) {
	local := ln.local
	peer := call.Addr{Port: -1}
	if !ln.unix {
		peer = addrOf(&l.peer)
		if ln.wildcard {
			var own unix.RawSockaddrAny
			size := uint32(unsafe.Sizeof(own))
			_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size)))
			if errno == 0 {
				local = addrOf(&own)
			}
		}
	}
	l.adopt(fd, peer, local)
}

// addrOf is a socket address as people write it; an IPv4 peer of a dual-stack socket is
// an IPv4 address.
func addrOf(sa *unix.RawSockaddrAny) call.Addr {
	port := func(p *uint16) int32 {
		b := (*[2]byte)(unsafe.Pointer(p)) // in network order
		return int32(b[0])<<8 | int32(b[1])
	}
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return call.Addr{Host: netip.AddrFrom4(in.Addr).String(), Port: port(&in.Port)}
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return call.Addr{Host: netip.AddrFrom16(in.Addr).Unmap().String(), Port: port(&in.Port)}
	}
	return call.Addr{Port: -1}
}
