package http1

import "time"

// paceTime is how long a body is read before its rate is judged, again and again.
const paceTime = 2 * time.Second

// pace is how fast a body comes (Config.MinBodyRate). Only time in which the connection was
// read counts: while the app has no room the client cannot send.
type pace struct {
	from  int64 // since when the connection is read; 0: it is not
	spent int64 // ns that it was read before, since the last judgement
	bytes int64 // that came meanwhile
	by    int64 // when more of the body has to be there (Config.TimeoutBody); 0: no such time
}

// reading says whether the connection is read for its body from now on.
func (c *Conn) reading(on bool) {
	p := c.pace
	switch {
	case p == nil:
	case on == (p.from != 0):
	case on:
		p.from = c.carrier.Now()
	default:
		p.spent += c.carrier.Now() - p.from
		p.from = 0
	}
}

// armBody asks for the next deadline of a body of which something has just come: for more of
// it, or to judge its rate.
func (c *Conn) armBody() {
	p := c.pace
	p.by = 0
	if t := c.config.TimeoutBody; t > 0 {
		p.by = c.carrier.Now() + int64(t)
	}
	c.armPace()
}

func (c *Conn) armPace() {
	p := c.pace
	at := p.from + int64(paceTime) - p.spent
	if p.by != 0 && p.by < at {
		at = p.by
	}
	c.armAt(at)
}

// tooSlow judges a body whose deadline has come; nil: it may go on.
func (c *Conn) tooSlow() *Refusal {
	now, p := c.carrier.Now(), c.pace
	if p.by != 0 && now >= p.by {
		return slowBody
	}
	spent := time.Duration(p.spent + now - p.from)
	if spent < paceTime {
		return nil
	}
	slow := float64(p.bytes) < float64(c.config.MinBodyRate)*spent.Seconds()
	*p = pace{from: now, by: p.by}
	if slow {
		return slowRate
	}
	return nil
}
