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
	text     string // of the last of them
	loggedAt int64  // 0: never
}

// noteRefusals logs the first refusals for a reason, and then how many there were.
func (s *Shard) noteRefusals(reason observe.Counter, text string, n int) {
	if s.dispatch.settings.Log == nil {
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
	if due := r.loggedAt + int64(refusalsLogged); r.loggedAt != 0 && s.now < due {
		if r.text = text; s.tellAt == 0 || due < s.tellAt {
			s.tellAt = due
		}
		return
	}
	s.tellRefusals(reason, text, r)
}

// tellRefusals logs the refusals for one reason that no line has told of yet.
func (s *Shard) tellRefusals(reason observe.Counter, text string, r *refusalLog) {
	what := "a call was"
	if r.count > 1 {
		what = fmt.Sprintf("%d calls were", r.count)
	}
	s.dispatch.settings.Log("warning", reason.String(), fmt.Sprintf("%s refused (%s): %s", what, reason, text))
	r.count, r.loggedAt = 0, s.now
}

// tellOfRefusals logs what there was since the last lines, for every reason whose time has come, or for all.
func (s *Shard) tellOfRefusals(all bool) {
	s.tellAt = 0
	for reason, r := range s.refusals {
		due := r.loggedAt + int64(refusalsLogged)
		switch {
		case r.count == 0:
		case all || s.now >= due:
			s.tellRefusals(reason, r.text, r)
		case s.tellAt == 0 || due < s.tellAt:
			s.tellAt = due
		}
	}
}

// Close refuses what still waits and has the log know of all that was refused. The loop ends.
func (s *Shard) Close() {
	s.RefuseWaiting()
	s.tellOfRefusals(true)
}

const stopping = "The server is stopping."

// RefuseWaiting refuses every call that waits for a worker: the time to finish is over (Dispatch.End).
func (s *Shard) RefuseWaiting() {
	queues := [...]*queue{&s.queue, &s.urgent, &s.again}
	n := 0
	for _, q := range queues {
		n += q.live
	}
	if n > 0 {
		s.noteRefusals(observe.RefusedStopping, stopping, n)
	}
	for _, q := range queues {
		for c := q.oldest(); c != nil; c = q.oldest() {
			s.unqueue(c)
			s.turnAway(c, observe.RefusedStopping, 503, stopping, s.dispatch.settings.RetryAfter)
		}
	}
}
