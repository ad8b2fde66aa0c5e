package transport

// idleList holds the connections that have no call in flight and no output that waits, the
// longest idle first.
type idleList struct {
	first, last *conn
	count       int
}

func (l *idleList) push(c *conn) {
	c.listed = true
	c.idlePrev, c.idleNext = l.last, nil
	if l.last != nil {
		l.last.idleNext = c
	} else {
		l.first = c
	}
	l.last = c
	l.count++
}

func (l *idleList) remove(c *conn) {
	if c.idlePrev != nil {
		c.idlePrev.idleNext = c.idleNext
	} else {
		l.first = c.idleNext
	}
	if c.idleNext != nil {
		c.idleNext.idlePrev = c.idlePrev
	} else {
		l.last = c.idlePrev
	}
	c.listed, c.idleNext, c.idlePrev = false, nil, nil
	l.count--
}
