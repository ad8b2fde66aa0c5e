package dispatch

import (
	"encoding/binary"

	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

const (
	// sureChunk is how many bytes of a request body or a message fit into a record, with a pad and what is kept for
	// control records, once a quarter of the inbox is free. There may be room for more: up to largestChunk.
	sureChunk    = 32<<10 - 64
	largestChunk = 64 << 10
	keepStart    = 16 << 10 // a larger buffer of a start is not kept for the next call
)

// Which part of an inbox a record may use: the last eighth is for control records only.
type class bool

const (
	data    class = false
	control class = true
)

func putUint64(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }

// port is one shard's end of one worker's link.
type port struct {
	shard  *Shard
	worker *Worker
	inbox  *link.Producer
	outbox *link.Consumer
	slots  *link.Slots

	calls       []*Call  // by slot; grows as slots are first used
	generations []uint32 // by slot
	free        []uint32 // slots used before and free again, last in first out

	// offers are the calls offered and not seen claimed, in the order in which the worker
	// finds them. One that was taken back stays until it is skipped.
	offers    []offer
	offersAt  int
	unclaimed int

	firings map[uint64]*firing // due times of timers that have a slot, by its ID; see timers.go

	blocked  []*Call // wait for room in the inbox
	messages int     // bytes of WebSocket messages that do
	large    int     // bytes of those that the app has not received, beyond tightBody of each connection
	crowded  []*Call // WebSockets that wait until either are fewer
	full     bool    // the inbox had no room for a call start
	rungTurn uint64  // the worker's turn when it was last rung
	rung     bool
	dead     bool

	held   int // slots taken
	reruns int // of them, calls that run for the second time
	rounds rounds
	admission

	batch batch

	// Stalls.
	markTail     uint64 // what moves as long as the worker's loop does: its place in the inbox
	markTurns    uint64 // and the number of its drains
	markedAt     int64  // when one of them last moved
	stalledSince int64  // 0: it keeps up
	probed       bool   // it was rung to see whether it lives
	warned       bool   // the stall was reported
}

type offer struct {
	call             *Call
	slot, generation uint32
}

func newPort(s *Shard, w *Worker) *port {
	l := w.Link.Port(s.index)
	return &port{
		shard: s, worker: w, inbox: l.Inbox, outbox: l.Outbox, slots: l.Slots,
		admission: newAdmission(s.now), markedAt: s.now,
	}
}

// offer puts the call's start into the inbox. false: there is no room now.
func (p *port) offer(c *Call) bool {
	var slot uint32
	if n := len(p.free); n > 0 {
		slot = p.free[n-1]
	} else {
		slot = uint32(len(p.calls))
	}
	if int(slot) == len(p.calls) {
		p.calls = append(p.calls, nil)
		p.generations = append(p.generations, 0)
	} else if n := len(p.free); n > 0 {
		p.free = p.free[:n-1]
	}
	generation := p.nextGeneration(slot)
	payload, ok := p.write(len(c.start), c.kind(), c.flags, p.slots.ID(slot, generation), data)
	if !ok {
		p.free = append(p.free, slot)
		// Full, however much is free: it was too little, and would be again.
		p.full = true
		p.inbox.WantRoom()
		return false
	}
	copy(payload, c.start)
	p.generations[slot] = generation
	p.slots.Offer(slot, generation)
	p.calls[slot] = c
	c.port, c.slot, c.generation, c.offered = p, slot, generation, p.shard.now
	c.claimed = false
	if n := len(p.offers); n == cap(p.offers) && p.offersAt > n/2 {
		// Those seen claimed make room: a busy worker may never be done with all of them.
		kept := copy(p.offers, p.offers[p.offersAt:])
		clear(p.offers[kept:])
		p.offers, p.offersAt = p.offers[:kept], 0
	}
	p.offers = append(p.offers, offer{c, slot, generation})
	p.unclaimed++
	p.probing = false
	p.pace.tokens = max(p.pace.tokens-1, -1) // those that came before there was a pace are no debt
	p.hold(1)
	if c.again {
		p.reruns++
		p.rounds.begun(p.shard.now)
	}
	p.shard.move(c, offered)
	return true
}

// nextGeneration is what a slot's next use has. It is never 0: the first slot's ID would then
// be that of control records.
func (p *port) nextGeneration(slot uint32) uint32 { return max(p.generations[slot]+1, 1) }

// write reserves a record in the inbox.
func (p *port) write(n int, kind, flags uint16, id uint64, class class) ([]byte, bool) {
	keep := uint64(0)
	if class == data {
		keep = inboxReserve
	}
	payload, err := p.inbox.Reserve(n, kind, flags, id, keep)
	if err != nil {
		p.corrupt(err)
		return nil, false
	}
	if payload != nil {
		p.shard.counters.Add(observe.LinkRecordsOut, 1)
	}
	return payload, payload != nil
}

// reserve is write for a record of a call; without room the call waits for it.
func (p *port) reserve(c *Call, n int, kind, flags uint16, class class) ([]byte, bool) {
	if p.dead {
		return nil, false
	}
	payload, ok := p.write(n, kind, flags, p.slots.ID(c.slot, c.generation), class)
	if !ok && !p.dead && p.inbox.WantRoom() {
		payload, ok = p.write(n, kind, flags, p.slots.ID(c.slot, c.generation), class) // there is room by now
	}
	if !ok && !p.dead && !c.blocked {
		c.blocked = true
		p.blocked = append(p.blocked, c)
		p.shard.counters.Add(observe.LinkInboxFull, 1)
	}
	return payload, ok
}

// chunk is how many of n bytes of a body the next record takes.
func (p *port) chunk(n int) int {
	if n <= sureChunk || p.dead {
		return min(n, sureChunk)
	}
	room, err := p.inbox.Fits(inboxReserve)
	if err != nil {
		p.corrupt(err)
	}
	return min(n, max(room-link.BodyFixedSize, sureChunk), largestChunk)
}

// unblock lets the calls that wait for room go on.
func (p *port) unblock() {
	if len(p.blocked) == 0 {
		return
	}
	waiting := p.blocked
	p.blocked = nil
	for _, c := range waiting {
		c.blocked = false
		if c.port == p {
			c.pump()
			c.feed()
		}
	}
}

// settle takes note of the offers that the worker has claimed since the last look.
func (p *port) settle() {
	for p.offersAt < len(p.offers) {
		o := p.offers[p.offersAt]
		if p.current(&o) {
			at, ok, err := p.slots.Claimed(o.slot, o.generation)
			if err != nil {
				p.corrupt(err)
			}
			if !ok {
				return
			}
			p.claim(o.call, at)
		}
		p.offers[p.offersAt] = offer{}
		p.offersAt++
	}
	p.offers, p.offersAt = p.offers[:0], 0
}

// claim takes note that the worker began a call, at the time that it says.
func (p *port) claim(c *Call, at int64) {
	p.unclaimed--
	p.shard.move(c, claimed)
	// The worker's word is clamped: it can neither claim before the offer nor after now.
	at = min(max(at, c.offered), p.shard.now)
	delay := at - c.offered
	c.delay, c.claimed = delay, true
	p.batch.note(c.offered, at)
	p.worstDelay = max(p.worstDelay, delay)
	p.claims++
	p.worker.claimed.Add(1)
	if p.stalledSince != 0 {
		p.recovered() // what has claimed moves
	}
	p.shard.counters.Observe(observe.ClaimDelay, delay)
	if cap(c.start) > keepStart && !(p.shard.dispatch.settings.RetrySafe && safe(c.start)) {
		c.dropFirst()
	}
	if len(c.body) > 0 || c.bodyLast {
		c.pump()
	}
	c.feed()
}

// find is the call of a record, nil for one that is over: its slot has a new generation.
func (p *port) find(id uint64) *Call {
	slot, generation, ok := p.slots.Of(id)
	if !ok || int(slot) >= len(p.calls) || p.generations[slot] != generation {
		return nil
	}
	return p.calls[slot]
}

// abandon tells the worker that nobody waits for the call any more. The slot stays taken
// until the worker is done with it.
func (p *port) abandon(c *Call) {
	if c.abandoned {
		return
	}
	c.answer = nil
	c.dropBody()
	c.abandoned = true
	p.shard.counters.Inc(observe.CallsAbandoned)
	p.shard.dispatch.abandoned.Add(1)
	p.slots.Abandon(c.slot, c.generation)
	c.pump()
}

func (p *port) corrupt(err error) {
	if p.dead {
		return
	}
	p.dead = true
	p.shard.counters.Add(observe.LinkViolations, 1)
	if f := p.shard.dispatch.settings.Corrupt; f != nil {
		f(p.worker, p.shard.index, err)
	}
}
