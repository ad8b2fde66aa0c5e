// Package control is all that Python may call of the core, and the place where the
// packages are wired together. gopy binds its exported functions as spvn._core.
//
// Rules:
//   - Only ints and strings cross this border; answers and options are JSON objects. An
//     error's text is either a sentence or, from Start, a JSON object that says which
//     option is to blame: {"kind", "option", "value", "message"}.
//   - Every function returns at once. What takes time ends in an event: the descriptor
//     that Start returns becomes readable, and Events tells what happened.
//   - Nothing here is called for a request.
package control

import (
	"encoding/json"
	"fmt"
	"sync"
)

var (
	mu      sync.Mutex
	servers = map[int]*server{} // guarded by mu
	lastID  int                 // guarded by mu
)

// find is a running server.
func find(id int) (*server, error) {
	mu.Lock()
	defer mu.Unlock()
	if s := servers[id]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("there is no server %d", id)
}

func answer(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

const nothing = "{}"

// Start listens and starts the poll loops. config is the JSON of a Config. The answer has
// the server's id as "server", its "addresses", and "events_fd": a descriptor, the
// caller's to close, that is readable when Events has something to tell. Calls wait
// until a worker is ready. The descriptor of the access log is the core's from now on, even if
// Start fails.
func Start(config string) (string, error) {
	c, err := parseConfig(config)
	defer c.dropAccessLog()
	if err != nil {
		return "", err
	}
	s, err := newServer(c)
	if err != nil {
		return "", startError(err)
	}
	mu.Lock()
	lastID++
	s.id = lastID
	servers[s.id] = s
	mu.Unlock()
	return answer(map[string]any{"server": s.id, "addresses": s.addresses(), "events_fd": s.events.forPython})
}

// AddWorker makes a link for one more worker: "worker" is its number; "memfd", "bell" and
// "loop_bells" are the link's descriptors, and "death" is the read end of a pipe that
// ends with this process; all are the caller's to close. The worker gets calls once it has
// written READY. With "shared" true of options the worker is in this process and uses the
// core's own mapping of the memory, at "address"; whoever asks for it has to attach there.
func AddWorker(server int, options string) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	var o struct {
		Shared bool `json:"shared"`
	}
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return "", fmt.Errorf("the options of AddWorker are not JSON: %w", err)
	}
	return s.addWorker(o.Shared)
}

// WatchWorker tells the core which process runs a worker. When that ends, what it had
// written is still sent, its unclaimed calls go to others, those that it had begun run
// again if they may, else they fail; then comes the event "worker-exited" with the "calls"
// that it had begun.
func WatchWorker(server, worker, pid int) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	return nothing, s.watchWorker(worker, pid)
}

// RemoveWorker drains a worker: no new calls, and what it has not begun goes to others.
// When it holds no call any more STOP is written to it. "grace" of options is how many
// seconds that may take; then its calls are told that their clients have left, and a
// second later they are cut. With "kill" true nothing is drained: it says that the caller
// kills the worker for what its calls do, so that none of them is run again.
func RemoveWorker(server, worker int, options string) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	o := struct {
		Grace float64 `json:"grace"`
		Kill  bool    `json:"kill"`
	}{Grace: s.config.TimeoutGracefulShutdown}
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return "", fmt.Errorf("the options of RemoveWorker are not JSON: %w", err)
	}
	if o.Kill {
		w, err := s.worker(worker)
		if err == nil {
			w.NoRetry()
		}
		return nothing, err
	}
	return nothing, s.removeWorker(worker, seconds(o.Grace))
}

// WorkerGone says that a worker has ended, whatever the reason. Its unclaimed calls go to
// others, its claimed ones fail. options may say how its process ended, where nobody had
// ended it on purpose: {"signal": 11} or {"exit": 3}; --quarantine hangs on that.
func WorkerGone(server, worker int, options string) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	var end *ending
	if err := json.Unmarshal([]byte(options), &end); err != nil {
		return "", fmt.Errorf("the options of WorkerGone are not JSON: %w", err)
	}
	s.judge(worker, nil, end)
	return nothing, s.workerGone(worker)
}

// Drain has health checks say so for "delay" seconds, in which everything goes on; then it
// stops accepting and lets calls finish, for at most "grace" seconds of options;
// then comes the event "drained", with the number of calls "left".
func Drain(server int, options string) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	var o struct {
		Grace *float64 `json:"grace"`
		Delay float64  `json:"delay"`
	}
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return "", fmt.Errorf("the options of Drain are not JSON: %w", err)
	}
	grace := s.config.TimeoutGracefulShutdown
	if o.Grace != nil {
		grace = *o.Grace
	}
	s.drain(seconds(o.Delay), seconds(grace))
	return nothing, nil
}

// Stop closes everything now. The last event is "stopped"; reading it frees the id.
func Stop(server int) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	s.stop()
	return nothing, nil
}

// Stats is the server's counters.
func Stats(server int) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	return answer(s.stats())
}

// Events is what happened since the last call: {"events": [{"event": name, ...}]}.
func Events(server int) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	list, last := s.events.take()
	for _, r := range s.logs.core.Drain() {
		list = append(list, event{Event: "log", Level: string(r.Level), Message: r.Message})
	}
	if last {
		mu.Lock()
		delete(servers, server)
		mu.Unlock()
		s.events.close()
	}
	return answer(map[string]any{"events": list})
}

// Version is the core's own version: that of the package it was built for.
func Version() (string, error) { return answer(map[string]string{"version": version}) }
