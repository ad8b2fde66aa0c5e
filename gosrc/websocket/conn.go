package websocket

import (
	"io"

	"github.com/gorilla/websocket"

	"spvn/gosrc/call"
)

// phase is where a connection is in its life (RFC 6455 4.1, 7.1).
type phase uint8

const (
	open    phase = iota
	failing       // the peer broke the rules; the app's answers to what came before still leave
	closing       // a close frame was sent first by this side; the peer's is due
	gone          // the carrier was told to close; nothing happens any more
)

// Conn is one WebSocket connection: the call.Protocol of its carrier, and the
// call.WebSocket of its call. All methods are called by the goroutine of its poll loop.
type Conn struct {
	config  *Config
	carrier call.Carrier
	call    call.WebSocketCall // nil once it has ended
	gorilla *websocket.Conn
	writer  io.WriteCloser // of the message whose parts are being sent

	// Input.
	scan    scanner
	frame   frame
	at      int    // bytes of frame's payload so far
	in      []byte // unmasked payload of the incomplete message
	valid   int    // in[:valid] is UTF-8
	control []byte // unmasked payload of the incomplete control frame
	rest    []byte // read and not looked at, because the connection has to wait
	head    [maxHeader]byte
	// Here they fill a word, and a Conn its size class.
	headHave uint8 // bytes in head
	phase    phase

	violation *violation // why it is failing

	unsent   int32  // bytes of messages committed and not yet reported to the call: a window at most
	untilEnd uint32 // bytes that the kernel holds before the peer's FIN, 0: it has none, or holds none

	heardAt  int64 // when the peer last sent anything
	pingAt   int64 // when the next ping is due, 0: none
	pingedAt int64 // when the ping was sent that waits for an answer, 0: none does
	stallBy  int64 // until when the peer has to take something, 0: nothing waits
	closeBy  int64 // until when the closing handshake, or failing, has to end
	heldBy   int64 // until when the loop's budget has to have room
	armed    int64 // what the carrier was asked for

	inFrame     bool // frame's payload comes next
	compressed  bool // the incomplete message is
	compressing bool // writer does
	paused      bool // reading is paused
	running     bool // process is on the stack
	heldUp      bool // waits for the loop's budget
	holder      bool // is in the pool's holders
	peerDone    bool // the peer will send no more than rest
}

var _ call.WebSocketProtocol = (*Conn)(nil)

func newConn(config *Config, carrier call.Carrier, c call.WebSocketCall, deflate bool) *Conn {
	w := &Conn{config: config, carrier: carrier, call: c}
	w.scan = scanner{maxSize: config.MaxSize, deflate: deflate}
	w.adopt()
	config.Count(Opened)
	w.heardAt = carrier.Now()
	if config.PingInterval > 0 {
		w.pingAt = w.heardAt + int64(config.PingInterval)
	}
	w.arm()
	if carrier.Buffered() > 0 {
		w.watchOutput() // of answers before the handshake's
	}
	return w
}

// Receive implements call.Protocol.
func (c *Conn) Receive(b []byte) {
	if c.phase == gone || c.phase == failing {
		return
	}
	c.heardAt = c.carrier.Now()
	if c.untilEnd > 0 {
		c.untilEnd -= min(c.untilEnd, uint32(len(b)))
		c.peerDone = c.untilEnd == 0
	}
	if c.rest != nil {
		c.rest = append(c.rest, b...)
		return
	}
	c.process(b, false)
}

// PeerClosed implements call.Protocol. Without a close frame before it, a FIN means that the
// client vanished (RFC 6455 7.1.4); what it had sent before is still handed on.
func (c *Conn) PeerClosed(_ bool, unread int) {
	if c.phase == gone {
		return
	}
	if unread > 0 {
		c.untilEnd = uint32(unread)
		return
	}
	c.peerDone = true
	if c.rest == nil && c.phase != failing {
		c.vanish()
	}
}

// Lost implements call.Protocol.
func (c *Conn) Lost() {
	if c.phase == gone {
		return
	}
	left := c.call
	c.release()
	if left != nil {
		left.Leave()
	}
}

// Drain implements call.Protocol.
func (c *Conn) Drain() { c.Restart() }

// vanish ends the connection of a client that went away without a word.
func (c *Conn) vanish() {
	left := c.call
	c.release()
	c.carrier.Close()
	if left != nil {
		left.Leave()
	}
}

// cut is vanish for a client that takes nothing any more: what waits for it is dropped.
func (c *Conn) cut() {
	left := c.call
	c.release()
	c.carrier.Abort()
	if left != nil {
		left.Leave()
	}
}

// finish closes the connection once its output has left. The side that accepted closes
// first (RFC 6455 7.1.1).
func (c *Conn) finish() {
	c.release()
	c.carrier.Close()
}

// release gives everything back. Nothing happens afterwards.
func (c *Conn) release() {
	if c.phase == closing {
		c.config.Count(ClosingOver)
	}
	c.phase = gone
	c.config.Count(Closed)
	c.call = nil
	c.rest, c.control = nil, nil
	c.dropWriter()
	c.drop()
}

// mustWait says that nothing more is taken from the client now.
func (c *Conn) mustWait() bool {
	return c.heldUp || c.phase == open && (c.call != nil && !c.call.Ready() || c.carrier.Buffered() > maxUnsent)
}

// process takes steps as long as there is input for one. own says that b is the
// connection's, and may be kept.
func (c *Conn) process(b []byte, own bool) {
	c.running = true
	for len(b) > 0 && c.phase != gone && c.phase != failing {
		if c.mustWait() {
			break
		}
		b = b[c.step(b):]
	}
	c.running = false
	switch {
	case c.phase == gone:
	case c.phase == failing:
		c.pause(false)
	case len(b) > 0:
		if !own {
			b = append([]byte(nil), b...)
		}
		c.rest = b
		c.pause(true)
	case c.peerDone:
		c.vanish()
	default:
		c.pause(c.mustWait())
	}
}

// proceed goes on once there may be no reason to wait any more.
func (c *Conn) proceed() {
	if c.phase == gone || c.running || !c.paused || c.mustWait() {
		return
	}
	b := c.rest
	c.rest = nil
	c.process(b, true)
}

// Resume implements call.Answer.
func (c *Conn) Resume() { c.proceed() }

// pause stops or resumes reading.
func (c *Conn) pause(want bool) {
	if want == c.paused {
		return
	}
	c.paused = want
	if want {
		c.carrier.Pause()
		return
	}
	if c.pingedAt != 0 {
		c.pingedAt = c.carrier.Now() // its answer may lie behind what was not read
	}
	c.carrier.Resume()
}
