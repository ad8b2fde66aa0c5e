package transport

import "math/bits"

// The timer wheel keeps one deadline for each connection. Moving a deadline later, which
// is what nearly every request does, costs nothing: the entry stays where it is, and when
// its slot comes up it is put where it belongs now.
const (
	wheelSlots = 512
	wheelTick  = 125_000_000 // ns; a deadline comes up to two ticks late
)

type wheel struct {
	slots [wheelSlots]*conn       // doubly linked through conn.wheelNext, wheelPrev
	used  [wheelSlots / 64]uint64 // a bit for each slot that has an entry
	tick  int64                   // the next tick to look at
}

func (w *wheel) start(now int64) { w.tick = now / wheelTick }

// set makes sure that c is looked at soon after at.
func (w *wheel) set(c *conn, at int64) {
	tick := max(at/wheelTick+1, w.tick)
	if c.inWheel {
		if c.wheelTick <= tick {
			return
		}
		w.remove(c)
	}
	w.insert(c, tick)
}

func (w *wheel) insert(c *conn, tick int64) {
	tick = min(tick, w.tick+wheelSlots-2) // never the slot that turn is at
	i := tick % wheelSlots
	c.wheelTick, c.inWheel = tick, true
	c.wheelPrev, c.wheelNext = nil, w.slots[i]
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c
	}
	w.slots[i] = c
	w.used[i/64] |= 1 << (i % 64)
}

func (w *wheel) remove(c *conn) {
	if !c.inWheel {
		return
	}
	i := c.wheelTick % wheelSlots
	if c.wheelPrev != nil {
		c.wheelPrev.wheelNext = c.wheelNext
	} else {
		w.slots[i] = c.wheelNext
	}
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c.wheelPrev
	}
	if w.slots[i] == nil {
		w.used[i/64] &^= 1 << (i % 64)
	}
	c.inWheel, c.wheelNext, c.wheelPrev = false, nil, nil
}

// next is when the wheel has to be turned, 0 when it is empty.
func (w *wheel) next() int64 {
	from := w.tick % wheelSlots
	for n := int64(0); n < wheelSlots; {
		i := (from + n) % wheelSlots
		if word := w.used[i/64] >> (i % 64); word != 0 {
			return (w.tick + n + int64(bits.TrailingZeros64(word))) * wheelTick
		}
		n += 64 - i%64
	}
	return 0
}

// turn calls due for every connection whose slot has come up. due puts it back with set
// when its deadline is later.
func (w *wheel) turn(now int64, due func(*conn)) {
	last := now / wheelTick
	for n := 0; w.tick <= last && n < wheelSlots; n++ {
		i := w.tick % wheelSlots
		w.tick++ // whatever due sets comes later than this slot
		for c := w.slots[i]; c != nil; c = w.slots[i] {
			w.remove(c)
			due(c)
		}
	}
	w.tick = max(w.tick, last+1)
}
