package http1

import (
	"time"

	"spvn/gosrc/call"
)

// Conn is one HTTP/1.1 connection: the call.Protocol of its carrier and the call.Answer of
// the call in flight. All methods are called by the goroutine of its poll loop.
type Conn struct {
	config     *Config
	carrier    call.Carrier
	dispatcher call.Dispatcher
	call       call.Call      // in flight; nil once either side is done with it
	handshake  call.Handshake // that the call in flight may accept; nil if it is none

	peer, local call.Addr

	// Input. in holds what could not be used yet; its first inAt bytes are done with.
	in   []byte
	inAt int
	head *head // of the incomplete head at in[inAt:]
	body body  // of the request in hand

	// Output.
	answerLeft int64 // bytes of the answer's body that its Content-Length still promises
	unsent     int64 // bytes of the answer's body committed and not yet reported to the call
	discarding int64 // bytes that may still be discarded behind a complete answer

	wholeBy  int64 // when the head, or the body that is discarded, has to be complete; 0: no such time
	deadline int64 // what the carrier was asked for
	pace     *pace // of the body in hand; nil without Config.MinBodyRate
	requests uint32

	scheme    call.Scheme
	blank     uint8 // bytes of empty lines since the last request
	answering answerState
	framing   framing
	trust     trust

	active   bool // a request is in hand: its body or its answer is incomplete
	running  bool // run is on the stack
	stuffed  bool // the client does not take its answers: the next request waits
	closed   bool // nothing is done any more
	paused   bool // reading is paused
	peerDone bool // the peer has shut its side
	draining bool
	rested   bool // the carrier knows that there is no call in flight

	// Of the request in hand.
	persist  bool // the connection may go on behind it
	isHead   bool // HEAD: the answer has no body (RFC 9110 9.3.2)
	old      bool // HTTP/1.0
	expect   bool // the client waits for 100 (Continue)
	trailers bool // the client takes trailers
	trailing bool // the last chunk was written, trailers follow
	excess   bool // the app sent more than it promised; logged
}

// answerState is how far the answer to the request in hand is.
type answerState uint8

const (
	answerDue     answerState = iota
	answerStarted             // its head was written
	answerDone
)

// trust is whether the peer's X-Forwarded fields are believed; a connection finds out once.
type trust uint8

const (
	trustUnknown trust = iota
	trusted
	untrusted
)

var (
	_ call.Protocol = (*Conn)(nil)
	_ call.Lander   = (*Conn)(nil)
	_ call.Answer   = (*Conn)(nil)
)

// New makes the state machine of a new connection and asks carrier for its first deadline.
// peer is who connected, local the address it connected to, scheme HTTP or HTTPS.
func New(cfg *Config, carrier call.Carrier, d call.Dispatcher, peer, local call.Addr, scheme call.Scheme) *Conn {
	c := &Conn{config: cfg, carrier: carrier, dispatcher: d, peer: peer, local: local, scheme: scheme}
	c.rested = true
	carrier.Idle(true)
	c.arm(cfg.TimeoutHeader)
	return c
}

// Receive implements call.Protocol.
func (c *Conn) Receive(b []byte) {
	if c.closed || len(b) == 0 {
		return
	}
	if c.wholeBy != 0 && c.carrier.Now() >= c.wholeBy {
		// The carrier reads once more before it reports that time is up; a head that drips
		// must not win by that.
		c.Timeout()
		return
	}
	if c.pace != nil && c.pace.from != 0 {
		c.pace.bytes += int64(len(b))
	}
	if c.in != nil {
		c.keep(b)
		c.run(nil)
		return
	}
	c.run(b)
}

// Target implements call.Lander: what is body and nothing else may be read to where the call wants it.
func (c *Conn) Target() []byte {
	if c.closed || c.paused || c.in != nil || !c.active || c.answering == answerDone || c.body.state != bodyLength {
		return nil
	}
	if placer, ok := c.call.(call.Placer); ok {
		return placer.Place(int(min(c.body.left, 1<<30)))
	}
	return nil
}

// Landed implements call.Lander.
func (c *Conn) Landed(n int) {
	placer := c.call.(call.Placer)
	if n == 0 {
		placer.Placed(0, false)
		return
	}
	if c.pace != nil && c.pace.from != 0 {
		c.pace.bytes += int64(n)
	}
	if c.body.left -= int64(n); c.body.left == 0 {
		c.body.state = bodyDone
	}
	c.expect = false
	placer.Placed(n, c.body.done())
	c.rest()
}

// PeerClosed implements call.Protocol. A FIN that came with the end of a request is a
// half-close, and the client waits for its answer; a later one means that it left.
func (c *Conn) PeerClosed(together bool, unread int) {
	if c.closed {
		return
	}
	c.peerDone = true
	switch {
	case c.stuffed && together:
		// Its pipelined requests are answered as it takes the answers.
	case !c.active || c.answering == answerDone:
		c.close()
	case c.body.done():
		if !together {
			c.leave()
		}
	default:
		// What the kernel still holds may be the rest of the body; where it ends in chunks
		// nobody knows.
		if left := c.body.known(); together || left < 0 || int64(unread) < left {
			c.leave()
		}
	}
}

