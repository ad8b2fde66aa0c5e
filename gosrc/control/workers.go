package control

import (
	"fmt"

	"golang.org/x/sys/unix"

	"spvn/gosrc/dispatch"
	"spvn/gosrc/link"
)

// addWorker makes a link and tells every loop of it.
func (s *server) addWorker() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return "", fmt.Errorf("server %d stops", s.id)
	}
	l, err := link.New(s.geometry)
	if err != nil {
		return "", err
	}
	fds, err := dupAll(append([]int{l.Memfd, l.Bell}, s.bells...))
	if err != nil {
		l.Release()
		return "", fmt.Errorf("link: cannot duplicate descriptors: %w", err)
	}
	s.lastWorker++
	w := dispatch.NewWorker(s.lastWorker, l)
	s.workers[w.ID] = w
	for i, loop := range s.loops {
		l.Retain()
		loop.Post(func() { s.dispatch.Shard(i).Attach(w) })
	}
	return answer(map[string]any{"worker": w.ID, "memfd": fds[0], "bell": fds[1], "loop_bells": fds[2:]})
}

// dupAll duplicates descriptors for Python: all of them or none.
func dupAll(fds []int) ([]int, error) {
	var dups []int
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, d := range dups {
				unix.Close(d)
			}
			return nil, err
		}
		dups = append(dups, dup)
	}
	return dups, nil
}

func (s *server) worker(id int) (*dispatch.Worker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.workers[id]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("server %d has no worker %d", s.id, id)
}

// removeWorker drains a worker; see RemoveWorker.
func (s *server) removeWorker(id int) error {
	w, err := s.worker(id)
	if err != nil {
		return err
	}
	w.SetState(dispatch.WorkerDraining)
	for i, loop := range s.loops {
		loop.Post(func() { s.dispatch.Shard(i).DrainWorker(w) })
	}
	return nil
}

// workerGone takes a worker out; see WorkerGone.
func (s *server) workerGone(id int) error {
	w, err := s.worker(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.workers, id)
	s.mu.Unlock()
	w.SetState(dispatch.WorkerGone)
	for i, loop := range s.loops {
		loop.Post(func() { s.dispatch.Shard(i).Detach(w) })
	}
	w.Link.Release()
	return nil
}

// detachAll, on loop i's goroutine, ends its use of every link.
func (s *server) detachAll(i int) {
	s.mu.Lock()
	var workers []*dispatch.Worker
	for _, w := range s.workers {
		workers = append(workers, w)
	}
	s.mu.Unlock()
	for _, w := range workers {
		w.SetState(dispatch.WorkerGone)
		s.dispatch.Shard(i).Detach(w)
	}
}

func (s *server) releaseWorkers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.workers {
		w.Link.Release()
		delete(s.workers, id)
	}
}

// fromWorker, on a loop's goroutine, is told of a worker's control records.
func (s *server) fromWorker(w *dispatch.Worker, kind uint16, message string) {
	switch kind {
	case link.Ready:
		if w.State() == dispatch.WorkerStarting {
			w.SetState(dispatch.WorkerReady)
			s.events.add(event{Event: "ready", Worker: w.ID})
			for _, loop := range s.loops {
				loop.Post(func() {}) // calls that wait are offered at the next turn
			}
		}
	case link.StartFailed:
		s.events.add(event{Event: "start-failed", Worker: w.ID, Message: message})
	case link.Stopped:
		s.events.add(event{Event: "worker-stopped", Worker: w.ID})
	}
}

// corrupt, on a loop's goroutine, is told of a worker that broke the link's rules.
func (s *server) corrupt(w *dispatch.Worker, loop int, err error) {
	w.SetState(dispatch.WorkerGone)
	s.logLine("error", "corrupt", fmt.Sprintf("worker %d broke the rules of its link (%v): it gets no more calls", w.ID, err))
	s.events.add(event{Event: "worker-corrupt", Worker: w.ID, Message: err.Error()})
}
