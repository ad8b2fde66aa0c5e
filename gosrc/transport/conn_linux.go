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
	spoke    bool   // something came since it became idle
	waits    bool   // in Loop.unread
	refused  bool   // the kernel did not take all of a body that was given to it at once
	switched bool   // its protocol has its own idea of how long output may wait
	news     uint8  // events since reading was paused
	interest uint32 // what epoll was told
	missed   uint32 // events that were not acted upon to the end: there may be input that is no news to epoll

	out     []byte // output; the first outAt bytes have left
	outAt   int
	behind  *backlog // output behind out; nil: none
	held    int      // bytes of output counted in Config.Outputs: those the kernel refused
	discard int32    // bytes still to be discarded while lingering
	unacked int32    // bytes of output that the kernel had and the peer had not, when that was last looked at
	takenAt int64    // when the peer was last seen to take output

	restedAt uint32 // Loop.milliseconds when it became idle
	early    int32  // bytes that left already in CommitBody, which the protocol was not told of

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
func (c *conn) Switch(p call.Protocol) {
	c.protocol, c.switched = p, true
	c.writeAt = 0
}

// Now implements call.Carrier.
func (c *conn) Now() int64 { return c.loop.now }

// Buffer implements call.Carrier. What has left makes room first: the output of a stream
// whose client is never quite done with it would grow by all that it ever sent.
func (c *conn) Buffer() []byte {
	switch {
	case c.behind != nil:
		return c.behind.last()
	case c.out == nil:
		c.out = c.loop.buffer()
	case len(c.out)-c.outAt >= c.pieceSize():
		c.behind = new(backlog)
		return c.behind.last()
	case c.outAt > 0 && c.outAt >= len(c.out)-c.outAt:
		c.out, c.outAt = c.out[:copy(c.out, c.out[c.outAt:])], 0
	}
	return c.out
}

// pieceSize is how long c.out may get before what follows goes into pieces of their own. What leaves in this turn
// is better off in one write, and in a buffer that is used again.
func (c *conn) pieceSize() int {
	if c.blocked || c.refused {
		return pieceSize
	}
	return keepSome * 3 / 4
}

// Commit implements call.Carrier.
func (c *conn) Commit(b []byte) {
	if c.phase != open {
		return
	}
	if c.behind != nil {
		c.behind.commit(b)
	} else {
		c.out = b
	}
	if c.listed {
		c.loop.idle.remove(c)
	}
	if c.blocked || c.refused || c.behind != nil {
		c.hold()
	}
	if !c.blocked && !c.dirty {
		c.loop.soil(c)
	}
}

// CommitBody implements call.Carrier. What the kernel takes at once is not copied; what it
// refuses waits with the rest.
func (c *conn) CommitBody(b, body []byte) {
	if len(body) < directBody || c.blocked || c.outAt > 0 || c.behind != nil || c.phase != open {
		c.Commit(append(b, body...))
		return
	}
	n, errno := writeBoth(int(c.fd), b, body)
	if errno != 0 {
		n = 0 // flush meets it again, where a connection may be lost
	}
	c.loop.counters.Add(observe.BytesOut, uint64(n))
	c.early += int32(n)
	c.refused = n < len(b)+len(body)
	if left := n - len(b); left >= 0 {
		b, n = append(b[:0], body[left:]...), 0
	} else {
		b = append(b, body...)
	}
	c.outAt = n
	c.Commit(b)
}

// hold counts the output that waits for the peer. Output that leaves at once is not worth it.
func (c *conn) hold() {
	n := c.Buffered()
	c.loop.config.Outputs.Add(n - c.held)
	c.held = n
}

// Buffered implements call.Carrier.
func (c *conn) Buffered() int {
	n := len(c.out) - c.outAt
	if c.behind != nil {
		n += c.behind.bytes
	}
	return n
}

