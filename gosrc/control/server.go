package control

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/dispatch"
	"spvn/gosrc/link"
	"spvn/gosrc/listen"
	"spvn/gosrc/memory"
	"spvn/gosrc/observe"
	"spvn/gosrc/transport"
	"spvn/gosrc/watch"
)

const (
	inProcessFiles = 512 // descriptors that connections leave to an app in the same process
	ownFiles       = 64  // and to the core itself otherwise,
	workerFiles    = 12  // with as many for each worker process, two of which may be there for a moment
	drainLook      = 5 * time.Millisecond
)

// server is one running server: listeners, poll loops, dispatch, workers.
type server struct {
	id       int
	config   *Config
	events   *eventQueue
	registry *observe.Registry
	counters []*observe.Shard
	dispatch *dispatch.Dispatch
	bodies   *memory.Budget // of requests
	outputs  *memory.Budget // that clients have not taken
	shared   transport.Shared
	loops    []loop
	bells    []int  // of the loops
	death    [2]int // a pipe whose write end only this process has
	logs     logs
	// stopProfile ends --profile-core; nil without it.
	stopProfile func()
	geometry    link.Geometry
	stacks      sync.Mutex // held while this process is asked for its stacks

	mu         sync.Mutex
	listeners  []*listen.Listener       // guarded by mu
	workers    map[int]*dispatch.Worker // guarded by mu
	lastWorker int                      // guarded by mu
	watchers   []*watch.Watcher         // guarded by mu
	deaths     map[int]*death           // guarded by mu; see judge
	draining   bool                     // guarded by mu
	stopping   bool                     // guarded by mu
}

func newServer(c *Config) (s *server, err error) {
	s = &server{config: c, workers: map[int]*dispatch.Worker{}, registry: observe.NewRegistry()}
	var undo []func()
	defer func() {
		if err != nil {
			for i := range undo {
				undo[len(undo)-1-i]()
			}
		}
	}()
	fd := -1
	if c.FD != nil {
		fd = *c.FD
	}
	host := "127.0.0.1"
	if c.Host != nil {
		host = *c.Host
	}
	if s.events, err = newEventQueue(); err != nil {
		return nil, fmt.Errorf("cannot make an eventfd: %w", err)
	}
	undo = append(undo, s.events.abandon)
	s.listeners, err = listen.Open(listen.Config{
		Bind: c.Bind, UDS: c.UDS, FD: fd, Host: host, Port: c.Port, Backlog: c.Backlog,
		ListenFDs: c.ListenFDs, ListenPID: c.ListenPID,
	})
	if err != nil {
		return nil, err
	}
	undo = append(undo, s.closeListeners)
	if err = unix.Pipe2(s.death[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	undo = append(undo, s.closeDeath)
	n := loopCount(c.IOThreads)
	s.geometry = link.DefaultGeometry(n)
	for range n {
		s.counters = append(s.counters, s.registry.Shard())
	}
	undo = append(undo, s.closeLogs)
	if err = s.openLogs(n); err != nil {
		return nil, err
	}
	s.bodies = memory.NewBudget(orZero(c.LimitBufferedBodies)).Thrifty()
	s.outputs = memory.NewBudget(orZero(c.LimitBufferedOutput)).Thrifty()
	s.registry.Source("memory.bodies", s.bodies.Used)
	s.registry.Source("memory.output", s.outputs.Used)
	s.dispatch = dispatch.New(s.dispatchSettings(n), s.counters)
	s.countTimers()
	config := s.transportConfig()
	for i := range n {
		bell, err := link.NewBell()
		if err != nil {
			return nil, fmt.Errorf("cannot make an eventfd: %w", err)
		}
		loop, err := s.newLoop(i, bell, config)
		if err != nil {
			unix.Close(bell)
			return nil, err
		}
		s.bells = append(s.bells, bell)
		s.loops = append(s.loops, loop)
		undo = append(undo, func() { loop.Start(); loop.Stop() }) // its end closes its descriptors
	}
	if err = s.serveControl(); err != nil {
		return nil, err
	}
	if err = s.startProfile(); err != nil {
		return nil, err
	}
	for _, loop := range s.loops {
		loop.Post(func() { s.listen(loop) })
	}
	for _, loop := range s.loops {
		loop.Start()
	}
	return s, nil
}

// loopCount is how many poll loops there are: one is enough for four cores, since most of
// a request's time is Python's.
func loopCount(asked int) int {
	if asked > 0 {
		return asked
	}
	return max(1, runtime.NumCPU()/4)
}

func (s *server) dispatchSettings(loops int) dispatch.Settings {
	settings := dispatch.Settings{
		Loops:            loops,
		QueueCalls:       dispatch.DefaultQueueCalls,
		QueueBytes:       dispatch.DefaultQueueBytes,
		QueueTimeout:     seconds(s.config.TimeoutQueue),
		WorkerTimeout:    seconds(s.config.TimeoutWorkerStart),
		Concurrency:      orZero(s.config.LimitConcurrency),
		RetryAfter:       1,
		WebSocketQueue:   s.config.WSMaxQueue,
		RetrySafe:        s.config.RetrySafe,
		RequestTimeout:   seconds(s.config.TimeoutRequest),
		FirstByteTimeout: seconds(s.config.TimeoutFirstByte),
		DeadlineField:    strings.ToLower(s.config.DeadlineHeader),
		Bodies:           s.bodies,
		Outputs:          s.outputs,
		PriorityPaths:    s.config.PriorityPaths,
		HealthCheckPath:  s.config.HealthCheckPath,
		LivenessPath:     s.config.LivenessPath,
		StallWarning:     seconds(s.config.StallWarning),
		Stalled:          s.stalled,
		Recovered:        s.recovered,
		Corrupt:          s.corrupt,
		Control:          s.fromWorker,
		Nudge:            func(loop int) { s.loops[loop].Post(func() {}) },
		Log:              s.logLine,
	}
	if s.logs.access != nil {
		settings.Access = s.access
	}
	return settings
}

// listen, on a loop's goroutine, has it accept from all listeners.
func (s *server) listen(loop loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if err := loop.Listen(l.FD, l.Local(), l.Wildcard, l.Kind == listen.Unix); err != nil {
			s.logLine("error", "listen", fmt.Sprintf("cannot accept on %s: %v", l.URL(0), err))
		}
	}
}

func (s *server) addresses() []map[string]any {
	var list []map[string]any
	for _, l := range s.listeners {
		a := map[string]any{"kind": string(l.Kind), "url": l.URL(0)}
		if l.Kind == listen.Unix {
			a["path"] = l.Path
		} else {
			a["host"], a["port"] = l.Host, l.Port
		}
		list = append(list, a)
	}
	return list
}

func (s *server) closeDeath() {
	unix.Close(s.death[0])
	unix.Close(s.death[1])
}

func (s *server) unlinkListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		l.Unlink()
	}
}

