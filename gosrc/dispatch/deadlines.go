package dispatch

import (
	"math"
	"math/bits"
	"strconv"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/observe"
)

// Deadlines of calls: --timeout-first-byte, --timeout-request, and what the client allows in
// the field of --deadline-header. They are the core's own, and hold while every loop of the
// app is stuck: the client gets a 504 (or the connection is cut, if the answer had begun),
// the app http.disconnect, and the slot is free again when the app is done with it.
//
// A call with a deadline is in a wheel of the shard, once, at the nearer of its two. It
// stays there when its answer has begun, and is put where it belongs when its slot comes up.
// Without these options no call ever comes here.

const (
	deadlineTick  = 10_000_000 // ns; a deadline comes up to one tick late
	deadlineSlots = 1024       // of 10 ms: what is farther away comes round again
)

// deadlines is the wheel of one shard.
type deadlines struct {
	slots [deadlineSlots]*Call // doubly linked through Call.dueNext, duePrev
	used  [deadlineSlots / 64]uint64
	tick  int64 // the next one to look at
	count int
}

// setDeadlines gives a call that arrived now its deadlines.
func (s *Shard) setDeadlines(c *Call, r *call.Request) {
	settings := &s.dispatch.settings
	whole := settings.RequestTimeout
	if settings.DeadlineField != "" {
		for i := range r.Fields {
			if f := &r.Fields[i]; string(f.Name) == settings.DeadlineField {
				if d, ok := parseDeadline(f.Value); ok && (whole == 0 || d < whole) {
					whole = d
					c.clientDeadline = true
				}
				break
			}
		}
	}
	begin := settings.FirstByteTimeout
	if r.WebSocket && whole > 0 {
		// It is the handshake that has to be answered; what follows has no end to wait for.
		if begin == 0 || whole < begin {
			begin = whole
		}
		whole = 0
	}
	if whole > 0 {
		c.answerBy = c.arrived + int64(whole)
	}
	if begin > 0 {
		c.beginBy = c.arrived + int64(begin)
	}
	s.arm(c)
}

// arm puts a call into the wheel, at its next deadline.
func (s *Shard) arm(c *Call) {
	at := c.answerBy
	if c.beginBy != 0 && c.state < answering && (at == 0 || c.beginBy < at) {
		at = c.beginBy
	}
	if at == 0 {
		return
	}
	if s.deadlines == nil {
		s.deadlines = &deadlines{}
	}
	w := s.deadlines
	if w.count == 0 {
		w.tick = s.now / deadlineTick
	}
	w.insert(c, at)
	c.dueAt = at
}

func (w *deadlines) insert(c *Call, at int64) {
	tick := min(max((at+deadlineTick-1)/deadlineTick, w.tick), w.tick+deadlineSlots-2)
	i := tick % deadlineSlots
	c.dueSlot, c.inWheel = uint16(i), true
	c.duePrev, c.dueNext = nil, w.slots[i]
	if c.dueNext != nil {
		c.dueNext.duePrev = c
	}
	w.slots[i] = c
	w.used[i/64] |= 1 << (i % 64)
	w.count++
}

func (w *deadlines) remove(c *Call) {
	i := c.dueSlot
	if c.duePrev != nil {
		c.duePrev.dueNext = c.dueNext
	} else {
		w.slots[i] = c.dueNext
	}
	if c.dueNext != nil {
		c.dueNext.duePrev = c.duePrev
	}
	if w.slots[i] == nil {
		w.used[i/64] &^= 1 << (i % 64)
	}
	c.inWheel, c.dueNext, c.duePrev = false, nil, nil
	w.count--
}

// next is when the wheel has to be turned, 0 when it is empty.
func (w *deadlines) next() int64 {
	from := w.tick % deadlineSlots
	for n := int64(0); n < deadlineSlots; {
		i := (from + n) % deadlineSlots
		if word := w.used[i/64] >> (i % 64); word != 0 {
			return (w.tick + n + int64(bits.TrailingZeros64(word))) * deadlineTick
		}
		n += 64 - i%64
	}
	return 0
}

// turnDeadlines ends the calls whose time is over, and reports whether there were any.
func (s *Shard) turnDeadlines() (any bool) {
	w := s.deadlines
	last := s.now / deadlineTick
	for n := 0; w.tick <= last && n < deadlineSlots; n++ {
		i := w.tick % deadlineSlots
		w.tick++ // whatever is armed again comes later than this slot
		for c := w.slots[i]; c != nil; c = w.slots[i] {
			w.remove(c)
			if c.dueAt <= s.now && (c.dueAt == c.answerBy || c.state < answering) {
				any = true
				s.overdue(c)
			} else {
				s.arm(c)
			}
		}
	}
	w.tick = max(w.tick, last+1)
	return any
}

// disarm takes a call that ended, or that has no deadline any more, out of the wheel.
func (s *Shard) disarm(c *Call) {
	if c.inWheel {
		s.deadlines.remove(c)
	}
	c.answerBy, c.beginBy = 0, 0
}

// overdue ends a call whose deadline has come, wherever it is.
func (s *Shard) overdue(c *Call) {
	const text = "The request took longer than this server allows."
	first := s.dispatch.settings.FirstByteTimeout
	switch {
	case c.dueAt == c.beginBy && c.state < answering && first > 0 && c.beginBy == c.arrived+int64(first):
		s.counters.Add(observe.TimedOutFirstByte, 1)
	case c.clientDeadline:
		s.counters.Add(observe.TimedOutClient, 1)
	default:
		s.counters.Add(observe.TimedOutRequest, 1)
	}
	switch {
	case c.state == queued:
		s.unqueue(c)
		s.fail(c, observe.Failed504, 504, text)
		s.recycle(c)
	case c.state == offered && c.port.slots.TakeBack(c.slot, c.generation):
		c.port.unclaimed--
		s.fail(c, observe.Failed504, 504, text)
		c.port.release(c)
	default:
		p := c.port
		p.settle()
		s.fail(c, observe.Failed504, 504, text)
		p.abandon(c)
	}
}

// parseDeadline reads how long a client will wait: seconds, or milliseconds behind which
// ms stands: "2", "0.25", "250ms". What is nothing of the kind is not believed.
func parseDeadline(value []byte) (time.Duration, bool) {
	text, unit := string(value), float64(time.Second)
	if n := len(text); n > 2 && text[n-2:] == "ms" {
		text, unit = text[:n-2], float64(time.Millisecond)
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && c != '.' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v*unit > math.MaxInt64/4 {
		return 0, false
	}
	return max(time.Duration(v*unit), 1), true
}
