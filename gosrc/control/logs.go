package control

import (
	"encoding/json"
	"net/url"
	"time"

	"spvn/gosrc/dispatch"
	"spvn/gosrc/listen"
	"spvn/gosrc/observe"
)

// logs is everything that a server says about itself while it runs.
type logs struct {
	core    *observe.Log
	access  *observe.AccessLog
	buffers []*observe.AccessBuffer // one for each loop, nil without an access log
	control *observe.Control
	socket  *listen.Listener // of control
}

const accessLogClose = time.Second // how long the end waits for whoever reads the access log

// openLogs makes the core's log, the access log and the control socket.
func (s *server) openLogs(loops int) error {
	s.logs.core = observe.NewLog(func() { s.events.ring() })
	c := s.config
	if c.AccessLog && c.AccessLogFD != nil && *c.AccessLogFD >= 0 {
		s.logs.access = observe.NewAccessLog(observe.AccessConfig{FD: c.takeAccessLog(), Colors: c.AccessLogColors, RootPath: c.RootPath})
		for range loops {
			s.logs.buffers = append(s.logs.buffers, s.logs.access.Buffer())
		}
		s.registry.Source("access_log.lines", s.logs.access.Lines)
		s.registry.Source("access_log.dropped", s.logs.access.Dropped)
	}
	if c.ControlSocket == "" {
		return nil
	}
	socket, err := listen.OpenControl(c.ControlSocket)
	if err != nil {
		return err
	}
	s.logs.socket = socket
	return nil
}

// serveControl answers on the control socket, once there is something to tell.
func (s *server) serveControl() (err error) {
	if s.logs.socket == nil {
		return nil
	}
	s.logs.control, err = observe.ServeControl(s.logs.socket.FD, map[string]observe.Page{
		"/stats": func(url.Values) ([]byte, error) { return json.Marshal(s.stats()) },
		"/ps":    func(url.Values) ([]byte, error) { return json.Marshal(s.report()) },
		"/stack": s.stackPage,
	})
	return err
}

func (s *server) closeLogs() {
	if s.logs.control != nil {
		s.logs.control.Close()
	}
	if s.logs.socket != nil {
		s.logs.socket.Close()
	}
	if s.logs.access != nil {
		s.logs.access.Close(accessLogClose)
	}
	s.logs.core.Close()
}

// logLine adds to the core's log; key says which lines are alike, for the rate limit.
func (s *server) logLine(level, key, message string) {
	s.logs.core.Printf(observe.Level(level), key, "%s", message)
}

// access, on a loop's goroutine, adds a line to the access log.
func (s *server) access(loop int, l *dispatch.AccessLine) {
	s.logs.buffers[loop].Line(&observe.Access{
		Host: l.Client, Port: l.ClientPort, Method: l.Method, Path: l.Path, Query: l.Query,
		Version: l.Version, Status: l.Status,
	})
}

// flushAccess, on a loop's goroutine, hands its access lines to the writer.
func (s *server) flushAccess(loop int) {
	if s.logs.buffers != nil {
		s.logs.buffers[loop].Flush()
	}
}

// stats is every counter of the server, as Stats and the control socket tell them.
func (s *server) stats() map[string]any {
	tree := s.registry.Snapshot().Tree()
	s.mu.Lock()
	defer s.mu.Unlock()
	workers := []map[string]any{}
	for _, w := range s.workers {
		workers = append(workers, map[string]any{
			"worker": w.ID, "state": w.State().String(), "held": w.Held(), "claimed_total": w.Claimed(),
		})
	}
	tree["worker_list"] = workers
	return tree
}
