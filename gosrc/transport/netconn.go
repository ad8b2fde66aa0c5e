package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
	"spvn/gosrc/observe"
)

const (
	netInput = 16 << 10 // what one read takes
	netChunk = 64 << 10 // the write deadline starts anew after each
)

// netConn is one connection of a NetLoop, and the call.Carrier of its protocol. Its
// fields belong to the loop's goroutine but for nc and the channels.
type netConn struct {
	origin string // the address that Config.Gate counted; empty: none

	loop     *NetLoop
	nc       net.Conn
	protocol call.Protocol

	phase     phase
	paused    bool
	peerDone  bool
	dirty     bool
	idle      bool
	idleSince uint64           // the loop's count of connections that became idle
	restedAt  int64            // when it did
	reading   bool             // the reader waits for more
	then      func(heard bool) // see lookFirst; nil: nobody asked
	writing   bool             // the writer has output

	out     []byte
	inWrite int         // bytes the writer has
	held    int         // of both, counted in Config.Outputs
	timer   *time.Timer // of the protocol's deadline
	dueAt   int64
	discard int
	patient atomic.Bool // its protocol has its own idea of how long output may wait

	more   chan bool   // loop -> reader: read on; false: end
	output chan []byte // loop -> writer; closed at the end
}

var (
	_ call.Carrier  = (*netConn)(nil)
	_ call.Switcher = (*netConn)(nil)
)

// Switch implements call.Switcher.
func (c *netConn) Switch(p call.Protocol) {
	c.protocol = p
	c.patient.Store(true)
}

// Now implements call.Carrier.
func (c *netConn) Now() int64 { return c.loop.now }

// Buffer implements call.Carrier.
func (c *netConn) Buffer() []byte { return c.out }

// Commit implements call.Carrier.
func (c *netConn) Commit(b []byte) {
	if c.phase == open {
		c.out = b
		c.soil()
		c.hold()
	}
}

// hold counts the output that has not left: the writer does not say whether it waits for the peer.
func (c *netConn) hold() {
	n := c.Buffered()
	c.loop.config.Outputs.Add(n - c.held)
	c.held = n
}

// CommitBody implements call.Carrier. Writing is another goroutine's, so body is copied.
func (c *netConn) CommitBody(b, body []byte) { c.Commit(append(b, body...)) }

// Buffered implements call.Carrier.
func (c *netConn) Buffered() int { return len(c.out) + c.inWrite }

// TakenAt implements call.Carrier.
func (c *netConn) TakenAt() int64 { return 0 }

func (c *netConn) soil() {
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// Pause implements call.Carrier.
func (c *netConn) Pause() {
	if !c.paused {
		c.paused = true
		c.loop.counters.Add(observe.ConnectionsPaused, 1)
		c.loop.counters.Add(observe.ConnectionsReadsPaused, 1)
	}
}

// Resume implements call.Carrier.
func (c *netConn) Resume() {
	if c.paused {
		c.paused = false
		c.loop.counters.Dec(observe.ConnectionsReadsPaused)
		c.readOn()
	}
}

// readOn lets the reader go on if it waits.
func (c *netConn) readOn() {
	if c.reading && !c.paused && !c.peerDone && c.phase != gone {
		c.reading = false
		c.more <- true
	}
}

// Deadline implements call.Carrier.
func (c *netConn) Deadline(at int64) {
	c.dueAt = at
	if at == 0 || c.phase == gone {
		return
	}
	wait := time.Duration(max(at-c.loop.now, 0))
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, func() { c.loop.Post(c.due) })
	} else {
		c.timer.Reset(wait)
	}
}

func (c *netConn) due() {
	if c.phase == gone || c.dueAt == 0 {
		return
	}
	if c.loop.now < c.dueAt {
		c.Deadline(c.dueAt)
		return
	}
	if c.phase != open {
		c.destroy()
		return
	}
	at := c.dueAt
	c.lookFirst(func(bool) {
		if c.dueAt == at { // whatever was heard, the protocol has not put it off
			c.dueAt = 0
			c.protocol.Timeout()
		}
	})
}

