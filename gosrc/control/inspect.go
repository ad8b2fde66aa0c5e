package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/dispatch"
)

// What the control socket tells about this moment: the workers, the calls in flight, and
// where a worker's Python code is. None of it needs a worker's loop, or the app's process
// to be able to run Python.

const (
	maxReported  = 10000           // calls in one report
	reportWait   = time.Second     // for the poll loops; one that does not answer is left out
	stackWait    = 2 * time.Second // for a worker's stack
	stackQuiet   = 50 * time.Millisecond
	maxStackText = 1 << 20
)

type reportedWorker struct {
	Worker  int     `json:"worker"`
	PID     int     `json:"pid"`
	State   string  `json:"state"`
	Held    int64   `json:"held"`              // calls and timers that it has
	Begun   int64   `json:"begun"`             // calls since it started
	Blocked float64 `json:"blocked,omitempty"` // seconds for which its loop has stood still
}

type reportedCall struct {
	State    string  `json:"state"`
	Worker   int     `json:"worker,omitempty"`
	Age      float64 `json:"age"` // seconds
	Received int64   `json:"received"`
	Sent     int64   `json:"sent"`
	Method   string  `json:"method"`
	Path     string  `json:"path"`
	Again    bool    `json:"again,omitempty"`
}

type report struct {
	PID     int              `json:"pid"`
	Workers []reportedWorker `json:"workers"`
	Calls   []reportedCall   `json:"calls"`
	More    int              `json:"more"`             // calls beyond the first 10,000
	Silent  int              `json:"silent,omitempty"` // poll loops that did not answer in time
}

// report is the answer of /ps. Each loop reports its own calls, on its own goroutine.
func (s *server) report() report {
	r := report{PID: os.Getpid(), Workers: []reportedWorker{}, Calls: []reportedCall{}}
	parts := make([]chan dispatch.Report, len(s.loops))
	for i, loop := range s.loops {
		parts[i] = make(chan dispatch.Report, 1) // so that a late one blocks nobody
		loop.Post(func() { parts[i] <- s.dispatch.Shard(i).Inspect(maxReported) })
	}
	blocked := map[int]time.Duration{}
	deadline := time.NewTimer(reportWait)
	defer deadline.Stop()
	for i, loop := range s.loops {
		select {
		case part := <-parts[i]:
			r.More += part.More
			for worker, d := range part.Blocked {
				blocked[worker] = max(blocked[worker], d)
			}
			for _, c := range part.Calls {
				r.Calls = append(r.Calls, reportedCall{c.State, c.Worker, c.Age.Seconds(), c.Received, c.Sent, c.Method, c.Path, c.Again})
			}
		case <-loop.Done():
		case <-deadline.C:
			r.Silent++
			deadline.Reset(0) // for the others
		}
	}
	slices.SortStableFunc(r.Calls, func(a, b reportedCall) int { return cmp.Compare(b.Age, a.Age) })
	if n := len(r.Calls); n > maxReported {
		r.More += n - maxReported
		r.Calls = r.Calls[:maxReported]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		r.Workers = append(r.Workers, reportedWorker{w.ID, w.PID(), w.State().String(), w.Held(), w.Claimed(), blocked[w.ID].Seconds()})
	}
	slices.SortFunc(r.Workers, func(a, b reportedWorker) int { return cmp.Compare(a.Worker, b.Worker) })
	return r
}

// stackPage is the answer of /stack?worker=N.
func (s *server) stackPage(query url.Values) ([]byte, error) {
	id, err := strconv.Atoi(query.Get("worker"))
	if err != nil {
		return nil, errors.New("say which worker: /stack?worker=1")
	}
	w, err := s.worker(id)
	if err != nil {
		return nil, err
	}
	text, err := s.stack(w)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"worker": id, "pid": w.PID(), "stack": text})
}

// stack asks for the Python stacks of a worker's process. Where the app runs in this
// process a signal makes faulthandler write them, whatever Python is doing; other
// processes are the supervisor's to ask, which is told where to write its answer.
func (s *server) stack(w *dispatch.Worker) (string, error) {
	if s.config.InProcess {
		return s.ownStack()
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return "", fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	s.events.add(event{Event: "stack", Worker: w.ID, FD: pipe[1]})
	text, ended := readUntil(pipe[0], stackWait, 0)
	if !ended || text == "" {
		return "", fmt.Errorf("worker %d does not say where it is", w.ID)
	}
	return text, nil
}

func (s *server) ownStack() (string, error) {
	if s.config.StackFD == nil {
		return "", errors.New("this process cannot say where it is: faulthandler is not there")
	}
	s.stacks.Lock() // one question at a time
	defer s.stacks.Unlock()
	fd := *s.config.StackFD
	readUntil(fd, 0, 0) // what an earlier answer left behind
	if err := unix.Kill(os.Getpid(), unix.Signal(s.config.StackSignal)); err != nil {
		return "", err
	}
	text, _ := readUntil(fd, stackWait, stackQuiet)
	if text == "" {
		return "", errors.New("the process does not say where it is")
	}
	return text, nil
}

// readUntil reads a pipe that does not block until its end, or until nothing came for the
// time of quiet, if that is not 0, or until the wait is over. ended: one of the first two.
func readUntil(fd int, wait, quiet time.Duration) (text string, ended bool) {
	deadline := time.Now().Add(wait)
	buffer := make([]byte, 1<<16)
	for len(text) < maxStackText {
		n, err := unix.Read(fd, buffer)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			left := time.Until(deadline)
			if text != "" && quiet > 0 {
				left = min(left, quiet)
			}
			if left <= 0 {
				return text, false
			}
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, int(left.Milliseconds())+1); n == 0 && err == nil {
				return text, text != "" && quiet > 0
			}
		case err != nil || n == 0:
			return text, true
		default:
			text += string(buffer[:n])
		}
	}
	return text, true
}