// Sent implements call.Protocol. The call is told of its body only. Framing is taken to
// leave first, so the call never hears of more than has left, and of all once all has.
func (c *Conn) Sent(int) {
	if c.stuffed && !c.running && !c.closed && c.carrier.Buffered() < maxUnsent/2 {
		c.stuffed = false
		c.run(nil)
		return
	}
	if c.unsent == 0 || c.call == nil {
		return
	}
	if left := min(c.unsent, int64(c.carrier.Buffered())); left < c.unsent {
		n := c.unsent - left
		c.unsent = left
		c.call.Sent(int(n))
	}
}

// Timeout implements call.Protocol.
func (c *Conn) Timeout() {
	if c.closed {
		return
	}
	c.deadline = 0
	switch {
	case !c.active && c.wholeBy != 0:
		c.refuse(slowHead)
	case !c.active:
		if f := c.config.SilenceExpired; f != nil {
			f(c.requests > 0)
		}
		c.close()
	case c.body.done() || c.paused || c.expect:
		// The app's time, not the client's; the deadline was withdrawn meanwhile.
	case c.answering == answerDone:
		c.close()
	case c.pace == nil:
		c.refuse(slowBody)
	default:
		if r := c.tooSlow(); r != nil {
			c.refuse(r)
		} else {
			c.armPace()
		}
	}
}

// Drain implements call.Protocol.
func (c *Conn) Drain() {
	c.draining = true
	if c.closed {
		return
	}
	if !c.active && c.wholeBy == 0 || c.answering == answerDone {
		c.close()
	}
}

// Lost implements call.Protocol.
func (c *Conn) Lost() {
	if c.closed {
		return
	}
	left := c.call
	c.release()
	if left != nil {
		left.Leave()
	}
}

// Detach takes the connection out of this Conn's hands, for the protocol that the answer
// in hand upgraded it to (RFC 9110 7.8), and returns what the client sent behind its
// request. The caller gives the carrier its new protocol; nothing may be called here again.
func (c *Conn) Detach() (rest []byte) {
	rest = append(rest, c.in[c.inAt:]...)
	c.arm(0)
	if c.paused {
		c.carrier.Resume()
	}
	c.release()
	return rest
}

// close ends the connection once its output has left.
func (c *Conn) close() {
	c.release()
	c.carrier.Close()
}

// cut ends the connection at once, so that an incomplete answer looks like one.
func (c *Conn) cut() {
	left := c.call
	c.release()
	c.carrier.Abort()
	if left != nil {
		left.Leave()
	}
}

// leave takes note that the client has gone. Answers that were complete before may still
// reach it; the one in hand, if it has begun, must not look complete.
func (c *Conn) leave() {
	if c.answering == answerStarted {
		c.cut()
		return
	}
	left := c.call
	c.close()
	if left != nil {
		left.Leave()
	}
}

// release gives everything back. Nothing happens afterwards.
func (c *Conn) release() {
	c.closed = true
	c.call, c.handshake = nil, nil
	if c.head != nil {
		c.config.Pool.recycleHead(c.head)
		c.head = nil
	}
	c.drop()
}

// drop gives the input buffer back.
func (c *Conn) drop() {
	if c.in != nil {
		c.config.Pool.recycle(c.in)
		c.in, c.inAt = nil, 0
	}
}

// keep puts b behind the input that could not be used yet.
func (c *Conn) keep(b []byte) {
	held := c.in[c.inAt:]
	if len(c.in)+len(b) > cap(c.in) {
		old := c.in
		in := held
		if len(held)+len(b) > cap(old) {
			in = append(c.config.Pool.buffer(len(held)+len(b)), held...)
			c.drop()
		} else {
			in = old[:copy(old, held)]
		}
		c.in, c.inAt = in, 0
		if c.head != nil {
			c.head.reset() // what it knows points to where the bytes were
		}
	}
	c.in = append(c.in, b...)
}

// arm asks the carrier for a deadline this far from now; 0 for none.
func (c *Conn) arm(d time.Duration) {
	at := int64(0)
	if d > 0 {
		at = c.carrier.Now() + int64(d)
	}
	c.armAt(at)
}

func (c *Conn) armAt(at int64) {
	if at != c.deadline {
		c.deadline = at
		c.carrier.Deadline(at)
	}
}

// pause stops or resumes reading.
func (c *Conn) pause(want bool) {
	if want == c.paused {
		return
	}
	c.paused = want
	if want {
		c.carrier.Pause()
	} else {
		c.carrier.Resume()
	}
}
