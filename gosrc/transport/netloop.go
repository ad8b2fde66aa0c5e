package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// NetLoop is the transport for systems without epoll and for streams that are no sockets.
// It has the methods of Loop. One goroutine, the loop, runs all protocols and the engine,
// exactly as a poll loop does; each connection adds one goroutine that reads and one that
// writes, which only move bytes and post to the loop. They end when the connection is
// closed, the loop's own helpers when the loop ends.
//
// One thing it cannot do: while reading is paused it does not see that a peer has left.
type NetLoop struct {
	config   *Config
	shared   *Shared
	engine   Engine
	counters *observe.Shard
	index    int
	bell     *os.File

	now       int64
	conns     map[*netConn]struct{}
	dirty     []*netConn
	idled     uint64
	listeners []*netListener
	draining  bool
	stopped   bool

	mailbox  sync.Mutex
	messages []func() // guarded by mailbox
	ended    bool     // guarded by mailbox
	wake     chan struct{}
	done     chan struct{}
}

// NewNetLoop makes loop i. bell is the doorbell that workers ring; the loop owns it.
func NewNetLoop(i, bell int, config *Config, shared *Shared, engine Engine) (*NetLoop, error) {
	return &NetLoop{
		config: config, shared: shared, engine: engine, counters: config.Counters[i], index: i,
		bell:  os.NewFile(uintptr(bell), "doorbell"),
		now:   link.Monotonic(),
		conns: map[*netConn]struct{}{},
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
	}, nil
}

// Start runs the loop until Stop.
func (l *NetLoop) Start() {
	go l.aside("doorbell's reader", nil, l.listenToBell)
	go l.run()
}

// aside is a goroutine beside the loop's. A panic of it costs its connection, if it has one; the
// counters are the loop's.
func (l *NetLoop) aside(what string, c *netConn, f func()) {
	defer func() {
		if p := recover(); p != nil {
			stack := debug.Stack()
			l.Post(func() {
				l.panicked(what, p, stack)
				if c != nil {
					c.lose()
				}
			})
		}
	}()
	f()
}

func (l *NetLoop) panicked(what string, problem any, stack []byte) {
	l.counters.Add(observe.LoopPanics, 1)
	l.config.Log("error", "panic", fmt.Sprintf("internal error in a %s, please report it: %v\n%s", what, problem, stack))
}

// Done is closed when the loop has ended and closed all its connections.
func (l *NetLoop) Done() <-chan struct{} { return l.done }

// Post has f run on the loop's goroutine, soon. After the loop's end f is not run.
func (l *NetLoop) Post(f func()) {
	l.mailbox.Lock()
	if !l.ended {
		l.messages = append(l.messages, f)
	}
	l.mailbox.Unlock()
	l.nudge()
}

func (l *NetLoop) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Stop ends the loop: its connections are closed at once.
func (l *NetLoop) Stop() { l.Post(func() { l.stopped = true }) }

// listenToBell wakes the loop when a worker rings. Closing the bell ends it.
func (l *NetLoop) listenToBell() {
	var count [8]byte
	for {
		if _, err := l.bell.Read(count[:]); err != nil {
			return
		}
		l.nudge()
	}
}

func (l *NetLoop) run() {
	defer close(l.done)
	for !l.stopped {
		l.guard("loop", l.turn)
	}
	l.closeListeners()
	for c := range l.conns {
		l.guard("connection", c.lose)
	}
	l.mailbox.Lock()
	l.ended = true
	l.mailbox.Unlock()
	l.engine.Publish()
	l.turnEnds()
	l.bell.Close()
}

func (l *NetLoop) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.panicked(what, p, debug.Stack())
		}
	}()
	f()
}

func (l *NetLoop) turn() {
	l.wait()
	l.now = link.Monotonic()
	l.engine.Wake(l.now)
	l.counters.Add(observe.LoopWakeups, 1)
	l.mailbox.Lock()
	messages := l.messages
	l.messages = nil
	l.mailbox.Unlock()
	for _, f := range messages {
		l.guard("message", f)
	}
	l.engine.Publish()
	for n := 0; n < turnsAWakeUp && l.engine.Turn(); n++ {
		l.flush()
		l.engine.Publish()
	}
	l.flush()
	l.engine.Publish()
	l.turnEnds()
}

func (l *NetLoop) wait() {
	limit, ok := l.engine.Arm(false)
	if !ok {
		return
	}
	if limit == 0 {
		<-l.wake
		return
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-l.wake:
	case <-t.C:
	}
}

func (l *NetLoop) flush() {
	for i := 0; i < len(l.dirty); i++ {
		c := l.dirty[i]
		c.dirty = false
		if c.phase != gone {
			l.guard("connection", c.flush)
		}
	}
	l.dirty = l.dirty[:0]
}

// Listen, on the loop's goroutine, accepts connections from a listening socket, whose
// descriptor is duplicated.
func (l *NetLoop) Listen(fd int, local call.Addr, wildcard, unixSocket bool) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), "listener")
	ln, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return err
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	own := &netListener{Listener: ln, address: local, wildcard: wildcard}
	l.listeners = append(l.listeners, own)
	go l.aside("listener", nil, func() { l.accept(own) })
	return nil
}