func (s *server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		l.Close()
	}
	s.listeners = nil
}

// connectionLimit is how many connections may be open, so that the app and the core keep
// some descriptors for themselves.
func (s *server) connectionLimit() int {
	if n := orZero(s.config.LimitConnections); n > 0 {
		return n
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	if limit.Cur > 1<<30 {
		return 0
	}
	keep := ownFiles + workerFiles*s.config.Workers
	if s.config.InProcess {
		keep = inProcessFiles
	}
	return max(int(limit.Cur)-keep, int(limit.Cur)/2)
}

// onLoops runs f on every loop's goroutine and returns when all have run it or ended.
func (s *server) onLoops(f func(i int)) {
	for i, loop := range s.loops {
		ran := make(chan struct{})
		loop.Post(func() {
			defer close(ran)
			f(i)
		})
		select {
		case <-ran:
		case <-loop.Done():
		}
	}
}

// drain finishes what was begun; see Drain.
func (s *server) drain(delay, grace time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.stopping {
		return
	}
	s.draining = true
	go s.guard("drain", func() {
		defer func() { s.events.add(event{Event: "drained", Left: s.dispatch.InFlight()}) }()
		look := time.NewTicker(drainLook)
		defer look.Stop()
		s.dispatch.Announce()
		for begin := time.Now(); time.Since(begin) < delay && !s.isStopping(); {
			<-look.C
		}
		deadline := time.Now().Add(grace)
		s.dispatch.Drain()
		s.unlinkListeners() // whoever connects from now on should find our successor
		s.onLoops(func(i int) { s.loops[i].Drain() })
		s.closeListeners()
		for !s.quiet() && time.Now().Before(deadline) && !s.isStopping() {
			<-look.C
		}
		s.dispatch.End()
		s.onLoops(func(i int) { s.dispatch.Shard(i).RefuseWaiting() })
	})
}

// quiet says that no connection is open and no worker holds a call.
func (s *server) quiet() bool {
	if s.shared.Open() > 0 || s.dispatch.InFlight() > 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if w.Held() > 0 {
			return false
		}
	}
	return true
}

func (s *server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// stop ends the server; see Stop.
func (s *server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.stopping = true
	go s.guard("stop", func() {
		defer s.events.add(event{Event: "stopped"})
		s.closeWatchers()
		s.onLoops(func(i int) {
			s.detachAll(i)
			s.dispatch.Shard(i).Close()
		})
		for _, loop := range s.loops {
			loop.Stop()
		}
		for _, loop := range s.loops {
			<-loop.Done()
		}
		s.closeListeners()
		s.releaseWorkers()
		s.closeDeath()
		if s.stopProfile != nil {
			s.stopProfile()
		}
		s.closeLogs()
	})
}

// guard runs f and turns a panic into a line in the log.
func (s *server) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.logLine("error", "panic", fmt.Sprintf("internal error in %s, please report it: %v", what, p))
		}
	}()
	f()
}
