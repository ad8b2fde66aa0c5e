package transport

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
	"spvn/gosrc/observe"
)

// phase is where a connection is in its life.
type phase uint8

const (
	open      phase = iota
	finishing       // Close was called; output still has to leave
	lingering       // the write side is shut; input is discarded until the peer closes
	gone
)

// conn is one connection of a poll loop, and the call.Carrier of its protocol.
type conn struct {
	loop     *Loop
	protocol call.Protocol

	fd         int32
	index      uint32 // in Loop.conns
	generation uint32 // guards against events of the connection that had the index before

	phase    phase
	paused   bool // reading is paused
	peerDone bool // FIN was read
	hungUp   bool // FIN was reported by epoll, and the protocol told; it may not be read yet
	blocked  bool // waits for EPOLLOUT
	dirty    bool // listed in Loop.dirty
	inWheel  bool
	idle     bool   // has no call in flight
	listed   bool   // in Loop.idle: nor output that waits
	interest uint32 // what epoll was told

	out     []byte // output; the first outAt bytes have left
	outAt   int
	held    int // bytes of output counted in Config.Outputs: those the kernel refused
	discard int // bytes still to be discarded while lingering

	origin string // the address that Config.Gate counted; empty: none

	protocolAt int64 // the protocol's deadline
	writeAt    int64 // the write or linger deadline

	wheelTick            int64
	wheelNext, wheelPrev *conn
	idleNext, idlePrev   *conn
}

var (
	_ call.Carrier  = (*conn)(nil)
	_ call.Switcher = (*conn)(nil)
)

// Switch implements call.Switcher.
func (c *conn) Switch(p call.Protocol) { c.protocol = p }

// Now implements call.Carrier.
func (c *conn) Now() int64 { return c.loop.now }

// Buffer implements call.Carrier. What has left makes room first: the output of a stream
// whose client is never quite done with it would grow by all that it ever sent.
func (c *conn) Buffer() []byte {
	switch {
	case c.out == nil:
		c.out = c.loop.buffer()
	case c.outAt > 0 && c.outAt >= len(c.out)-c.outAt:
		c.out, c.outAt = c.out[:copy(c.out, c.out[c.outAt:])], 0
	}
	return c.out
}

// Commit implements call.Carrier.
func (c *conn) Commit(b []byte) {
	if c.phase != open {
		return
	}
	c.out = b
	if c.listed {
		c.loop.idle.remove(c)
	}
	if c.blocked {
		c.hold()
	} else if !c.dirty {
		c.loop.soil(c)
	}
}

// hold counts the output that waits for the peer. Output that leaves at once is not worth it.
func (c *conn) hold() {
	n := len(c.out) - c.outAt
	c.loop.config.Outputs.Add(n - c.held)
	c.held = n
}

// Buffered implements call.Carrier.
func (c *conn) Buffered() int { return len(c.out) - c.outAt }

// Pause implements call.Carrier.
func (c *conn) Pause() {
	if !c.paused {
		c.paused = true
		c.loop.counters.Add(observe.ConnectionsPaused, 1)
		c.loop.counters.Add(observe.ConnectionsReadsPaused, 1)
		c.watch()
	}
}

// Resume implements call.Carrier.
func (c *conn) Resume() {
	if c.paused {
		c.paused = false
		c.loop.counters.Dec(observe.ConnectionsReadsPaused)
		c.watch()
	}
}

// Deadline implements call.Carrier.
func (c *conn) Deadline(at int64) {
	c.protocolAt = at
	if at != 0 && c.phase != gone {
		c.loop.wheel.set(c, at)
	}
}

// Idle implements call.Carrier.
func (c *conn) Idle(idle bool) {
	if idle == c.idle || c.phase != open {
		return
	}
	c.idle = idle
	if idle {
		c.rest()
		c.loop.counters.Add(observe.ConnectionsIdle, 1)
	} else {
		if c.listed {
			c.loop.idle.remove(c)
		}
		c.loop.counters.Dec(observe.ConnectionsIdle)
	}
}

// rest lists the connection as one that may be closed to make room, if it is idle and its last
// answer has left.
func (c *conn) rest() {
	if c.idle && !c.listed && c.Buffered() == 0 {
		c.loop.idle.push(c)
	}
}

