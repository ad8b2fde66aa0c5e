package dispatch

// A worker that runs its calls in a pool of threads (WSGI) says how many those are when it
// is ready. That number is its window: a call that found no thread would only wait where
// no other worker can take it, and its delay would say nothing about the worker's loop.
// The rest waits in the queue, where its order, its deadlines and its refusals are.

// setThreads takes note of how many calls the worker runs at a time; 0 is any number.
func (w *Worker) setThreads(n uint32) { w.threads.Store(int32(min(n, 1<<20))) }

func (w *Worker) pooled() bool { return w.threads.Load() > 0 }

// hasThread says whether the worker has a thread for one more call, or needs none. Each
// loop asks for itself, so a handful of calls may be offered in excess.
func (p *port) hasThread() bool {
	return !p.worker.pooled() || p.worker.Held() < int64(p.worker.threads.Load())
}

// threadsBusy says that all threads are in their calls, so that an offer that is not
// claimed says nothing about the worker's loop.
func (p *port) threadsBusy() bool {
	return p.worker.pooled() && p.worker.Held()-int64(p.unclaimed) >= int64(p.worker.threads.Load())
}
