package link

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"
)

// ErrCorrupt says that the worker wrote something into the link that no worker writes.
// The core then drops that worker; it never trusts the link again.
var ErrCorrupt = errors.New("the worker's link is corrupt")

// ring is one direction of a link as either side sees it.
type ring struct {
	head, tail         *atomic.Uint64
	sleeping, wantRoom *atomic.Uint32
	data               []byte
	size               uint64
}

func ringAt(memory []byte, offset uint64, size uint64) ring {
	control := memory[offset : offset+RingHeaderSize]
	return ring{
		head:     (*atomic.Uint64)(unsafe.Pointer(&control[RingHead])),
		tail:     (*atomic.Uint64)(unsafe.Pointer(&control[RingTail])),
		sleeping: (*atomic.Uint32)(unsafe.Pointer(&control[RingSleeping])),
		wantRoom: (*atomic.Uint32)(unsafe.Pointer(&control[RingWantRoom])),
		data:     memory[offset+RingHeaderSize : offset+RingHeaderSize+size : offset+RingHeaderSize+size],
		size:     size,
	}
}

// MaxRecord is the longest record a ring of this size takes, header included: a quarter,
// so that a pad and a record always fit together.
func MaxRecord(ringSize int) int { return ringSize / 4 }

// Producer is the writing end of a ring. One goroutine owns it.
type Producer struct {
	ring
	next      uint64 // reserved up to here; published when head says so
	before    uint64 // next before the last record was reserved,
	last      uint64 // and where that record begins: behind a pad, perhaps
	published uint64
	tailSeen  uint64 // the consumer's tail when it was last read
}

// NewProducer takes over a ring's writing end where the last owner left it.
func newProducer(r ring) *Producer {
	head := r.head.Load()
	return &Producer{ring: r, next: head, published: head, tailSeen: r.tail.Load()}
}

// free is how many bytes can be reserved, after reading the consumer's tail if want is
// more than what was free when it was last read.
func (p *Producer) free(want uint64) (uint64, error) {
	if free := p.size - (p.next - p.tailSeen); free >= want {
		return free, nil
	}
	tail := p.tail.Load()
	if tail < p.tailSeen || tail > p.published {
		return 0, ErrCorrupt
	}
	p.tailSeen = tail
	return p.size - (p.next - tail), nil
}

// Reserve makes room for a record with a payload of n bytes and returns the payload to
// fill, or nil when there is no room that leaves keep bytes free. The record is invisible
// until Publish. n must be at most MaxRecord less the header.
func (p *Producer) Reserve(n int, kind, flags uint16, call uint64, keep uint64) ([]byte, error) {
	need := uint64(n+RecordHeaderSize+7) &^ 7
	offset := p.next & (p.size - 1)
	pad := uint64(0)
	if toEnd := p.size - offset; toEnd < need {
		pad = toEnd
	}
	free, err := p.free(pad + need + keep)
	if err != nil || free < pad+need+keep {
		return nil, err
	}
	p.before = p.next
	if pad > 0 {
		binary.LittleEndian.PutUint32(p.data[offset:], uint32(pad))
		binary.LittleEndian.PutUint32(p.data[offset+4:], Pad)
		p.next += pad
		offset = 0
	}
	p.last = p.next
	record := p.data[offset : offset+need : offset+need]
	binary.LittleEndian.PutUint32(record[RecordLength:], uint32(need))
	binary.LittleEndian.PutUint16(record[RecordType:], kind)
	binary.LittleEndian.PutUint16(record[RecordFlags:], flags)
	binary.LittleEndian.PutUint64(record[RecordCall:], call)
	p.next += need
	return record[RecordHeaderSize : RecordHeaderSize+n], nil
}

// Fits is the largest payload that Reserve has room for now, leaving keep bytes free; it may be less than 0.
func (p *Producer) Fits(keep uint64) (int, error) {
	free, err := p.free(p.size)
	if err != nil {
		return 0, err
	}
	room, toEnd := int(free)-int(keep), int(p.size-p.next&(p.size-1))
	// At the ring's end, or behind a pad at its beginning.
	return min(max(min(room, toEnd), room-toEnd), MaxRecord(int(p.size))) - RecordHeaderSize, nil
}

// Shorten gives the record that was reserved last, and is not published yet, other flags and a payload of its first
// n bytes only.
func (p *Producer) Shorten(n int, flags uint16) {
	need := uint64(n+RecordHeaderSize+7) &^ 7
	record := p.data[p.last&(p.size-1):]
	binary.LittleEndian.PutUint32(record[RecordLength:], uint32(need))
	binary.LittleEndian.PutUint16(record[RecordFlags:], flags)
	p.next = p.last + need
}

