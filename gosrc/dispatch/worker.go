package dispatch

import (
	"sync/atomic"

	"spvn/gosrc/link"
)

// WorkerState is where a worker is in its life.
type WorkerState int32

// The states of a worker.
const (
	WorkerStarting WorkerState = iota // its lifespan start-up runs; calls wait
	WorkerReady
	WorkerDraining // gets no new calls
	WorkerGone
)

func (s WorkerState) String() string {
	return [...]string{"starting", "ready", "draining", "gone"}[s]
}

// Worker is an event loop on the end of a link, in this process or in another.
type Worker struct {
	ID   int
	Link *link.Link

	state   atomic.Int32
	held    atomic.Int64 // slots taken, over all loops
	timers  atomic.Int64 // of them, those of due times
	claimed atomic.Int64 // calls begun since it started, over all loops

	noRetry atomic.Bool
	over    atomic.Bool  // it has said that it did not start, or has stopped
	stalled atomic.Int64 // since when its loop stands still, 0: it moves

	threads atomic.Int32 // how many calls it runs at a time; 0: any number

	pid    atomic.Int64 // 0: this process
	beside atomic.Int32 // see Beside
}

// NewWorker makes a worker that is starting. It takes over one use of l.
func NewWorker(id int, l *link.Link) *Worker { return &Worker{ID: id, Link: l} }

// State is where the worker is in its life.
func (w *Worker) State() WorkerState { return WorkerState(w.state.Load()) }

// SetState moves the worker on. The shards see it at their next turn.
func (w *Worker) SetState(s WorkerState) { w.state.Store(int32(s)) }

// Held is how many calls the worker holds: offered, claimed, or ended for their client
// and not yet done.
func (w *Worker) Held() int64 { return w.held.Load() }

// Claimed is how many calls the worker has begun since it started.
func (w *Worker) Claimed() int64 { return w.claimed.Load() }

// NoRetry says that the worker is about to be killed for what its calls do: none of them
// is run again.
func (w *Worker) NoRetry() { w.noRetry.Store(true) }
