package transport

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

const (
	inputSize  = 64 << 10  // the read buffer that all connections of a loop share
	outputSize = 2 << 10   // a new output buffer
	keepOutput = 192 << 10 // a larger one is not kept
	keepSome   = 64 << 10  // of larger ones than this only a few are kept
	keepMany   = 8 << 10   // of larger ones than this only some are kept
	maxEvents  = 256       // taken in one wake-up
	briefSleep = link.NapMs
	timerSlack = 50_000 // ns by which a sleep may be longer than asked: the kernel's own default
	hangUps    = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	longPause  = 4       // events of a connection that is not read, after which epoll reports no more of them
	directBody = 4 << 10 // a part of a body this large is written without a copy

	// epoll data of what is not a connection.
	bellIndex     = ^uint32(0)
	listenerIndex = ^uint32(0) - 1 // generation: which listener
)

// Loop is a poll loop: one goroutine, one epoll set, many connections. Post, Drain, Stop
// and the counters may be used by any goroutine; everything else is the loop's own.
type Loop struct {
	config   *Config
	shared   *Shared
	engine   Engine
	counters *observe.Shard
	index    int
	epoll    int
	bell     int

	now    int64
	brisk  bool                // the last sleep was brief
	peer   unix.RawSockaddrAny // of the connection that was accepted last
	input  []byte
	events []unix.EpollEvent

	conns        []*conn // by index; nil where none is
	free         []uint32
	lastGen      uint32
	count        int
	buffers      [][]byte // output buffers, last in first out
	dirty        []*conn
	unread       []*conn // may have input that epoll does not report again
	reading      []*conn // the list before, to be used again
	wheel        wheel
	idle         idleList
	listeners    []*listener
	resumeAt     int64 // when paused listeners accept again, 0: they are not paused
	crowdedSince int64 // when they were first paused after the last connection that was let in; 0: they were not
	closing      bool  // the listeners are about to close
	draining     bool
	stopped      bool

	posted   atomic.Bool
	mailbox  sync.Mutex
	messages []func() // guarded by mailbox
	ended    bool     // guarded by mailbox: the bell is closed
	done     chan struct{}
}

// Shared is what the loops of one server share. The zero value is ready.
type Shared struct {
	open  atomic.Int64 // connections of all loops
	mu    sync.Mutex
	loops []*Loop // guarded by mu
}

// Open is how many connections are open in all loops.
func (s *Shared) Open() int64 { return s.open.Load() }

// NewLoop makes poll loop i. bell is the doorbell that workers ring; the loop owns it.
func NewLoop(i, bell int, config *Config, shared *Shared, engine Engine) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("transport: epoll_create: %w", err)
	}
	l := &Loop{
		config: config, shared: shared, engine: engine, counters: config.Counters[i],
		index: i, epoll: epoll, bell: bell,
		now:    link.Monotonic(),
		input:  make([]byte, inputSize),
		events: make([]unix.EpollEvent, maxEvents),
		done:   make(chan struct{}),
	}
	l.wheel.start(l.now)
	if err := l.epollCtl(unix.EPOLL_CTL_ADD, bell, unix.EPOLLIN, bellIndex, 0); err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("transport: epoll_ctl: %w", err)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.loops = append(shared.loops, l)
	return l, nil
}

// Start runs the loop in a goroutine of its own until Stop.
func (l *Loop) Start() { go l.run() }

// Done is closed when the loop has ended and closed all its connections.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Post has f run on the loop's goroutine, soon. After the loop's end f is not run.
func (l *Loop) Post(f func()) {
	l.mailbox.Lock()
	defer l.mailbox.Unlock()
	if l.ended {
		return
	}
	l.messages = append(l.messages, f)
	l.posted.Store(true)
	link.Ring(l.bell) // with the lock held: the loop's end closes the bell, and its number may be another file's then
}

// Stop ends the loop: its connections are closed at once.
func (l *Loop) Stop() { l.Post(func() { l.stopped = true }) }

func (l *Loop) run() {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) // Go's threads have more (python/spvn/_core/_load.py)
	defer close(l.done)
	defer l.closeAll()
	for !l.stopped {
		l.guard("loop", l.wakeUp)
	}
}

// guard runs f and turns a panic into a line in the log.
func (l *Loop) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.counters.Add(observe.LoopPanics, 1)
			l.config.Log("error", "panic", fmt.Sprintf("internal error in a %s, please report it: %v\n%s", what, p, debug.Stack()))
		}
	}()
	f()
}