// Cancel takes the record back that was reserved last and is not published yet.
func (p *Producer) Cancel() { p.next = p.before }

// Pending says whether something was reserved and not yet published.
func (p *Producer) Pending() bool { return p.next != p.published }

// Publish makes what was reserved visible and reports whether the consumer sleeps and
// must be rung: it is awake from now on as far as this ring knows.
func (p *Producer) Publish() (ring bool) {
	p.published = p.next
	p.head.Store(p.next)
	// Sequentially consistent store, then load: the consumer sets its flag and then looks
	// at head again, so one of the two sees the other.
	return p.sleeping.Load() != 0 && p.sleeping.Swap(0) != 0
}

// WantRoom tells the consumer to ring once a quarter of the ring is free. It reports
// whether that is already so.
func (p *Producer) WantRoom() bool {
	p.wantRoom.Store(1)
	tail := p.tail.Load()
	if tail >= p.tailSeen && tail <= p.published && p.size-(p.next-tail) >= p.size/4 {
		p.wantRoom.Store(0)
		return true
	}
	return false
}

// Unread is how many published bytes the consumer has not taken.
func (p *Producer) Unread() uint64 { return p.published - p.tail.Load() }

// Consumed is how far the consumer says it has come. It may say anything.
func (p *Producer) Consumed() uint64 { return p.tail.Load() }

// Record is one record as its consumer sees it. The header is a private copy and was
// checked. Payload lies in shared memory: the other side may change it while it is read,
// so whatever decides something is copied out first.
type Record struct {
	Type, Flags uint16
	Call        uint64
	Payload     []byte
}

// Consumer is the reading end of a ring. One goroutine owns it.
type Consumer struct {
	ring
	next     uint64 // consumed up to here
	told     uint64 // tail as the producer sees it
	headSeen uint64
}

func newConsumer(r ring) *Consumer {
	tail := r.tail.Load()
	return &Consumer{ring: r, next: tail, told: tail, headSeen: tail}
}

// Next takes the next record; ok is false when there is none. The payload stays valid
// until Release.
func (c *Consumer) Next() (r Record, ok bool, err error) {
	for {
		if c.next == c.headSeen {
			head := c.head.Load()
			if head == c.next {
				return r, false, nil
			}
			if head < c.next || head-c.told > c.size || head&7 != 0 {
				return r, false, ErrCorrupt
			}
			c.headSeen = head
		}
		offset := c.next & (c.size - 1)
		limit := min(c.headSeen-c.next, c.size-offset)
		// One 8-byte read: length, type and flags belong together.
		first := binary.LittleEndian.Uint64(c.data[offset:])
		length := uint64(uint32(first))
		kind := uint16(first >> 32)
		if length&7 != 0 || length == 0 || length > limit {
			return r, false, ErrCorrupt
		}
		if kind == Pad {
			if length != c.size-offset {
				return r, false, ErrCorrupt
			}
			c.next += length
			continue
		}
		if length < RecordHeaderSize || length > c.size/4 {
			return r, false, ErrCorrupt
		}
		r.Type = kind
		r.Flags = uint16(first >> 48)
		r.Call = binary.LittleEndian.Uint64(c.data[offset+RecordCall:])
		r.Payload = c.data[offset+RecordHeaderSize : offset+length : offset+length]
		c.next += length
		return r, true, nil
	}
}

// Taken is how many bytes were taken and not yet given back.
func (c *Consumer) Taken() uint64 { return c.next - c.told }

// Release gives the space of all records taken so far back to the producer and reports
// whether the producer waits for room and must be rung.
func (c *Consumer) Release() (ring bool) {
	if c.told == c.next {
		return false
	}
	c.told = c.next
	c.tail.Store(c.next)
	if c.wantRoom.Load() == 0 {
		return false
	}
	head := c.head.Load()
	if head-c.next <= c.size-c.size/4 || head-c.next > c.size {
		return c.wantRoom.Swap(0) != 0
	}
	return false
}

// Arm says that the consumer is about to sleep: until it is rung, or briefly, for NapMs at the
// most. It reports false when there is something to take after all; then the consumer is awake.
func (c *Consumer) Arm(briefly bool) bool {
	if briefly {
		c.sleeping.Store(Napping)
	} else {
		c.sleeping.Store(Asleep)
	}
	if c.head.Load() != c.next {
		c.sleeping.Store(0)
		return false
	}
	return true
}

// Disarm says that the consumer is awake, so that nobody rings in vain.
func (c *Consumer) Disarm() { c.sleeping.Store(0) }

// Empty reports whether there is nothing to take.
func (c *Consumer) Empty() bool { return c.head.Load() == c.next }
