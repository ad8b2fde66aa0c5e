package http1

import (
	"math"
	"time"
)

// discardTime is how long a body is discarded that nobody wants any more. nginx's lingering_time is the same.
const discardTime = 30 * time.Second

// run takes steps as long as there is input for one. b is new input; nil stands for what
// the connection kept.
func (c *Conn) run(b []byte) {
	kept := b == nil
	if kept {
		b = c.in[c.inAt:]
	}
	c.running = true
	used := 0
	for used < len(b) {
		n := c.step(b[used:])
		if c.closed {
			c.running = false
			return
		}
		if n == 0 {
			break
		}
		used += n
	}
	c.running = false
	switch {
	case kept:
		if c.inAt += used; c.inAt >= len(c.in) {
			c.drop()
		}
	case used < len(b):
		if c.head != nil {
			c.head.reset() // its bytes move
		}
		c.keep(b[used:])
	}
	c.rest()
}

// step does one thing with b, which is not empty, and returns how many bytes that took. 0:
// it needs more, or has to wait for an answer.
func (c *Conn) step(b []byte) int {
	switch {
	case !c.active:
		if c.carrier.Buffered() >= maxUnsent {
			c.stuffed = true
			return 0
		}
		return c.readHead(b)
	case c.body.done():
		return 0
	case c.answering == answerDone:
		return c.discard(b)
	default:
		return c.forward(b)
	}
}

// rest looks after pausing and deadlines once no step can be taken.
func (c *Conn) rest() {
	cfg := c.config
	switch {
	case c.stuffed:
		// Until Sent says that there is room; the carrier has a deadline for that.
		c.pause(true)
		c.armAt(0)
	case !c.active:
		if c.peerDone {
			c.close()
			return
		}
		c.pause(false)
		if c.head != nil && c.wholeBy == 0 && cfg.TimeoutHeader > 0 {
			c.wholeBy = c.carrier.Now() + int64(cfg.TimeoutHeader)
			c.armAt(c.wholeBy)
		}
		if !c.rested {
			c.rested = true
			c.carrier.Idle(true)
			if c.head == nil {
				c.arm(cfg.TimeoutKeepAlive)
			}
		}
	case c.body.done():
		c.reading(false)
		c.pause(c.in != nil)
		c.armAt(0)
	case c.answering != answerDone && c.call != nil && c.call.Room() <= 0:
		c.reading(false)
		c.pause(true)
		c.armAt(0)
	case c.expect:
		c.reading(false)
		c.armAt(0)
	case c.pace != nil:
		c.reading(true)
		c.pause(false)
		c.armBody()
	default:
		c.pause(false)
		c.arm(cfg.TimeoutBody)
		if by := c.wholeBy; by != 0 && (c.deadline == 0 || by < c.deadline) {
			c.armAt(by)
		}
	}
}

// readHead reads the next request's head, and starts its call once it is complete.
func (c *Conn) readHead(b []byte) int {
	n := 0
	for n < len(b) && (b[n] == '\r' || b[n] == '\n') && c.head == nil {
		// Empty lines before a request are skipped (RFC 9112 2.2): old clients send one
		// behind a body.
		if b[n] != "\r\n"[c.blank&1] {
			c.refuse(badLineEnd)
			return 0
		}
		n++
		if c.blank++; c.blank > maxBlank {
			c.refuse(badBlank)
			return 0
		}
	}
	if n == len(b) {
		return n
	}
	if c.blank&1 != 0 {
		c.refuse(badLineEnd)
		return 0
	}
	h := c.head
	if h == nil {
		h = c.config.Pool.head()
	}
	size, r := h.parse(b[n:], c.config)
	if r == nil && size == 0 {
		c.head = h
		return n
	}
	if r == nil {
		r = h.check(c.config)
	}
	c.head = nil
	if r != nil {
		c.isHead = string(h.method) == "HEAD"
		c.config.Pool.recycleHead(h)
		c.refuse(r)
		return 0
	}
	n += size
	n += c.begin(h, b[n:])
	return n
}

