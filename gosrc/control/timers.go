package control

// countTimers adds what became of the app's timers to the server's counters; once there
// are any, due = done + missed + skipped + open.
func (s *server) countTimers() {
	t := s.dispatch.Timers()
	for name, read := range map[string]func() uint64{
		"timers.due":     t.Due.Load,
		"timers.done":    t.Done.Load,
		"timers.failed":  t.Failed.Load,
		"timers.missed":  t.Missed.Load,
		"timers.skipped": t.Skipped.Load,
		"timers.refused": t.Refused.Load,
		"timers.set":     func() uint64 { return uint64(max(0, t.Set.Load())) },
		"timers.open":    func() uint64 { return uint64(max(0, t.Open.Load())) },
	} {
		s.registry.Source(name, read)
	}
}
