package dispatch

import (
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// What slow apps and slow clients cost. A body or messages that an app does not receive, and an answer
// that a client does not read, take memory up to a window each; all of them together have a
// budget (Settings.Bodies, Settings.Outputs). Over it each gets by with little: reading from
// a client pauses at tightBody, a complete answer gets the window of a stream (from three
// quarters on, as that is still something), and a window
// is filled again only when everything before has left. Whoever keeps up goes on at full
// speed, since nothing of theirs is held.

// tightBody is how much of a request's body may be held while the budget is overdrawn.
const tightBody = 4 << 10

// What a worker has not told of yet must fit into that, or nobody would read a connection of whose messages the app has
// received all.
var _ = [1]struct{}{}[tightBody-link.WsCreditBytes]

// bodyWindow is how much of a request's body may be held now.
func (s *Shard) bodyWindow() int {
	if s.dispatch.settings.Bodies.Over() {
		return tightBody
	}
	return link.BodyWindow
}

// messageWindow is how much of a WebSocket's messages may be held now, but for the one that passes it.
func (s *Shard) messageWindow() int {
	if s.dispatch.settings.Bodies.Over() {
		return tightBody
	}
	return link.WsWindow
}

// charge takes n bytes of the request's body, or of messages, out of the budget, or gives -n back.
func (c *Call) charge(n int) {
	if n != 0 {
		c.charged += n
		c.shard.dispatch.settings.Bodies.Add(n)
	}
}

// squeeze notes a call whose reading pauses for the budget alone.
func (s *Shard) squeeze(c *Call) {
	if c.squeezed > 0 {
		return
	}
	s.squeezed = append(s.squeezed, c)
	c.squeezed = len(s.squeezed)
	s.counters.Add(observe.MemoryReadsPaused, 1)
}

// unsqueeze lets the calls read on that the budget had paused.
func (s *Shard) unsqueeze() {
	if len(s.squeezed) == 0 || !s.dispatch.settings.Bodies.Roomy() {
		return
	}
	paused := s.squeezed
	s.squeezed = nil
	for _, c := range paused {
		c.squeezed = 0
	}
	for _, c := range paused {
		c.feed()
	}
}

// relax forgets a call that squeeze noted: it is over. While the budget stays overdrawn they come and go.
func (s *Shard) relax(c *Call) {
	if c.squeezed == 0 {
		return
	}
	last := len(s.squeezed) - 1
	moved := s.squeezed[last]
	s.squeezed[c.squeezed-1], moved.squeezed = moved, c.squeezed
	s.squeezed[last] = nil
	s.squeezed = s.squeezed[:last]
	c.squeezed = 0
}

// tighten tells the workers how large the window of a complete answer is now.
func (s *Shard) tighten() {
	tight := s.dispatch.settings.Outputs.Scarce()
	if tight == s.tight && !tight {
		return
	}
	s.tight = tight
	for _, p := range s.ports {
		p.worker.Link.SetTight(tight)
	}
}

// withhold says whether the app must wait before it sends more of an answer.
func (c *Call) withhold() bool {
	if c.inCore <= 0 || !c.shard.dispatch.settings.Outputs.Over() {
		return false
	}
	c.shard.counters.Add(observe.MemoryWindowsWithheld, 1)
	return true
}