// TakenAt implements call.Carrier.
func (c *conn) TakenAt() int64 {
	n, _ := unix.IoctlGetInt(int(c.fd), unix.TIOCOUTQ)
	if int32(n) < c.unacked {
		c.takenAt = c.loop.now
	}
	c.unacked = int32(n)
	return c.takenAt
}

// outLeft takes note that c.out has left. The next piece takes its place.
func (c *conn) outLeft() {
	c.loop.recycle(c.out)
	c.out, c.outAt, c.refused = nil, 0, false
	if c.behind != nil {
		if c.out = c.behind.next(); len(c.behind.pieces) == 0 {
			c.behind = nil
		}
	}
}

// Pause implements call.Carrier. Most pauses are brief: epoll hears of one only when more comes meanwhile.
func (c *conn) Pause() {
	if !c.paused {
		c.paused = true
		c.loop.counters.Add(observe.ConnectionsPaused, 1)
		c.loop.counters.Add(observe.ConnectionsReadsPaused, 1)
	}
}

// Resume implements call.Carrier.
func (c *conn) Resume() {
	if c.paused {
		c.paused = false
		c.loop.counters.Dec(observe.ConnectionsReadsPaused)
		c.news = 0
		c.watch()
		c.readSoon()
	}
}

// readSoon has the loop read in its next turn, if there may be input that epoll will not report.
func (c *conn) readSoon() {
	if c.missed != 0 && !c.waits && c.reads() {
		c.waits = true
		c.loop.unread = append(c.loop.unread, c)
	}
}

// reads says whether what comes is read.
func (c *conn) reads() bool { return !c.paused && c.phase != gone || c.phase == lingering }

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
		c.spoke = false
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
		c.restedAt = c.loop.milliseconds()
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
	if c.switched && c.blocked {
		c.writeDeadline()
	}
	if !c.dirty && !c.blocked {
		c.loop.soil(c)
	}
}

// Abort implements call.Carrier.
func (c *conn) Abort() {
	if c.phase == gone {
		return
	}
	for c.outAt < len(c.out) && !c.blocked {
		// What the app sent before its end is not kept back; whether it arrives is not
		// waited for.
		n, errno := write(int(c.fd), c.out[c.outAt:])
		if errno == 0 {
			c.loop.counters.Add(observe.BytesOut, uint64(n))
		}
		if errno != 0 || c.outAt+n < len(c.out) {
			break
		}
		c.outLeft()
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
		if c.reads() {
			events |= unix.EPOLLIN
		}
	}
	if c.blocked {
		events |= unix.EPOLLOUT
	}
	if events != c.interest {
		// Events are edge-triggered, as the kernel would look at every ready socket twice otherwise; a new
		// interest has it look again at what is there already.
		c.interest = events
		c.loop.epollCtl(unix.EPOLL_CTL_MOD, int(c.fd), events|unix.EPOLLET, c.index, c.generation)
	}
}

