// Package dispatch is the life of a call: it arrives from a protocol, waits in the core's
// queue, is offered to a worker over its link, is claimed there, and its answer goes back
// to the protocol. life.go has the table of it.
//
// Rules:
//   - A Shard belongs to one poll loop, and its methods are called by that loop only. What
//     shards share (the workers' states, the totals) is atomic.
//   - The shard never waits. A full ring leaves the call where it is, and the worker rings
//     when there is room.
//   - What a worker wrote is checked before it is believed; a worker that breaks the rules
//     is reported through Settings.Corrupt and gets nothing more.
package dispatch

import (
	"sync/atomic"
	"time"

	"spvn/gosrc/memory"
	"spvn/gosrc/observe"
)

// Defaults of Settings.
const (
	DefaultQueueCalls = 65536    // calls waiting in the core, over all poll loops
	DefaultQueueBytes = 64 << 20 // bytes of their heads and bodies
	maxUnclaimed      = 64       // offers a worker has not claimed yet, for each loop, at the most
)

// Settings is what a server's dispatch is told at its start.
type Settings struct {
	Loops        int
	QueueCalls   int
	QueueBytes   int
	QueueTimeout time.Duration
	// WorkerTimeout bounds the wait while no worker is ready; the queue's clock stands
	// still then.
	WorkerTimeout time.Duration
	// Concurrency bounds the calls in flight; more are refused. 0: no bound.
	Concurrency int
	RetryAfter  int // seconds, in the 503s
	// RequestTimeout ends a call that is not answered whole by then, FirstByteTimeout one whose
	// answer has not begun, counted from its arrival: 504. 0: never. A client may shorten
	// the first in the field called DeadlineField (in lower case; empty: it may not).
	RequestTimeout, FirstByteTimeout time.Duration
	DeadlineField                    string
	// Bodies and Outputs bound what is held of requests' bodies and of answers; see buffers.go.
	// nil: no bound.
	Bodies, Outputs *memory.Budget
	// PriorityPaths go ahead of the queue and of the workers' windows and are refused for
	// nothing but that no worker becomes ready. Paths here are exact and percent-decoded.
	PriorityPaths []string
	// HealthCheckPath and LivenessPath are answered by the core itself; empty: none.
	HealthCheckPath, LivenessPath string
	// RetrySafe runs a call again whose worker ended, once, if its method is safe and
	// nothing of its answer is out.
	RetrySafe bool
	// StallWarning is how long a worker's loop may stand still before Stalled is told;
	// Recovered is told when it moves again. 0: never.
	StallWarning       time.Duration
	Stalled, Recovered func(w *Worker, loop int, d time.Duration)
	// WebSocketQueue is how many messages of one WebSocket may wait for the app before
	// reading from its client is paused.
	WebSocketQueue int

	// Nudge has another loop take its turn, so that it offers what waits there. nil: only its clock does.
	Nudge func(loop int)
	// Access is told of every answer's head, nil when nobody wants to know.
	Access func(loop int, line *AccessLine)
	// Corrupt is told, on the loop's goroutine, of a worker that broke the link's rules.
	Corrupt func(w *Worker, loop int, err error)
	// Control is told of a worker's READY, START_FAILED and STOPPED.
	Control func(w *Worker, kind uint16, message string)
	// Log takes a line for the server's log.
	Log func(level, key, message string)
}

// AccessLine is what the access log says of one call. Its strings and slices are
// valid during the call of Settings.Access only.
type AccessLine struct {
	Client              string
	ClientPort          int32
	Method, Path, Query []byte
	Version             uint8 // 10, 11, 20
	Status              int
}

// Dispatch is what the shards of one server share.
type Dispatch struct {
	settings    Settings
	shards      []*Shard
	inFlight    atomic.Int64 // over all shards, for Settings.Concurrency,
	abandoned   atomic.Int64 // with those that the app goes on with although nobody waits for them
	waiting     atomic.Int64 // calls in the queues of all shards
	bytes       atomic.Int64 // their bytes
	urgentBytes atomic.Int64 // of them, those of priority paths
	announced   atomic.Bool  // health checks say that the server drains
	draining    atomic.Bool
	over        atomic.Bool // the time to finish is

	paths   map[string]pathClass // what is not ordinary
	timed   bool                 // some call may have a deadline
	lengths uint64               // a bit for each length of a path in it, modulo 64
	timers  TimerStats

	// Quarantine keeps out requests that kill workers.
	Quarantine Quarantine
}

// New makes the dispatch of one server. counters has one entry for each loop.
func New(settings Settings, counters []*observe.Shard) *Dispatch {
	d := &Dispatch{settings: settings}
	d.classify()
	d.timed = settings.RequestTimeout > 0 || settings.FirstByteTimeout > 0 || settings.DeadlineField != ""
	for i := range settings.Loops {
		d.shards = append(d.shards, &Shard{dispatch: d, index: i, counters: counters[i]})
	}
	d.shards[0].timers = newTimers(d.shards[0], &d.timers)
	return d
}

// Shard is the part of dispatch that belongs to poll loop i.
func (d *Dispatch) Shard(i int) *Shard { return d.shards[i] }

// Announce has health checks say that the server drains, so that balancers look elsewhere;
// it goes on as before until Drain.
func (d *Dispatch) Announce() { d.announced.Store(true) }

// Drain says that the server stops: health checks and answers say so, and no timer is due any more.
func (d *Dispatch) Drain() { d.draining.Store(true) }

// Draining reports whether Drain was called.
func (d *Dispatch) Draining() bool { return d.draining.Load() }

// End says that the time to finish is over: what a worker gives back is refused from now on, since no other will take
// it. What waits already is up to RefuseWaiting.
func (d *Dispatch) End() { d.over.Store(true) }

// Timers is what became of the app's timers.
func (d *Dispatch) Timers() *TimerStats { return &d.timers }

// InFlight is how many calls have arrived and not ended.
func (d *Dispatch) InFlight() int64 { return d.inFlight.Load() }