// lookFirst has f run once it is certain that the peer has sent nothing that the loop does
// not know of; heard says that there was something after all. An idle connection ends only
// so: a request that was sent in time must not be lost.
func (c *netConn) lookFirst(f func(heard bool)) {
	if c.reading || c.peerDone {
		f(false) // the reader is not at work
		return
	}
	first := c.then == nil
	c.then = f
	if first {
		c.nc.SetReadDeadline(time.Unix(1, 0)) // makes the reader come back
	}
}

// looked ends what lookFirst began.
func (c *netConn) looked(heard bool) {
	if f := c.then; f != nil {
		c.then = nil
		c.nc.SetReadDeadline(time.Time{})
		if c.phase == open {
			f(heard)
		}
	}
}

// drain tells the protocol that the server stops.
func (c *netConn) drain() {
	c.lookFirst(func(bool) { c.protocol.Drain() })
}

// Idle implements call.Carrier.
func (c *netConn) Idle(idle bool) {
	if idle == c.idle {
		return
	}
	c.idle = idle
	if idle {
		c.rest()
		c.loop.counters.Add(observe.ConnectionsIdle, 1)
	} else {
		c.loop.counters.Dec(observe.ConnectionsIdle)
	}
}

// rest notes that the connection is idle from now on.
func (c *netConn) rest() {
	c.loop.idled++
	c.idleSince, c.restedAt = c.loop.idled, c.loop.now
}

// Close implements call.Carrier.
func (c *netConn) Close() {
	if c.phase == open {
		if !c.idle || len(c.out) > 0 || c.writing {
			c.discard = lingerBytes // else there is no answer that the peer could miss
		}
		c.Idle(false)
		c.phase = finishing
		if t := c.loop.config.WriteTimeout; t > 0 && c.patient.Swap(false) {
			c.nc.SetWriteDeadline(time.Now().Add(t)) // of a write that waits
		}
		c.dueAt = 0 // of the protocol, which is done
		c.soil()
	}
}

// Abort implements call.Carrier.
func (c *netConn) Abort() {
	if c.phase == gone {
		return
	}
	if len(c.out) > 0 && !c.writing {
		c.writeNow(c.out)
	}
	if t, ok := c.nc.(*net.TCPConn); ok {
		t.SetLinger(0) // a cut answer must not look complete: a reset, not a FIN
	}
	c.destroy()
}

// writeNow writes what the kernel takes at once, so that what the app sent before its end
// is not kept back.
func (c *netConn) writeNow(b []byte) {
	if s, ok := c.nc.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) })
		}
	}
}

// flush hands the output to the writer, unless that is busy.
func (c *netConn) flush() {
	if c.writing {
		return
	}
	if len(c.out) > 0 {
		b := c.out
		c.out, c.inWrite, c.writing = nil, len(b), true
		c.output <- b
		return
	}
	if c.phase == finishing {
		c.linger()
	}
}

func (c *netConn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if c.peerDone || c.discard == 0 || !ok || half.CloseWrite() != nil {
		c.destroy()
		return
	}
	c.phase = lingering
	c.Deadline(c.loop.now + int64(lingerTime))
	c.paused = false
	c.readOn()
}

// wrote takes note of what the writer did.
func (c *netConn) wrote(n int, err error) {
	if c.phase == gone {
		return
	}
	if n > 0 {
		c.loop.counters.Add(observe.BytesOut, uint64(n))
		c.inWrite -= n
		c.hold()
		if c.phase == open {
			c.protocol.Sent(n)
		}
	}
	switch {
	case c.phase == gone:
	case err != nil:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.loop.counters.Add(observe.TimedOutWrite, 1)
			if t, ok := c.nc.(*net.TCPConn); ok {
				t.SetLinger(0)
			}
			c.lose()
			return
		}
		c.broken()
	case c.inWrite == 0:
		c.writing = false
		c.flush()
	}
}

