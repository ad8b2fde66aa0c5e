package dispatch

import "spvn/gosrc/observe"

// The life of a call. Everything that changes a call's state goes through Shard.move, and
// this file is the only one that says which moves there are:
//
//	                 ┌────────── taken back ──────────┐
//	                 ▼                                │
//	arrived ──► queued ──► offered ──► claimed ──► answering ──► answered
//	               │          │           │            │
//	               ├── refused (the core answers, the app is untouched)
//	               └──────────┴───────────┴────────────┴──► failed, left
//
// (a health check goes from queued to answered: the core itself is who answers)
// so that at the end of every wake-up
//
//	arrived = answered + refused + failed + left + in flight.
//
// A call that has ended for its client may go on in its worker (a background task, an
// answer that nobody waits for): its slot is free only when the worker says so.
type state uint8

const (
	queued    state = iota // in the core
	offered                // its start is in a worker's inbox, not yet begun
	claimed                // the worker began it; the core has seen that
	answering              // the head of the answer was handed to the connection
	answered
	refused
	failed
	left
	states
)

func (s state) String() string {
	return [...]string{"queued", "offered", "claimed", "answering", "answered", "refused", "failed", "left"}[s]
}

// ended says that the client is done with the call.
func (s state) ended() bool { return s >= answered }

// moves has the counter of every transition between states that are not the end. A
// transition that is not in it is a bug of the core.
var moves = [states][states]observe.Counter{
	queued:  {offered: observe.CallsOffered},
	offered: {queued: observe.CallsTakenBack, claimed: observe.CallsClaimed},
	claimed: {queued: observe.CallsRerun, answering: observe.CallsAnswering},
}

// terminal says from where a call may come to each of its ends; the reason is the counter.
var terminal = [states][states]bool{
	queued:    {answered: true, refused: true, failed: true, left: true},
	offered:   {refused: true, failed: true, left: true},
	claimed:   {failed: true, left: true},
	answering: {answered: true, failed: true, left: true},
}

// move takes a call from one state to the next. A move that is not in the table is
// counted (tests assert that there was none), and the call goes on.
func (s *Shard) move(c *Call, to state) {
	counter := moves[c.state][to]
	if counter == observe.CallsArrived {
		counter = observe.CallsMisplaced
	}
	s.counters.Add(counter, 1)
	c.state = to
}

// end ends a call for its client. reason is the counter of that end.
func (s *Shard) end(c *Call, to state, reason observe.Counter) {
	if !terminal[c.state][to] {
		s.counters.Add(observe.CallsMisplaced, 1)
		if c.state.ended() {
			return
		}
	}
	if c.inWheel {
		s.disarm(c)
	}
	s.counters.Add(reason, 1)
	s.counters.Dec(observe.CallsInFlight)
	s.dispatch.inFlight.Add(-1)
	c.state = to
	c.answer = nil
}
