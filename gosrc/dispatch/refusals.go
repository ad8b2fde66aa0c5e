package dispatch

import (
	"fmt"
	"time"

	"spvn/gosrc/observe"
)

// refusalsLogged is how often a shard logs refusals for one reason. Refusing costs
// microseconds and comes in hundreds of thousands; a line for each would be the overload.
const refusalsLogged = 10 * time.Second

// refusalLog counts the refusals for one reason that no line has told of yet.
type refusalLog struct {
	count    int
	loggedAt int64 // 0: never
}

// noteRefusals logs the first refusals for a reason, and then how many there were.
func (s *Shard) noteRefusals(reason observe.Counter, text string, n int) {
	log := s.dispatch.settings.Log
	if log == nil {
		return
	}
	if s.refusals == nil {
		s.refusals = map[observe.Counter]*refusalLog{}
	}
	r := s.refusals[reason]
	if r == nil {
		r = &refusalLog{}
		s.refusals[reason] = r
	}
	r.count += n
	if r.loggedAt != 0 && s.now-r.loggedAt < int64(refusalsLogged) {
		return
	}
	what := "a call was"
	if r.count > 1 {
		what = fmt.Sprintf("%d calls were", r.count)
	}
	log("warning", reason.String(), fmt.Sprintf("%s refused (%s): %s", what, reason, text))
	r.count, r.loggedAt = 0, s.now
}

// RefuseWaiting refuses every call that waits for a worker: the time to finish is over (Dispatch.End).
func (s *Shard) RefuseWaiting() {
	const text = "The server is stopping."
	queues := [...]*queue{&s.queue, &s.urgent, &s.again}
	n := 0
	for _, q := range queues {
		n += q.live
	}
	if n > 0 {
		s.noteRefusals(observe.RefusedStopping, text, n)
	}
	for _, q := range queues {
		for c := q.oldest(); c != nil; c = q.oldest() {
			s.unqueue(c)
			s.turnAway(c, observe.RefusedStopping, 503, text, s.dispatch.settings.RetryAfter)
		}
	}
}