// write is the writer's goroutine. It ends when output is closed.
func (c *netConn) write() {
	for b := range c.output {
		var err error
		for err == nil && len(b) > 0 {
			by := time.Time{} // none, also in place of an earlier one
			if t := c.loop.config.WriteTimeout; t > 0 && !c.patient.Load() {
				by = time.Now().Add(t)
			}
			c.nc.SetWriteDeadline(by)
			n, failure := c.nc.Write(b[:min(len(b), netChunk)])
			b, err = b[n:], failure
			c.loop.Post(func() { c.wrote(n, failure) })
		}
	}
}

// read is the reader's goroutine. It reads once, posts what came, and goes on when the
// loop says so, so that the buffer is the loop's meanwhile.
func (c *netConn) read() {
	buffer := make([]byte, netInput)
	for {
		b := buffer
		if c.loop.config.Bodies.Over() {
			b = buffer[:tightRead] // a protocol takes all that was read
		}
		n, err := c.nc.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Go says so without a look at the socket.
			n, err = c.readNow(b)
		}
		together := n > 0 && err == nil && c.finFollows()
		c.loop.Post(func() { c.received(buffer[:n], together, err) })
		if !<-c.more {
			return
		}
	}
}

// readNow reads what is there. n is 0 and err nil when that is nothing.
func (c *netConn) readNow(b []byte) (n int, err error) {
	s, ok := c.nc.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Control(func(fd uintptr) { n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT) }); failed != nil {
		return 0, failed
	}
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// finFollows looks whether the peer's FIN is right behind what was read.
func (c *netConn) finFollows() bool {
	s, ok := c.nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	fin := false
	raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		fin = n == 0 && err == nil
	})
	return fin
}

// received handles what the reader read.
func (c *netConn) received(b []byte, together bool, err error) {
	c.reading = true
	if c.phase == gone {
		return
	}
	if len(b) > 0 {
		c.loop.counters.Add(observe.BytesIn, uint64(len(b)))
		switch c.phase {
		case open:
			c.protocol.Receive(b)
		default:
			if c.discard -= len(b); c.discard <= 0 {
				c.destroy()
				return
			}
		}
	}
	if c.phase == gone {
		return
	}
	if together || errors.Is(err, io.EOF) {
		c.peerDone = true
		switch c.phase {
		case open:
			c.protocol.PeerClosed(together, 0)
		case lingering:
			c.destroy()
		}
		return
	}
	if err != nil {
		c.broken()
		return
	}
	c.looked(len(b) > 0)
	c.readOn()
}

// broken is lose of a connection that the peer reset, or whose peer is gone.
func (c *netConn) broken() {
	if c.phase == open || c.phase == finishing {
		c.loop.counters.Add(observe.ConnectionsReset, 1)
	}
	c.lose()
}

// lose ends a connection that is gone, and tells its protocol.
func (c *netConn) lose() {
	tell := c.phase == open
	c.destroy()
	if tell {
		c.protocol.Lost()
	}
}

func (c *netConn) destroy() {
	if c.phase == gone {
		return
	}
	l := c.loop
	c.Idle(false)
	if c.paused {
		l.counters.Dec(observe.ConnectionsReadsPaused)
	}
	c.phase = gone
	if c.timer != nil {
		c.timer.Stop()
	}
	c.out, c.inWrite = nil, 0
	c.hold()
	c.nc.Close()
	close(c.output)
	c.more <- false // the reader takes it now, or once its last read has failed
	delete(l.conns, c)
	if c.origin != "" {
		l.config.Gate.leave(c.origin, l.now)
	}
	l.shared.open.Add(-1)
	l.counters.Add(observe.ConnectionsClosed, 1)
	l.counters.Dec(observe.ConnectionsOpen)
}
