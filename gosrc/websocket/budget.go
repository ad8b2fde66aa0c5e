package websocket

const (
	firstGrowth = 4 << 10
	keepBuffer  = 128 << 10 // a larger one is not kept for the next message
	buffersKept = 16
)

// grow makes room for n more bytes of the incomplete message; false: the loop's budget is
// used up, and the connection waits. What a header announces is not believed before it
// comes, so a message costs at most twice what was sent of it.
func (c *Conn) grow(n int) bool {
	need := len(c.in) + n
	if need <= cap(c.in) {
		return true
	}
	p := &c.config.pool
	size := min(max(2*need, firstGrowth), c.config.MaxSize)
	if c.frame.fin {
		size = min(size, c.scan.total) // no more will follow
	}
	size = max(size, need)
	if p.partial+size-cap(c.in) > c.config.budget() {
		if c.heldUp = true; c.heldBy == 0 { // else it was tried again, and has waited since then
			c.heldBy = c.carrier.Now() + int64(budgetHeld)
		}
		p.held = append(p.held, c)
		c.arm()
		return false
	}
	c.heldBy = 0
	in := p.take(size)
	in = append(in, c.in...)
	p.partial += cap(in)
	p.give(c.in)
	c.in = in
	if !c.holder {
		c.holder = true
		p.holders[c] = struct{}{}
	}
	return true
}

// drop gives the memory of the incomplete message back.
func (c *Conn) drop() {
	if c.in == nil {
		return
	}
	p := &c.config.pool
	p.give(c.in)
	c.in = nil
	c.holder = false
	delete(p.holders, c)
	if len(p.held) > 0 {
		p.wake(c.config.budget())
	}
}

func (p *pool) take(size int) []byte {
	for i := len(p.spare) - 1; i >= 0; i-- {
		if b := p.spare[i]; cap(b) >= size {
			last := len(p.spare) - 1
			p.spare[i] = p.spare[last]
			p.spare = p.spare[:last]
			return b
		}
	}
	return make([]byte, 0, size)
}

func (p *pool) give(b []byte) {
	p.partial -= cap(b)
	if n := cap(b); n > 0 && n <= keepBuffer && len(p.spare) < buffersKept {
		p.spare = append(p.spare, b[:0])
	}
}

// wake lets connections go on that waited for the budget.
func (p *pool) wake(budget int) {
	if p.waking {
		return // a connection that went on has given memory back: the loop below sees it
	}
	p.waking = true
	defer func() { p.waking = false }()
	for len(p.held) > 0 && p.partial < budget {
		c := p.held[0]
		p.held = p.held[1:]
		if c.phase == gone || !c.heldUp {
			continue
		}
		c.heldUp = false
		c.proceed()
		if c.heldUp {
			return // it needs more than there is
		}
		c.heldBy = 0 // also where it goes on later, for another reason
	}
}

// relieve is called when connections have waited for the budget for long enough: the one
// that holds most is closed.
func (c *Config) relieve() {
	p := &c.pool
	p.wake(c.budget())
	if len(p.held) == 0 {
		return
	}
	var largest *Conn
	for other := range p.holders {
		if largest == nil || cap(other.in) > cap(largest.in) ||
			cap(other.in) == cap(largest.in) && len(other.in) > len(largest.in) {
			largest = other
		}
	}
	if largest != nil {
		largest.fail(overBudget)
	}
}