// Close implements call.Carrier.
func (c *conn) Close() {
	if c.phase != open {
		return
	}
	if !c.idle || c.outAt < len(c.out) {
		c.discard = lingerBytes // else there is no answer that the peer could miss
	}
	c.Idle(false)
	c.phase = finishing
	if !c.dirty && !c.blocked {
		c.loop.soil(c)
	}
}

// Abort implements call.Carrier.
func (c *conn) Abort() {
	if c.phase == gone {
		return
	}
	if c.outAt < len(c.out) && !c.blocked {
		// What the app sent before its end is not kept back; whether it arrives is not
		// waited for.
		if n, errno := write(int(c.fd), c.out[c.outAt:]); errno == 0 {
			c.loop.counters.Add(observe.BytesOut, uint64(n))
		}
	}
	c.reset()
	c.destroy()
}

// reset makes the kernel send a reset instead of a FIN, so that a cut answer does not look
// complete. Disconnecting does that at once, even if a child of the app has a copy of the
// descriptor, which SO_LINGER would wait for.
func (c *conn) reset() {
	var unspecified [16]byte // AF_UNSPEC
	unix.RawSyscall(unix.SYS_CONNECT, uintptr(c.fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
}

// watch tells epoll what the connection waits for now.
func (c *conn) watch() {
	if c.phase == gone {
		return
	}
	events := uint32(0)
	if !c.peerDone {
		if !c.hungUp {
			events |= unix.EPOLLRDHUP
		}
		if !c.paused || c.phase == lingering {
			events |= unix.EPOLLIN
		}
	}
	if c.blocked {
		events |= unix.EPOLLOUT
	}
	if events == c.interest {
		return
	}
	c.interest = events
	c.loop.epollCtl(unix.EPOLL_CTL_MOD, int(c.fd), events, c.index, c.generation)
}

// readable reads once and hands what came to the protocol.
func (c *conn) readable(events uint32) {
	l := c.loop
	hangUp := events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	if c.paused && c.phase != lingering {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.lose()
			return
		}
		if events&unix.EPOLLRDHUP != 0 {
			c.hangUp(false)
		}
		return
	}
	if c.peerDone {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.lose()
		}
		return
	}
	input := l.input
	if l.config.Bodies.Over() {
		input = input[:tightRead] // a protocol takes all that was read
	}
	n, errno := read(int(c.fd), input)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		c.lose()
		return
	case n == 0:
		c.eof(false)
		return
	}
	l.counters.Add(observe.BytesIn, uint64(n))
	if c.phase != open {
		// Nobody wants it; it is read so that the peer gets to read the last answer.
		if c.discard -= n; c.discard <= 0 {
			c.destroy()
		}
		return
	}
	c.protocol.Receive(l.input[:n])
	if !hangUp || n == len(l.input) || c.phase == gone {
		return
	}
	// The FIN came with these bytes, or right behind them.
	if c.paused {
		if c.phase == open && events&unix.EPOLLERR == 0 && c.unread() == 0 {
			c.hangUp(true)
		}
	} else {
		if m, errno := read(int(c.fd), l.input); errno == 0 && m == 0 {
			c.eof(true)
		} else if errno == 0 {
			c.protocol.Receive(l.input[:m])
		} else if errno != unix.EAGAIN {
			c.lose()
		}
	}
}

// eof takes note that the peer has closed its side.
func (c *conn) eof(together bool) {
	c.peerDone = true
	if c.phase == lingering {
		c.destroy()
		return
	}
	c.watch()
	if c.phase == open && !c.hungUp {
		c.hungUp = true
		c.protocol.PeerClosed(together, 0)
	}
}

// hangUp tells the protocol of a FIN that cannot be read yet, because reading is paused.
// Once it goes on, what the kernel still has is read as usual.
func (c *conn) hangUp(together bool) {
	if !c.hungUp {
		c.hungUp = true
		c.watch()
		c.protocol.PeerClosed(together, c.unread())
	}
}

// unread is how many bytes the kernel holds for this connection.
func (c *conn) unread() int {
	n, _ := unix.IoctlGetInt(int(c.fd), unix.TIOCINQ)
	return n
}