// begin starts the call of a complete head. b is what follows it; as much of it as belongs
// to the body goes with the call. It returns how much that was.
func (c *Conn) begin(h *head, b []byte) int {
	pool := c.config.Pool
	c.active, c.answering, c.framing = true, answerDue, framingNone
	c.wholeBy, c.blank = 0, 0
	c.requests++
	c.persist = h.persistent() && (c.config.LimitRequests == 0 || int(c.requests) < c.config.LimitRequests)
	c.isHead = string(h.method) == "HEAD"
	c.old = h.version == 10
	c.expect = h.expect && h.hasBody()
	c.trailers = h.trailers && h.version == 11
	c.trailing, c.excess = false, false

	used := 0
	var first, decoded []byte
	if h.chunked {
		c.body.startChunked()
		if len(b) > 0 {
			var r *Refusal
			decoded, used, r = c.decode(b)
			if r != nil {
				pool.recycleHead(h)
				c.refuse(r)
				return used
			}
			first = decoded
		}
	} else {
		c.body.startLength(max(h.length, 0))
		if !c.body.done() {
			used, first, _ = c.body.next(b, c.config)
		}
	}
	if used > 0 {
		c.expect = false // the client did not wait (RFC 9110 10.1.1)
	}

	r := &h.request
	h.fill(r)
	r.Scheme, r.Client, r.Server = c.scheme, c.peer, c.local
	r.Continue, r.Body, r.BodyLast = c.expect, first, c.body.done()
	c.handshake = nil
	if h.webSocket && c.config.WebSockets != nil && !c.judge(h, r) {
		pool.recycleHead(h)
		if decoded != nil {
			pool.recycle(decoded)
		}
		return used
	}
	if h.forwarded && c.config.Proxies != nil && c.trusts() {
		c.config.Proxies.forward(r)
	}
	c.pace = nil
	if cfg := c.config; cfg.MinBodyRate > 0 && !c.body.done() {
		c.pace = &pace{bytes: int64(used)}
	}
	if c.rested {
		c.rested = false
		c.carrier.Idle(false)
	}
	c.armAt(0)
	started := c.dispatcher.Start(r, c)
	if started != nil && !c.closed && c.active && c.answering != answerDone {
		c.call = started
	}
	pool.recycleHead(h)
	if decoded != nil {
		pool.recycle(decoded)
	}
	return used
}

// decode takes the chunks apart that came with a head, so that a malformed one is refused
// before the app hears of it. The result is the pool's.
func (c *Conn) decode(b []byte) (decoded []byte, used int, r *Refusal) {
	decoded = c.config.Pool.buffer(len(b))
	for !c.body.done() && used < len(b) {
		n, data, r := c.body.next(b[used:], c.config)
		if r != nil {
			c.config.Pool.recycle(decoded)
			return nil, used, r
		}
		decoded = append(decoded, data...)
		used += n
	}
	return decoded, used, nil
}

// joined is the length up to which a chunk is put together with the one before or behind it: each piece costs the app
// a message and the worker some eighty bytes, and clients choose the sizes of chunks.
const joined = 4 << 10

// forward hands body to the call. One piece is held back until it is known whether the
// body ends behind it.
func (c *Conn) forward(b []byte) int {
	used := 0
	var held []byte
	for used < len(b) && !c.body.done() {
		n, data, r := c.body.next(b[used:], c.config)
		if r != nil {
			c.refuse(r)
			return used
		}
		used += n
		if len(data) == 0 {
			continue
		}
		if held != nil {
			if min(len(held), len(data)) <= joined {
				held = append(held, data...) // where its frame was, or further to the front
				continue
			}
			if !c.pass(held, false) {
				return used
			}
		}
		held = data
	}
	c.expect = false
	if held != nil || c.body.done() {
		c.pass(held, c.body.done())
	}
	return used
}

// pass reports whether the call goes on.
func (c *Conn) pass(b []byte, last bool) bool {
	if c.call != nil {
		c.call.Body(b, last)
	}
	return !c.closed && c.answering != answerDone
}

// discard drops the rest of a body that the app did not want, up to bounds of bytes and time.
func (c *Conn) discard(b []byte) int {
	used := 0
	for used < len(b) && !c.body.done() {
		n, _, r := c.body.next(b[used:], c.config)
		if r != nil { // the answer has been given
			c.close()
			return used
		}
		used += n
	}
	if c.body.done() {
		c.next()
		return used
	}
	if c.discarding -= int64(used); c.discarding < 0 || c.carrier.Now() >= c.wholeBy {
		c.close()
	}
	return used
}

// next makes the connection ready for its next request.
func (c *Conn) next() {
	c.active = false
	c.answering = answerDue
	c.unsent = 0
	c.isHead = false
	c.wholeBy = 0
	if c.draining {
		c.close()
	}
}

// finish is called once the answer is complete.
func (c *Conn) finish() {
	c.call = nil
	c.answering = answerDone
	c.discarding = c.config.LimitDiscard
	switch {
	case !c.persist || !c.body.done() && (c.expect || c.draining && !c.worthDiscarding()):
		c.close()
		return
	case !c.body.done() && !c.worthDiscarding():
		// The answer's head went out before this was known, and promised that the connection goes on. A client
		// that reads only once it has sent everything would lose its answer if the connection were closed.
		c.discarding = math.MaxInt64
	}
	if c.body.done() {
		c.next()
	} else {
		c.pace, c.wholeBy = nil, c.carrier.Now()+int64(discardTime)
	}
	if !c.running && !c.closed {
		c.run(nil)
	}
}

// worthDiscarding reports whether the connection can go on behind the rest of this body.
// While the client waits for 100 (Continue) nobody knows whether it will send it.
func (c *Conn) worthDiscarding() bool {
	return !c.expect && c.body.known() <= c.config.LimitDiscard
}

// trusts reports whether the peer may say for whom it speaks.
func (c *Conn) trusts() bool {
	if c.trust == trustUnknown {
		c.trust = untrusted
		if c.config.Proxies.Has(c.peer.Host) {
			c.trust = trusted
		}
	}
	return c.trust == trusted
}
