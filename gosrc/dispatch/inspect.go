package dispatch

import (
	"os"
	"time"
)

// maxShownPath bounds what a report says of a path.
const maxShownPath = 512

// CallInfo is one call in flight, or one run of a timer, as a report tells it.
type CallInfo struct {
	// State is queued, offered, claimed or sending (its answer has begun); ended (the client
	// has its answer or has left, and the app goes on); or timer.
	State    string
	Method   string // empty for a timer
	Path     string // a timer's key
	Age      time.Duration
	Worker   int   // 0: none has it
	Received int64 // bytes of the request's body, or of a WebSocket's messages
	Sent     int64 // bytes of the answer's body, or of a WebSocket's messages
	Again    bool  // it runs for the second time, because its worker died
}

// Report is what one shard knows, at one moment.
type Report struct {
	Calls   []CallInfo
	More    int                   // calls that did not fit
	Blocked map[int]time.Duration // by worker: for how long its loop has stood still
}

// Inspect reports the shard's calls, at most limit of them.
func (s *Shard) Inspect(limit int) Report {
	r := Report{Blocked: map[int]time.Duration{}}
	add := func(c *Call, state string, worker int) {
		if len(r.Calls) >= limit {
			r.More++
			return
		}
		l := &s.line
		readStart(c.start, l)
		r.Calls = append(r.Calls, CallInfo{
			State: state, Method: string(l.Method), Path: string(l.Path[:min(len(l.Path), maxShownPath)]),
			Age: time.Duration(s.now - c.arrived), Worker: worker,
			Received: c.received, Sent: c.sent, Again: c.again,
		})
	}
	for _, p := range s.ports {
		if p.stalledSince != 0 {
			r.Blocked[p.worker.ID] = time.Duration(s.now - p.stalledSince)
		}
		for _, c := range p.calls {
			if c != nil {
				add(c, shown(c), p.worker.ID)
			}
		}
		for _, f := range p.firings {
			if len(r.Calls) >= limit {
				r.More++
				continue
			}
			key := f.Timer.Key
			r.Calls = append(r.Calls, CallInfo{
				State: "timer", Path: key[:min(len(key), maxShownPath)],
				Age: time.Duration(s.now - f.offeredAt), Worker: p.worker.ID,
			})
		}
	}
	for _, q := range [...]*queue{&s.urgent, &s.again, &s.queue} {
		q.each(func(c *Call) { add(c, "queued", 0) })
	}
	return r
}

// shown is the state of a call that a worker has. What was offered may have been claimed
// behind others that were not: the slot knows.
func shown(c *Call) string {
	switch {
	case c.state.ended():
		return "ended"
	case c.state == answering:
		return "sending"
	case c.state == offered:
		if _, ok, _ := c.port.slots.Claimed(c.slot, c.generation); !ok {
			return "offered"
		}
	}
	return "claimed"
}

// each calls f for every call that waits, the oldest first.
func (q *queue) each(f func(c *Call)) {
	for t := q.first; t != q.next; t++ {
		if c := q.ring[t&uint(len(q.ring)-1)]; c != nil {
			f(c)
		}
	}
}

// Beside is how much more than calls that somebody waits for a worker was running when it
// was detached: what apps do after an answer, or for clients that left, and timers.
func (w *Worker) Beside() int { return int(w.beside.Load()) }

// SetPID says which process runs the worker.
func (w *Worker) SetPID(pid int) { w.pid.Store(int64(pid)) }

// PID is the process that runs the worker: this one, unless SetPID said otherwise.
func (w *Worker) PID() int {
	if pid := w.pid.Load(); pid != 0 {
		return int(pid)
	}
	return os.Getpid()
}
