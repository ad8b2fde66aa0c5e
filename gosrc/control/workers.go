package control

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/dispatch"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// lastWords is the time that calls have, once they were told that their time is over.
const lastWords = time.Second

// addWorker makes a link and tells every loop of it.
func (s *server) addWorker(shared bool) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return "", fmt.Errorf("server %d stops", s.id)
	}
	l, err := link.New(s.geometry)
	if err != nil {
		return "", err
	}
	fds, err := dupAll(append([]int{l.Memfd, l.Bell, s.death[0]}, s.bells...))
	if err != nil {
		l.Release()
		return "", fmt.Errorf("link: cannot duplicate descriptors: %w", err)
	}
	var address uintptr
	if shared {
		address = l.Share() // before a loop can be the last to release it
	}
	s.lastWorker++
	w := dispatch.NewWorker(s.lastWorker, l)
	s.workers[w.ID] = w
	for i, loop := range s.loops {
		l.Retain()
		loop.Post(func() { s.dispatch.Shard(i).Attach(w) })
	}
	made := map[string]any{"worker": w.ID, "memfd": fds[0], "bell": fds[1], "death": fds[2], "loop_bells": fds[3:]}
	if shared {
		made["address"] = address
	}
	return answer(made)
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
	return nil, fmt.Errorf("there is no worker %d", id)
}

// removeWorker drains a worker; see RemoveWorker.
func (s *server) removeWorker(id int, grace time.Duration) error {
	w, err := s.worker(id)
	if err != nil {
		return err
	}
	if state := w.State(); state == dispatch.WorkerDraining || state == dispatch.WorkerGone {
		return nil
	}
	w.SetState(dispatch.WorkerDraining)
	go s.guard("removing a worker", func() {
		s.onLoops(func(i int) { s.dispatch.Shard(i).DrainWorker(w) })
		if !s.waitEmpty(w, grace) {
			s.onLoops(func(i int) { s.dispatch.Shard(i).DisconnectWorker(w) })
			if !s.waitEmpty(w, lastWords) {
				s.onLoops(func(i int) { s.dispatch.Shard(i).CutWorker(w) })
			}
		}
		s.loops[0].Post(func() { s.dispatch.Shard(0).StopWorker(w) })
	})
	return nil
}

// waitEmpty waits until the worker holds no call, or is gone, or the time is over: false.
func (s *server) waitEmpty(w *dispatch.Worker, d time.Duration) bool {
	deadline := time.Now().Add(d)
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for w.Held() > 0 && w.State() != dispatch.WorkerGone && !s.isStopping() {
		if !time.Now().Before(deadline) {
			return false
		}
		<-look.C
	}
	return true
}

// watchWorker watches a worker's process; see WatchWorker.
func (s *server) watchWorker(id, pid int) error {
	w, err := s.worker(id)
	if err != nil {
		return err
	}
	w.SetPID(pid)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot watch process %d: %w", pid, err)
	}
	go s.guard("watching a worker", func() {
		if err == nil {
			defer unix.Close(pidfd)
			for !s.isStopping() {
				fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
				if n, err := unix.Poll(fds, 1000); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
					break
				}
			}
		}
		s.lose(w)
	})
	return nil
}

// workerGone takes a worker out; see WorkerGone.
func (s *server) workerGone(id int) error {
	w, err := s.worker(id)
	if err != nil {
		return err
	}
	go s.guard("losing a worker", func() { s.lose(w) })
	return nil
}

// lose takes out a worker that has ended and tells of the calls that it had begun.
func (s *server) lose(w *dispatch.Worker) {
	s.mu.Lock()
	known := s.workers[w.ID] == w && !s.stopping
	if known {
		delete(s.workers, w.ID)
	}
	s.mu.Unlock()
	if !known {
		return
	}
	w.SetState(dispatch.WorkerGone)
	var lost []lostCall
	detached := make([]bool, len(s.loops))
	death := &death{lost: []dispatch.LostCall{}}
	s.onLoops(func(i int) {
		detached[i] = true
		for _, c := range s.dispatch.Shard(i).Detach(w) {
			death.lost = append(death.lost, c)
			lost = append(lost, lostCall{c.Method, c.Path, c.Age.Seconds(), c.Rerun})
		}
	})
	for _, done := range detached {
		if !done { // the loop has ended and gives its use of the link up no more
			w.Link.Release()
		}
	}
	w.Link.Release()
	death.beside = w.Beside()
	s.judge(w.ID, death, nil)
	s.registry.Add(observe.WorkersDied, 1)
	s.events.add(event{Event: "worker-exited", Worker: w.ID, Calls: lost})
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
			s.registry.Add(observe.WorkersStarted, 1)
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

// stalled, on a loop's goroutine, is told of a worker whose loop stands still.
func (s *server) stalled(w *dispatch.Worker, loop int, d time.Duration) {
	s.events.add(event{Event: "worker-stalled", Worker: w.ID, Seconds: d.Seconds()})
}

// recovered, on a loop's goroutine, is told of a worker whose loop moves again.
func (s *server) recovered(w *dispatch.Worker, loop int, d time.Duration) {
	s.events.add(event{Event: "worker-recovered", Worker: w.ID, Seconds: d.Seconds()})
}

// corrupt, on a loop's goroutine, is told of a worker that broke the link's rules.
func (s *server) corrupt(w *dispatch.Worker, loop int, err error) {
	w.SetState(dispatch.WorkerGone)
	s.logLine("error", "corrupt", fmt.Sprintf("worker %d broke the rules of its link (%v): it gets no more calls", w.ID, err))
	s.events.add(event{Event: "worker-corrupt", Worker: w.ID, Message: err.Error()})
}