// wakeUp is one turn: wait, read, take the workers' answers, write, look at the clock.
func (l *Loop) wakeUp() {
	n := l.wait()
	before := l.now
	l.now = link.Monotonic()
	l.brisk = l.now-before < briefSleep*1e6
	l.engine.Wake(l.now)
	l.counters.Add(observe.LoopWakeups, 1)
	unread := l.unread
	l.unread = l.reading[:0]
	for i := range n {
		l.event(&l.events[i])
	}
	l.readOn(unread)
	l.engine.Publish() // workers begin while the rest of the turn goes on
	if l.posted.Load() {
		l.readMail()
	}
	for n := 0; n < turnsAWakeUp && l.engine.Turn(); n++ {
		l.flush()
		l.engine.Publish()
	}
	if l.wheel.tick*wheelTick <= l.now {
		l.wheel.turn(l.now, func(c *conn) { l.guarded(c, c.due) })
	}
	if l.resumeAt != 0 && l.now >= l.resumeAt {
		l.resumeListeners()
	}
	l.flush()
	l.engine.Publish()
	l.turnEnds()
}

// readOn reads from connections that had more input than was read at once: once in a turn, so that none keeps the
// others waiting.
func (l *Loop) readOn(unread []*conn) {
	for i, c := range unread {
		unread[i] = nil
		c.waits = false
		switch {
		case c.phase == gone || c.missed == 0:
		case c.reads():
			l.handle(c, unix.EPOLLIN)
		case c.missed&hangUps != 0: // the protocol is to hear of it, though it does not read on
			l.handle(c, c.missed)
		}
	}
	l.reading = unread
}

// wait sleeps until something happens and returns the number of events.
func (l *Loop) wait() int {
	if len(l.unread) > 0 {
		return l.poll(0)
	}
	limit, ok := l.engine.Arm(l.brisk)
	if !ok {
		return l.poll(0)
	}
	timeout := -1
	if limit > 0 {
		timeout = max(1, int(limit/time.Millisecond))
	}
	if at := l.nextDeadline(); at != 0 {
		ms := max(0, int((at-l.now)/1e6)+1)
		if timeout < 0 || ms < timeout {
			timeout = ms
		}
	}
	return l.poll(timeout)
}

// milliseconds is the time of this turn, as small as a connection can keep it; it wraps around.
func (l *Loop) milliseconds() uint32 { return uint32(l.now / 1e6) }

func (l *Loop) nextDeadline() int64 {
	at := l.wheel.next()
	if l.resumeAt != 0 && (at == 0 || l.resumeAt < at) {
		at = l.resumeAt
	}
	return at
}

// poll sleeps for timeout ms at the most, without limit if it is negative.
//
// While something happens all the time the scheduler is not told of the sleep: its monitor
// would take the processor away and come back to see that for every sleep, which costs more
// than a processor that rests for a moment. A garbage collection that wants this thread to
// stop interrupts the sleep with a signal. A long sleep is begun only after a brief one.
func (l *Loop) poll(timeout int) int {
	if timeout == 0 {
		return l.pollRaw(0)
	}
	if l.brisk {
		brief := briefSleep
		if timeout > 0 {
			brief = min(brief, timeout)
		}
		return l.pollRaw(brief)
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), maxEvents, uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (l *Loop) pollRaw(timeout int) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), maxEvents, uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (l *Loop) event(e *unix.EpollEvent) {
	index, generation := uint32(e.Fd), uint32(e.Pad)
	switch index {
	case bellIndex:
		link.Silence(l.bell)
		return
	case listenerIndex:
		l.guard("listener", func() { l.accept(l.listeners[generation]) })
		return
	}
	if int(index) >= len(l.conns) {
		return
	}
	c := l.conns[index]
	if c == nil || c.generation != generation {
		return
	}
	l.handle(c, e.Events)
}

// handle is an event of a connection; a panic costs this connection.
func (l *Loop) handle(c *conn, events uint32) {
	defer l.recoverConn(c)
	if events&unix.EPOLLOUT != 0 {
		c.flush()
	}
	if events&^uint32(unix.EPOLLOUT) != 0 && c.phase != gone {
		c.readable(events)
	}
}

func (l *Loop) guarded(c *conn, f func()) {
	defer l.recoverConn(c)
	f()
}

func (l *Loop) recoverConn(c *conn) {
	if p := recover(); p != nil {
		l.counters.Add(observe.LoopPanics, 1)
		l.config.Log("error", "panic", fmt.Sprintf("internal error in a connection, please report it: %v\n%s", p, debug.Stack()))
		l.guard("connection", c.lose)
	}
}

func (l *Loop) readMail() {
	l.posted.Store(false)
	l.mailbox.Lock()
	messages := l.messages
	l.messages = nil
	l.mailbox.Unlock()
	for _, f := range messages {
		l.guard("message", f)
	}
}