// readable reads once and hands what came to the protocol.
func (c *conn) readable(events uint32) {
	l := c.loop
	if !c.reads() {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.broken()
			return
		}
		c.missed |= events
		if c.news++; c.news == longPause {
			c.watch()
		}
		if events&unix.EPOLLRDHUP != 0 {
			c.hangUp(false)
		}
		return
	}
	if c.peerDone {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.broken()
		}
		return
	}
	events |= c.missed
	c.missed = 0
	hangUp := events&hangUps != 0
	input := l.input
	var lander call.Lander
	if l.config.Bodies.Over() {
		input = input[:tightRead] // a protocol takes all that was read
	} else if p, ok := c.protocol.(call.Lander); ok && c.phase == open {
		if target := p.Target(); target != nil {
			lander, input = p, target
		}
	}
	n, errno := read(int(c.fd), input)
	if lander != nil && (errno != 0 || n == 0) {
		lander.Landed(0)
	}
	switch {
	case errno == unix.EAGAIN:
		return
	case errno != 0:
		c.broken()
		return
	case n == 0:
		c.eof(false)
		return
	}
	l.counters.Add(observe.BytesIn, uint64(n))
	if n == len(input) {
		c.missed = events
		c.readSoon()
	}
	if c.phase != open {
		// Nobody wants it; it is read so that the peer gets to read the last answer.
		if c.discard -= int32(n); c.discard <= 0 {
			c.destroy()
		}
		return
	}
	if lander != nil {
		lander.Landed(n)
	} else {
		c.protocol.Receive(input[:n])
	}
	if c.listed && !c.spoke {
		// A request has begun to arrive: of the idle ones it is the last that should be closed.
		c.spoke = true
		l.idle.remove(c)
		c.rest()
	}
	if !hangUp || n == len(input) || c.phase == gone {
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
			c.missed = events
			c.readSoon()
			c.protocol.Receive(l.input[:m])
		} else if errno != unix.EAGAIN {
			c.broken()
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
	if c.early > 0 {
		n := int(c.early)
		c.early = 0
		if c.outAt == len(c.out) {
			c.outLeft()
		}
		if c.phase == open {
			c.protocol.Sent(n) // may add output
			if c.phase == gone {
				return
			}
		}
	}
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
			c.broken()
			return
		}
		l.counters.Add(observe.BytesOut, uint64(n))
		c.outAt += n
		if c.outAt == len(c.out) {
			c.outLeft()
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
	if c.held > 0 {
		c.hold()
	}
	if c.blocked {
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

// writeDeadline is set whenever the kernel has taken output of a connection that waits for its peer.
func (c *conn) writeDeadline() {
	c.TakenAt()
	c.takenAt = c.loop.now
	if t := int64(c.loop.config.WriteTimeout); t > 0 && !(c.switched && c.phase == open) {
		c.writeAt = c.loop.now + t
		c.loop.wheel.set(c, c.loop.now+t/takenLooks)
	}
}

// takenLooks is how often it is looked whether the peer takes what waits while it may take nothing. What it took is as
// old as the look that found it.
const takenLooks = 4

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
	c.readSoon()
}

// due handles a deadline, or puts it where it belongs now.
func (c *conn) due() {
	now := c.loop.now
	timeout, look := int64(c.loop.config.WriteTimeout), int64(0)
	switch {
	case c.writeAt == 0:
	case c.phase == lingering:
		if c.writeAt <= now {
			c.destroy()
			return
		}
	default:
		// The kernel takes more only once much of its buffer is free: the peer may read, but slowly.
		if c.writeAt = c.TakenAt() + timeout; c.writeAt <= now {
			c.loop.counters.Add(observe.TimedOutWrite, 1)
			c.reset()
			c.lose()
			return
		}
		look = min(c.writeAt, now+timeout/takenLooks)
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
	if look != 0 && at != 0 {
		at = look
	}
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
	if n == len(c.loop.input) {
		c.missed = unix.EPOLLIN
		c.readSoon()
	}
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

// broken is lose of a connection that the peer reset, or whose peer is gone.
func (c *conn) broken() {
	if c.phase == open || c.phase == finishing {
		c.loop.counters.Add(observe.ConnectionsReset, 1)
	}
	c.lose()
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
		c.out, c.outAt, c.behind = nil, 0, nil
	}
	c.hold()
	// In this order: a child that the app forked may hold a copy of the descriptor, which
	// would keep it in the epoll set and the connection alive.
	l.epollCtl(unix.EPOLL_CTL_DEL, int(c.fd), 0, 0, 0)
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(c.fd), unix.SHUT_RDWR, 0)
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(c.fd), 0, 0)
	l.forget(c)
}

// read is recv(2), which has less to look at than read(2).
func read(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// write is send(2), since an app may give SIGPIPE its deadly default back.
func write(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// writeBoth is write of a and b, one behind the other.
func writeBoth(fd int, a, b []byte) (int, unix.Errno) {
	parts := [2]unix.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
	parts[0].SetLen(len(a))
	parts[1].SetLen(len(b))
	message := unix.Msghdr{Iov: &parts[0], Iovlen: 2}
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), unix.MSG_NOSIGNAL)
	return int(n), errno
}
