package control

import (
	"encoding/json"
	"fmt"

	"spvn/gosrc/watch"
)

// Watch tells of files that change: the event "files-changed" with their "paths". options
// has "dirs", "includes", "excludes", "exclude_dirs" and "delay" (package watch).
func Watch(server int, options string) (string, error) {
	s, err := find(server)
	if err != nil {
		return "", err
	}
	var o struct {
		Dirs        []string `json:"dirs"`
		Includes    []string `json:"includes"`
		Excludes    []string `json:"excludes"`
		ExcludeDirs []string `json:"exclude_dirs"`
		Delay       float64  `json:"delay"`
	}
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return "", fmt.Errorf("the options of Watch are not JSON: %w", err)
	}
	return nothing, s.watchFiles(watch.Options(o))
}

func (s *server) watchFiles(o watch.Options) error {
	w, err := watch.New(o,
		func(paths []string) { s.events.add(event{Event: "files-changed", Paths: paths}) },
		func(err error) { s.logLine("error", "watch", err.Error()) },
	)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		w.Close()
		return fmt.Errorf("server %d stops", s.id)
	}
	s.watchers = append(s.watchers, w)
	return nil
}

func (s *server) closeWatchers() {
	s.mu.Lock()
	watchers := s.watchers
	s.watchers = nil
	s.mu.Unlock()
	for _, w := range watchers {
		w.Close()
	}
}
