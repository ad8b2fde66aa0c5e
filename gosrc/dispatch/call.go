package dispatch

import (
	"encoding/binary"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// Call is one call. It belongs to the shard's goroutine from Start until its slot is free
// again, and is then used for another.
type Call struct {
	shard  *Shard
	answer call.Answer // nil once the client is done with it
	state  state

	// While it waits.
	ticket   uint
	arrived  int64
	queuedAt int64 // when it arrived, or was to run again, by the shard's clock of waiting calls

	// The start as it goes over the link; kept until the call is done, for the logs and in
	// case that it must be offered again.
	start []byte
	flags uint16

	// While a worker has it.
	port             *port
	slot, generation uint32
	offered          int64
	delay            int64 // from then to the claim
	claimed, counted bool  // it was claimed; admission knows that it is over

	// The request's body.
	body        []byte // taken from the protocol and not yet forwarded; in kept
	kept        []byte // the buffer of body, which is the shard's
	place       []byte // the record that the next part of it is read into
	bodyLast    bool   // nothing comes behind it
	forwarded   bool   // the last part was forwarded
	outstanding int    // bytes forwarded that the app has not received
	starved     bool   // the protocol was told that there is no room
	charged     int    // bytes of the budget for bodies and messages
	squeezed    int    // its place among those that wait for that budget, from 1; 0: it does not

	webSocket bool    // its start is a handshake
	socket    *socket // what it has more once that was accepted

	// The answer's.
	acked    int  // bytes that left and were not yet credited
	inCore   int  // bytes that have not left
	finished bool // the app's answer is complete; no more credit is due
	told     bool // DISCONNECT was written
	spoke    bool // the worker wrote something about it, credit aside

	abandoned bool // it has ended, and the worker has not said so

	received, sent int64 // bytes, for reports

	// For the case that the worker ends.
	again     bool // it runs for the second time
	fed       bool // more of the body was forwarded than its start had
	dismissed bool // DISCONNECT is due although the client is there
	blocked   bool // waits in port.blocked for room in the inbox

	// Deadlines (0: none); see deadlines.go.
	answerBy, beginBy, dueAt int64
	dueNext, duePrev         *Call
	dueSlot                  uint16
	inWheel, clientDeadline  bool

	priority bool // of a priority path: it goes ahead of the queue and of the window
	old      bool // held for so long that admission does not count it
}

var (
	_ call.Call   = (*Call)(nil)
	_ call.Placer = (*Call)(nil)
)

// size is what a waiting call costs.
func (c *Call) size() int { return len(c.start) + len(c.body) + 256 }

// Room implements call.Call.
func (c *Call) Room() int {
	window := c.shard.bodyWindow()
	room := c.room(window)
	if room <= 0 {
		c.starved = true
		if window < link.BodyWindow {
			c.shard.squeeze(c)
		}
	}
	return room
}

// room is Room for a window.
func (c *Call) room(window int) int {
	d := c.shard.dispatch
	switch {
	case c.state == queued && d.bytes.Load() >= int64(d.settings.QueueBytes):
		return 0 // until a worker begins it
	case c.running() && len(c.body) > 0:
		return 0 // the inbox is full: the kernel keeps what comes, and no copy is made of it here
	}
	return window - c.outstanding - len(c.body)
}

// running says whether the worker takes the body.
func (c *Call) running() bool { return c.state == claimed || c.state == answering }

// Body implements call.Call.
func (c *Call) Body(b []byte, last bool) {
	if c.state.ended() {
		return
	}
	if c.state == queued {
		c.countBytes(len(b))
	}
	if c.state == offered {
		c.port.settle()
	}
	c.charge(len(b))
	c.bodyLast = last
	c.received += int64(len(b))
	if c.running() && len(c.body) == 0 {
		b = c.forward(b)
	}
	c.keep(b)
}

// leastPlace is how many bytes of a body are worth a place in the inbox before they are there.
const leastPlace = 16 << 10

// Place implements call.Placer.
func (c *Call) Place(n int) []byte {
	if c.state == offered {
		c.port.settle()
	}
	if !c.running() || c.socket != nil || len(c.body) > 0 || c.forwarded || c.port.dead {
		return nil
	}
	n = min(c.port.chunk(n), c.shard.bodyWindow())
	if n < leastPlace {
		return nil
	}
	p := c.port
	payload, err := p.inbox.Reserve(link.BodyFixedSize+n, link.Body, 0, p.slots.ID(c.slot, c.generation), inboxReserve)
	if err != nil {
		p.corrupt(err)
	}
	if payload == nil {
		return nil // Body has it wait for room
	}
	putUint64(payload, 0) // whatever happens until Placed, it is no part of a body
	c.place = payload
	return payload[link.BodyBytes:]
}

// Placed implements call.Placer.
func (c *Call) Placed(n int, last bool) {
	payload, p := c.place, c.port
	c.place = nil
	if n == 0 {
		p.inbox.Cancel()
		return
	}
	flags := uint16(0)
	if last {
		flags = link.FlagLast
	}
	p.inbox.Shorten(link.BodyFixedSize+n, flags)
	putUint64(payload, uint64(n)) // u32 length, u32 0
	p.shard.counters.Add(observe.LinkRecordsOut, 1)
	c.charge(n)
	c.received += int64(n)
	c.outstanding += n
	c.fed = true
	c.bodyLast, c.forwarded = last, last
}

// keep puts b behind what is not forwarded yet.
func (c *Call) keep(b []byte) {
	if len(b) == 0 {
		return
	}
	if need := len(c.body) + len(b); need > cap(c.body) {
		// Many small parts of a body that waits are not copied each time that one comes.
		larger := append(c.shard.spareBuffer(max(need, min(2*need, link.BodyWindow))), c.body...)
		c.dropBody()
		c.kept, c.body = larger, larger
	}
	c.body = append(c.body, b...)
}

// dropFirst forgets the first part of the body: the worker has it, and nobody else will be given it.
func (c *Call) dropFirst() {
	length := c.start[link.CallBodyLength:]
	c.start = append([]byte(nil), c.start[:len(c.start)-int(binary.LittleEndian.Uint32(length))]...)
	binary.LittleEndian.PutUint32(c.start[link.CallBodyLength:], 0)
}

// dropBody gives the buffer of what was to be forwarded back.
func (c *Call) dropBody() {
	if c.kept != nil {
		c.shard.keepBuffer(c.kept)
		c.kept = nil
	}
	c.body = nil
}

// Sent implements call.Call.
func (c *Call) Sent(n int) {
	if c.finished || c.state.ended() {
		return
	}
	c.acked += n
	c.inCore -= n
	// A worker waits only when a whole window is on its way, so a quarter of it is always
	// reached and no single small chunk costs a record.
	if c.acked >= link.SendWindowStream/4 && !c.withhold() {
		c.pump()
	}
}

// Leave implements call.Call.
func (c *Call) Leave() {
	s := c.shard
	if c.state < answering {
		s.patience.gaveUp(s.now - c.arrived)
	}
	switch {
	case c.state.ended():
		return
	case c.state == queued:
		s.unqueue(c)
		s.end(c, left, observe.CallsLeft)
		s.recycle(c)
	case c.state == offered && c.port.slots.TakeBack(c.slot, c.generation):
		c.port.unclaimed--
		s.end(c, left, observe.CallsLeft)
		c.port.release(c)
	default:
		c.port.settle()
		s.end(c, left, observe.CallsLeft)
		c.port.abandon(c)
	}
}

// pump writes what is due to the worker: body, credit, the news that the client left. What
// finds no room waits until the worker rings.
func (c *Call) pump() {
	p := c.port
	if c.socket != nil {
		c.pumpSocket()
		return
	}
	if (c.state.ended() || c.dismissed) && !c.told {
		if _, ok := p.reserve(c, 0, link.Disconnect, 0, control); !ok {
			return
		}
		c.told = true
	}
	if c.state.ended() {
		return
	}
	if c.acked >= link.SendWindowStream/4 && !c.finished && !c.withhold() {
		payload, ok := p.reserve(c, 8, link.SendWindow, 0, control)
		if !ok {
			return
		}
		putUint64(payload, uint64(c.acked))
		c.acked = 0
	}
	if c.body = c.forward(c.body); len(c.body) == 0 {
		c.dropBody()
	}
}

// forward writes b to the worker's inbox, as far as that has room, and returns what is left.
func (c *Call) forward(b []byte) []byte {
	for !c.forwarded && (len(b) > 0 || c.bodyLast) {
		n := c.port.chunk(len(b))
		flags := uint16(0)
		if c.bodyLast && n == len(b) {
			flags = link.FlagLast
		}
		payload, ok := c.port.reserve(c, link.BodyFixedSize+n, link.Body, flags, data)
		if !ok {
			break
		}
		putUint64(payload, uint64(n)) // u32 length, u32 0
		copy(payload[link.BodyBytes:], b[:n])
		c.outstanding += n
		c.fed = c.fed || n > 0
		b = b[n:]
		c.forwarded = flags == link.FlagLast
	}
	return b
}

// credit takes note that the app received n bytes of body.
func (c *Call) credit(n uint64) bool {
	if n > uint64(c.outstanding) {
		return false
	}
	c.outstanding -= int(n)
	c.charge(-int(n))
	c.feed()
	return true
}

// feed has the protocol go on if it waits for room and there is some.
func (c *Call) feed() {
	if k := c.socket; k != nil {
		if k.starved && k.conn != nil && !c.state.ended() {
			k.starved = false
			k.conn.Resume() // and asks Ready
		}
		return
	}
	if c.starved && c.answer != nil && c.room(c.shard.bodyWindow()) > 0 {
		c.starved = false
		c.answer.Resume()
	}
}