// flush hands the output to the kernel.
func (c *conn) flush() {
	l := c.loop
	for c.outAt < len(c.out) {
		n, errno := write(int(c.fd), c.out[c.outAt:])
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EAGAIN {
			if !c.blocked {
				c.blocked = true
				l.counters.Add(observe.ConnectionsOutputFull, 1)
				c.writeDeadline()
				c.watch()
			}
			c.hold()
			return
		}
		if errno != 0 {
			c.lose()
			return
		}
		l.counters.Add(observe.BytesOut, uint64(n))
		c.outAt += n
		if c.outAt == len(c.out) {
			l.recycle(c.out)
			c.out, c.outAt = nil, 0
		}
		if c.phase == open {
			c.protocol.Sent(n) // may add output
			if c.phase == gone {
				return
			}
		}
		if c.blocked {
			c.writeDeadline()
		}
	}
	if c.blocked {
		c.hold()
		c.blocked = false
		c.writeAt = 0
		c.watch()
	}
	if c.phase == finishing {
		c.linger()
		return
	}
	c.rest()
}

func (c *conn) writeDeadline() {
	if t := c.loop.config.WriteTimeout; t > 0 {
		c.writeAt = c.loop.now + int64(t)
		c.loop.wheel.set(c, c.writeAt)
	}
}

// linger shuts the write side and waits a little for the peer to close: closing with
// unread input would make the kernel reset the connection and the peer lose the answer.
func (c *conn) linger() {
	if c.peerDone || c.discard == 0 {
		c.destroy()
		return
	}
	unix.Shutdown(int(c.fd), unix.SHUT_WR)
	c.phase = lingering
	c.protocolAt = 0
	c.writeAt = c.loop.now + int64(lingerTime)
	c.loop.wheel.set(c, c.writeAt)
	c.watch()
}

// due handles a deadline, or puts it where it belongs now.
func (c *conn) due() {
	now := c.loop.now
	if c.writeAt != 0 && c.writeAt <= now {
		if c.phase != lingering {
			c.loop.counters.Add(observe.TimedOutWrite, 1)
			c.reset()
			c.lose()
			return
		}
		c.destroy()
		return
	}
	if c.protocolAt != 0 && c.protocolAt <= now && c.phase == open {
		if !c.idle || !c.served() {
			c.protocolAt = 0
			c.protocol.Timeout()
		}
	}
	if c.phase == gone {
		return
	}
	at := c.writeAt
	if at == 0 || c.protocolAt != 0 && c.protocolAt < at {
		at = c.protocolAt
	}
	if at != 0 {
		c.loop.wheel.set(c, at)
	}
}

// served reads once more before an idle connection is closed, so that no request is lost
// that the peer sent in time. It reports whether there was something, or the end.
func (c *conn) served() bool {
	if c.paused {
		return false
	}
	n, errno := read(int(c.fd), c.loop.input)
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0 || n == 0:
		c.lose()
		return true
	}
	c.loop.counters.Add(observe.BytesIn, uint64(n))
	c.protocol.Receive(c.loop.input[:n])
	return true
}

// drain tells the protocol that the server stops.
func (c *conn) drain() {
	if c.phase == open && c.idle {
		c.served()
	}
	if c.phase == open {
		c.protocol.Drain()
	}
}

// lose ends a connection that is gone, and tells its protocol.
func (c *conn) lose() {
	tell := c.phase == open
	c.destroy()
	if tell {
		c.protocol.Lost()
	}
}

// destroy closes the descriptor and gives everything back.
func (c *conn) destroy() {
	if c.phase == gone {
		return
	}
	l := c.loop
	c.Idle(false)
	if c.paused {
		l.counters.Dec(observe.ConnectionsReadsPaused)
	}
	c.phase = gone
	l.wheel.remove(c)
	if c.out != nil {
		l.recycle(c.out)
		c.out, c.outAt = nil, 0
	}
	c.hold()
	// In this order: a child that the app forked may hold a copy of the descriptor, which
	// would keep it in the epoll set and the connection alive.
	l.epollCtl(unix.EPOLL_CTL_DEL, int(c.fd), 0, 0, 0)
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(c.fd), unix.SHUT_RDWR, 0)
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(c.fd), 0, 0)
	l.forget(c)
}

func read(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// write is send(2), since an app may give SIGPIPE its deadly default back.
func write(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
