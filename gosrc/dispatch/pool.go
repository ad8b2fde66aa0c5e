package dispatch

import "slices"

// A worker that runs its calls in a pool of threads (WSGI) says how many those are when it
// is ready. That number is its window: a call that found no thread would only wait where
// no other worker can take it, and its delay would say nothing about the worker's loop.
// The rest waits in the queue, where its order, its deadlines and its refusals are.

// setThreads takes note of how many calls the worker runs at a time; 0 is any number.
func (w *Worker) setThreads(n uint32) { w.threads.Store(int32(min(n, 1<<20))) }

func (w *Worker) pooled() bool { return w.threads.Load() > 0 }

// calls is how many calls the worker holds. Timers run in threads of their own, if in any.
func (w *Worker) calls() int64 { return w.held.Load() - w.timers.Load() }

// share has the other loops look whether they have a call for a thread that is free now and that
// nobody here needs: what waits there would be offered at their next tick only.
func (s *Shard) share() {
	d := s.dispatch
	if !s.freed {
		return
	}
	s.freed = false
	if d.settings.Nudge == nil || d.waiting.Load() == 0 || !slices.ContainsFunc(s.ports, (*port).ready) {
		return
	}
	for i := range d.shards {
		if i != s.index {
			d.settings.Nudge(i)
		}
	}
}

// hasThread says whether the worker has a thread for one more call, or needs none. Each
// loop asks for itself, so a handful of calls may be offered in excess.
func (p *port) hasThread() bool {
	return !p.worker.pooled() || p.worker.calls() < int64(p.worker.threads.Load())
}

// threadsBusy says that all threads are in their calls, so that an offer that is not
// claimed says nothing about the worker's loop.
func (p *port) threadsBusy() bool {
	return p.worker.pooled() && p.worker.calls()-int64(p.unclaimed) >= int64(p.worker.threads.Load())
}