// soil notes that a connection has output, or waits to be closed.
func (l *Loop) soil(c *conn) {
	c.dirty = true
	l.dirty = append(l.dirty, c)
}

// flush writes what connections have put out.
func (l *Loop) flush() {
	for i := 0; i < len(l.dirty); i++ { // writing may soil others
		c := l.dirty[i]
		l.dirty[i] = nil
		c.dirty = false
		if c.phase != gone {
			l.guarded(c, c.flush)
		}
	}
	l.dirty = l.dirty[:0]
}

func (l *Loop) buffer() []byte {
	if n := len(l.buffers); n > 0 {
		b := l.buffers[n-1]
		l.buffers = l.buffers[:n-1]
		return b
	}
	return make([]byte, 0, outputSize)
}

func (l *Loop) recycle(b []byte) {
	room := 1024
	switch {
	case cap(b) > keepSome:
		room = 16
	case cap(b) > keepMany:
		room = 256
	}
	if cap(b) >= outputSize && cap(b) <= keepOutput && len(l.buffers) < room {
		l.buffers = append(l.buffers, b[:0])
	}
}

func (l *Loop) epollCtl(op, fd int, events, index, generation uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(index), Pad: int32(generation)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&event)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// adopt takes over a connected socket.
func (l *Loop) adopt(fd int, peer, local call.Addr) {
	gate := l.config.Gate
	if gate != nil && peer.Port >= 0 {
		if ok, reason := gate.enter(peer.Host, l.now); !ok {
			l.counters.Add(reason, 1)
			l.config.Log("warning", reason.String(), fmt.Sprintf("a connection from %s was closed at once (%s)", peer.Host, reason))
			unix.Close(fd)
			return
		}
	}
	c := &conn{loop: l, fd: int32(fd)}
	if gate != nil && peer.Port >= 0 {
		c.origin = peer.Host
	}
	if n := len(l.free); n > 0 {
		c.index = l.free[n-1]
		l.free = l.free[:n-1]
		l.conns[c.index] = c
	} else {
		c.index = uint32(len(l.conns))
		l.conns = append(l.conns, c)
	}
	l.lastGen++
	c.generation = l.lastGen
	l.count++
	l.shared.open.Add(1)
	l.counters.Add(observe.ConnectionsAccepted, 1)
	l.counters.Add(observe.ConnectionsOpen, 1)
	c.Idle(true)
	c.interest = unix.EPOLLIN | unix.EPOLLRDHUP
	if err := l.epollCtl(unix.EPOLL_CTL_ADD, fd, c.interest|unix.EPOLLET, c.index, c.generation); err != nil {
		l.config.Log("error", "epoll", fmt.Sprintf("cannot watch a connection: %v", err))
		c.destroy()
		return
	}
	c.protocol = l.config.NewProtocol(l.index, c, peer, local, call.HTTP)
	if l.draining {
		c.protocol.Drain()
	}
}

// forget is the end of a connection's life in the loop.
func (l *Loop) forget(c *conn) {
	if c.origin != "" {
		l.config.Gate.leave(c.origin, l.now)
	}
	l.conns[c.index] = nil
	l.free = append(l.free, c.index)
	l.count--
	l.shared.open.Add(-1)
	l.counters.Add(observe.ConnectionsClosed, 1)
	l.counters.Dec(observe.ConnectionsOpen)
	l.hurry() // a descriptor is free again
}

// Drain, on the loop's goroutine, says that the server stops: what is in the listeners'
// backlogs is accepted and served, they close, and every connection is told.
func (l *Loop) Drain() {
	l.closing = true
	for _, ln := range l.listeners {
		l.acceptAll(ln)
	}
	l.closeListeners()
	l.draining = true
	for _, c := range l.conns {
		if c != nil {
			l.guarded(c, c.drain)
		}
	}
}

// Connections, on the loop's goroutine, is how many connections are open.
func (l *Loop) Connections() int { return l.count }

func (l *Loop) closeAll() {
	l.closeListeners()
	for _, c := range l.conns {
		if c != nil {
			l.guarded(c, c.lose)
		}
	}
	l.engine.Publish()
	l.turnEnds()
	unix.Close(l.epoll)
	l.mailbox.Lock()
	l.ended, l.messages = true, nil
	l.mailbox.Unlock()
	unix.Close(l.bell)
}

// turnEnds shows what was counted and logged.
func (l *Loop) turnEnds() {
	l.counters.Publish()
	if f := l.config.TurnEnds; f != nil {
		f(l.index)
	}
}
