package dispatch

import (
	"sync"
	"sync/atomic"
	"time"
)

// maxQuarantined bounds how many requests are kept out at a time; more than a few means
// that it is not the requests.
const maxQuarantined = 1000

// suspect is what a worker's death may be blamed on: a request's method and path.
type suspect struct{ method, path string }

// Quarantine keeps requests out, for a while, that kill workers. Shards ask it for each
// call that arrives; whoever learns of a death tells it. Its methods may be called
// concurrently; while nothing is kept out asking costs one atomic load.
type Quarantine struct {
	count atomic.Int32

	mu    sync.Mutex
	until map[suspect]int64 // guarded by mu; monotonic time
}

// Add keeps a method and path out from now for this long. false: too many are already.
func (q *Quarantine) Add(method, path string, now int64, d time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sweep(now)
	at := suspect{method, path}
	if _, known := q.until[at]; !known && len(q.until) >= maxQuarantined {
		return false
	}
	if q.until == nil {
		q.until = map[suspect]int64{}
	}
	q.until[at] = now + int64(d)
	q.count.Store(int32(len(q.until)))
	return true
}

// Holds is for how much longer a request is kept out; 0: it is not.
func (q *Quarantine) Holds(method, path []byte, now int64) time.Duration {
	if q.count.Load() == 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	until, ok := q.until[suspect{string(method), string(path)}]
	if !ok {
		return 0
	}
	if until <= now {
		q.sweep(now)
		return 0
	}
	return time.Duration(until - now)
}

// sweep forgets what has been kept out for long enough. mu must be held.
func (q *Quarantine) sweep(now int64) {
	for at, until := range q.until {
		if until <= now {
			delete(q.until, at)
		}
	}
	q.count.Store(int32(len(q.until)))
}

// Blame says which of the calls that a worker had begun its death is put down to: the only
// one, or the one that ran again because another worker had died with it. Calls that were
// merely beside others, or beside something else (Worker.Beside), are not blamed; if one of
// them did it, it will be alone when it runs again, or nearly so (rerun.go).
func Blame(lost []LostCall, beside int) (method, path string, ok bool) {
	var suspects []LostCall
	for _, c := range lost {
		if c.Again {
			suspects = append(suspects, c)
		}
	}
	if len(suspects) == 0 && beside == 0 {
		suspects = lost
	}
	if len(suspects) != 1 {
		return "", "", false
	}
	return suspects[0].Method, suspects[0].Path, true
}
