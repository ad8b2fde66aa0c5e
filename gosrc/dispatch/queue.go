package dispatch

// queue holds the calls that no worker was offered yet, in the order of their arrival. A
// call that ends while it waits stays in its place as a gap, which is skipped later, so
// that leaving costs the same for one call and for sixty thousand.
type queue struct {
	ring        []*Call // a power of two; a call's place is its ticket modulo the length
	first, next uint    // tickets: of the oldest place, and of the next to come
	live        int     // calls, without the gaps
}

func (q *queue) push(c *Call) {
	q.grow()
	q.put(c, q.next)
	q.next++
}

// pushFront puts a call back that was taken too early.
func (q *queue) pushFront(c *Call) {
	q.grow()
	q.first--
	q.put(c, q.first)
}

func (q *queue) put(c *Call, ticket uint) {
	q.ring[ticket&uint(len(q.ring)-1)] = c
	c.ticket = ticket
	q.live++
}

func (q *queue) grow() {
	if q.next-q.first < uint(len(q.ring)) {
		return
	}
	ring := make([]*Call, max(64, 2*len(q.ring)))
	for t := q.first; t != q.next; t++ {
		ring[t&uint(len(ring)-1)] = q.ring[t&uint(len(q.ring)-1)]
	}
	q.ring = ring
}

// oldest is the call that has waited longest, nil when none waits.
func (q *queue) oldest() *Call {
	for ; q.first != q.next; q.first++ {
		if c := q.ring[q.first&uint(len(q.ring)-1)]; c != nil {
			return c
		}
	}
	return nil
}

// newest is the call that came last, nil when none waits.
func (q *queue) newest() *Call {
	for ; q.first != q.next; q.next-- {
		if c := q.ring[(q.next-1)&uint(len(q.ring)-1)]; c != nil {
			return c
		}
	}
	return nil
}

// older is how many calls, of the oldest ones, had arrived before this time; it counts to most.
func (q *queue) older(before int64, most int) (n int) {
	for t := q.first; t != q.next && n < most; t++ {
		c := q.ring[t&uint(len(q.ring)-1)]
		if c == nil {
			continue
		}
		if c.arrived >= before {
			break
		}
		n++
	}
	return n
}

// remove takes a call out, wherever it stands.
func (q *queue) remove(c *Call) {
	q.ring[c.ticket&uint(len(q.ring)-1)] = nil
	if c.ticket+1 == q.next {
		q.next-- // newest first, while the oldest keeps its place, would leave gap behind gap
	}
	q.live--
}