// netListener is a listening socket of a NetLoop.
type netListener struct {
	net.Listener
	address  call.Addr
	wildcard bool // the local address is the connection's own
}

// local is the address that a connection's client knows.
func (ln *netListener) local(nc net.Conn) call.Addr {
	if ln.wildcard {
		return netAddr(nc.LocalAddr())
	}
	return ln.address
}

// accept ends when its listener is closed.
func (l *NetLoop) accept(ln *netListener) {
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			l.Post(func() {
				l.counters.Add(observe.AcceptErrors, 1)
				l.config.Log("warning", "accept", fmt.Sprintf("cannot accept connections: %v", err))
				l.shed(shedAtOnce, youngAge*time.Millisecond)
			})
			time.Sleep(acceptPause) // the kernel's backlog keeps who comes
			continue
		}
		l.Post(func() { l.adopt(nc, netAddr(nc.RemoteAddr()), ln.local(nc)) })
	}
}

func netAddr(a net.Addr) call.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return call.Addr{Host: a.AddrPort().Addr().Unmap().String(), Port: int32(a.Port)}
	case *net.UnixAddr:
		if a != nil {
			return call.Addr{Host: a.Name, Port: -1}
		}
	}
	return call.Addr{Port: -1}
}

// adopt takes over a connection.
func (l *NetLoop) adopt(nc net.Conn, peer, local call.Addr) {
	if limit := l.config.MaxConnections; limit > 0 && l.shared.open.Load() >= int64(limit) && l.shed(1, 0) == 0 {
		l.counters.Add(observe.ConnectionsOverLimit, 1)
		nc.Close()
		return
	}
	gate := l.config.Gate
	if gate != nil && peer.Port >= 0 {
		if ok, reason := gate.enter(peer.Host, l.now); !ok {
			l.counters.Add(reason, 1)
			l.config.Log("warning", reason.String(), fmt.Sprintf("a connection from %s was closed at once (%s)", peer.Host, reason))
			nc.Close()
			return
		}
	}
	c := &netConn{loop: l, nc: nc, more: make(chan bool, 2), output: make(chan []byte, 1), idle: true}
	if gate != nil && peer.Port >= 0 {
		c.origin = peer.Host
	}
	c.rest()
	l.conns[c] = struct{}{}
	l.shared.open.Add(1)
	l.counters.Add(observe.ConnectionsAccepted, 1)
	l.counters.Add(observe.ConnectionsOpen, 1)
	l.counters.Add(observe.ConnectionsIdle, 1)
	c.protocol = l.config.NewProtocol(l.index, c, peer, local, call.HTTP)
	go l.aside("connection's reader", c, c.read)
	go l.aside("connection's writer", c, c.write)
	if l.draining {
		c.drain()
	}
}

// shed closes up to n of the longest idle connections and returns how many it found. Those
// that have something to say after all stay, and so do those that have been idle for less than age.
func (l *NetLoop) shed(n int, age time.Duration) int {
	found := 0
	for ; found < n; found++ {
		var oldest *netConn
		for c := range l.conns {
			if c.idle && c.Buffered() == 0 && c.then == nil && (oldest == nil || c.idleSince < oldest.idleSince) {
				oldest = c
			}
		}
		if oldest == nil || l.now-oldest.restedAt < int64(age) {
			break
		}
		oldest.lookFirst(func(heard bool) {
			if !heard && oldest.idle {
				l.counters.Add(observe.ConnectionsShed, 1)
				oldest.lose()
			}
		})
	}
	return found
}

// Drain, on the loop's goroutine, says that the server stops: what is in the listeners'
// backlogs is accepted and served, they close, and every connection is told.
func (l *NetLoop) Drain() {
	l.draining = true
	for c := range l.conns {
		if c.phase == open {
			l.guard("connection", c.drain)
		}
	}
	for _, ln := range l.listeners {
		l.acceptAll(ln)
	}
	l.closeListeners()
}

// acceptAll takes what is left in the backlog before the listener closes.
func (l *NetLoop) acceptAll(ln *netListener) {
	s, ok := ln.Listener.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd := -1
		raw.Control(func(listener uintptr) { fd, _, err = unix.Accept(int(listener)) })
		if err != nil || fd < 0 {
			return
		}
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "connection")
		nc, err := net.FileConn(f)
		f.Close()
		if err == nil {
			l.adopt(nc, netAddr(nc.RemoteAddr()), ln.local(nc))
		}
	}
}

func (l *NetLoop) closeListeners() {
	for _, ln := range l.listeners {
		ln.Close()
	}
	l.listeners = nil
}

// turnEnds shows what was counted and logged.
func (l *NetLoop) turnEnds() {
	l.counters.Publish()
	if f := l.config.TurnEnds; f != nil {
		f(l.index)
	}
}
