package link

import (
	"sync/atomic"
	"unsafe"
)

// Slots is one poll loop's part of a link's call slots. The loop's goroutine owns it; the
// worker only moves a slot from offered to claimed.
type Slots struct {
	memory []byte // this loop's slots
	first  uint32 // number of the first
	count  uint32
}

// Count is how many slots there are.
func (s *Slots) Count() int { return int(s.count) }

// ID is the name of a call in records: its slot's number and generation.
func (s *Slots) ID(slot, generation uint32) uint64 {
	return uint64(generation)<<32 | uint64(s.first+slot)
}

// Of finds the slot of an ID; ok is false when it is not one of this loop's.
func (s *Slots) Of(id uint64) (slot, generation uint32, ok bool) {
	slot = uint32(id) - s.first
	return slot, uint32(id >> 32), slot < s.count
}

func (s *Slots) word(slot uint32) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&s.memory[slot*SlotSize+SlotWord]))
}

func word(generation uint32, state uint64) uint64 { return uint64(generation)<<32 | state }

// Offer marks the slot offered, before its record is published.
func (s *Slots) Offer(slot, generation uint32) {
	s.word(slot).Store(word(generation, SlotOffered))
}

// TakeBack revokes an offer; false: the worker has claimed it already.
func (s *Slots) TakeBack(slot, generation uint32) bool {
	return s.word(slot).CompareAndSwap(word(generation, SlotOffered), word(generation, SlotFree))
}

// Abandon marks a claimed call as unwanted. The slot stays taken until its CALL_DONE.
func (s *Slots) Abandon(slot, generation uint32) {
	s.word(slot).Store(word(generation, SlotAbandoned))
}

// Free gives the slot back.
func (s *Slots) Free(slot, generation uint32) {
	s.word(slot).Store(word(generation, SlotFree))
}

// Claimed reports whether the worker has begun the call that it was offered, and when by its
// own word (Monotonic): the caller clamps it.
func (s *Slots) Claimed(slot, generation uint32) (at int64, ok bool, err error) {
	switch s.word(slot).Load() {
	case word(generation, SlotOffered):
		return 0, false, nil
	case word(generation, SlotClaimed):
		stamp := (*atomic.Int64)(unsafe.Pointer(&s.memory[slot*SlotSize+SlotClaimedAt]))
		return stamp.Load(), true, nil
	}
	return 0, false, ErrCorrupt
}

// Begun says whether the slot is still that of a call that the worker has begun. Nobody but
// the core changes that.
func (s *Slots) Begun(slot, generation uint32) bool {
	w := s.word(slot).Load()
	return w == word(generation, SlotClaimed) || w == word(generation, SlotAbandoned)
}
