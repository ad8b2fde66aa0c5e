package control

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/dispatch"
	"spvn/gosrc/link"
)

// --quarantine: what a worker was running when it ended is known once it is detached, and
// how it ended when the supervisor has waited for its process; whichever comes second
// passes the sentence.

// maxDeaths bounds the deaths of which one half is known. The other half follows within
// milliseconds, or never: then the oldest is forgotten.
const maxDeaths = 64

// ending is how a worker's process ended, as the supervisor tells it.
type ending struct {
	Signal int  `json:"signal"`
	Exit   *int `json:"exit"`
}

// selfInflicted says whether the process did that itself. Other signals come from people
// and from the kernel, which kills what is large and not what is guilty.
func (e *ending) selfInflicted() bool {
	switch unix.Signal(e.Signal) {
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGABRT, unix.SIGILL, unix.SIGFPE:
		return true
	case 0:
		return e.Exit != nil
	}
	return false
}

func (e *ending) String() string {
	if e.Signal != 0 {
		return unix.SignalName(unix.Signal(e.Signal))
	}
	return fmt.Sprintf("exit code %d", *e.Exit)
}

// death is what is known of the end of one worker.
type death struct {
	lost   []dispatch.LostCall // nil: it is not detached yet
	beside int
	end    *ending // nil: not known yet
}

// judge takes note of one half, calls or ending, of a worker's death, and once both are known
// keeps out what is to blame.
func (s *server) judge(worker int, calls *death, end *ending) {
	d := seconds(s.config.Quarantine)
	if d <= 0 || calls == nil && end == nil {
		return
	}
	s.mu.Lock()
	known := s.deaths[worker]
	if known == nil {
		known = &death{}
		if s.deaths == nil {
			s.deaths = map[int]*death{}
		}
		s.deaths[worker] = known
		for id := range s.deaths {
			if id <= worker-maxDeaths {
				delete(s.deaths, id)
			}
		}
	}
	if calls != nil {
		known.lost, known.beside = calls.lost, calls.beside
	}
	if end != nil {
		known.end = end
	}
	complete := known.lost != nil && known.end != nil
	if complete {
		delete(s.deaths, worker)
	}
	s.mu.Unlock()
	if complete {
		s.sentence(worker, known, d)
	}
}

func (s *server) sentence(worker int, death *death, d time.Duration) {
	method, path, ok := dispatch.Blame(death.lost, death.beside)
	if !ok || !death.end.selfInflicted() {
		return
	}
	if !s.dispatch.Quarantine.Add(method, path, link.Monotonic(), d) {
		s.logLine("error", "quarantine-full", "too many requests are in quarantine: it is not the requests that end workers")
		return
	}
	s.logLine("error", fmt.Sprint("quarantine ", worker), fmt.Sprintf(
		"%s %s has ended worker %d (%v): such requests are answered 503 for %v (--quarantine)", method, path, worker, death.end, d))
}
