package dispatch

// A worker that runs its calls in a pool of threads (WSGI) says how many those are when it
// is ready. That number is its window: a call that found no thread would only wait where
// no other worker can take it, and its delay would say nothing about the worker's loop.
// The rest waits in the queue, where its order, its deadlines and its refusals are.

// setThreads takes note of how many calls the worker runs at a time; 0 is any number.
func (w *Worker) setThreads(n uint32) { w.threads.Store(int32(min(n, 1<<20))) }

func (w *Worker) pooled() bool { return w.threads.Load() > 0 }

// hasThread says whether a thread waits for a call. Each loop asks for itself, so a
// handful of calls may be offered in excess.
func (w *Worker) hasThread() bool { return w.Held() < int64(w.threads.Load()) }
