package control

import (
	"sync"

	"golang.org/x/sys/unix"

	"spvn/gosrc/link"
)

// event is one thing that happened, as Python reads it.
type event struct {
	Event   string `json:"event"`
	Worker  int    `json:"worker,omitempty"`
	Left    int64  `json:"left,omitempty"`
	Level   string `json:"level,omitempty"`
	Message string `json:"message,omitempty"`

	FD      int        `json:"fd,omitempty"`      // where the answer is to be written; Python's to close
	Seconds float64    `json:"seconds,omitempty"` // of a stall
	Calls   []lostCall `json:"calls,omitempty"`   // that a worker had begun when it ended
	Paths   []string   `json:"paths,omitempty"`   // of files that changed
}

// lostCall is a call that a worker had begun when it ended.
type lostCall struct {
	Method string  `json:"method"`
	Path   string  `json:"path"`
	Age    float64 `json:"age"` // seconds
	Rerun  bool    `json:"rerun"`
}

// eventQueue holds events until Python reads them. Its methods may be called concurrently.
type eventQueue struct {
	forPython int // a dup of the bell that Python closes

	mu      sync.Mutex
	bell    int
	list    []event
	stopped bool // "stopped" is in the list, or was read
}

func newEventQueue() (*eventQueue, error) {
	bell, err := link.NewBell()
	if err != nil {
		return nil, err
	}
	dup, err := unix.FcntlInt(uintptr(bell), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(bell)
		return nil, err
	}
	return &eventQueue{bell: bell, forPython: dup}, nil
}

func (q *eventQueue) add(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped || q.bell < 0 {
		if e.FD != 0 {
			unix.Close(e.FD) // nobody will
		}
		return
	}
	q.stopped = e.Event == "stopped"
	q.list = append(q.list, e)
	link.Ring(q.bell)
}

// take returns the events so far; last says that none will follow.
func (q *eventQueue) take() (list []event, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list, q.list = q.list, nil
	if list == nil {
		list = []event{}
	}
	return list, q.stopped
}

// ring says that there is something to read elsewhere: the log.
func (q *eventQueue) ring() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bell >= 0 {
		link.Ring(q.bell)
	}
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bell >= 0 {
		unix.Close(q.bell)
		q.bell = -1
	}
}

// abandon closes both descriptors of a server that did not start.
func (q *eventQueue) abandon() {
	q.close()
	unix.Close(q.forPython)
}
