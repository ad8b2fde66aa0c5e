package link

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WorkerEnd is the worker's end of a port. Real workers have it in C; this one lets tests
// of the core, of this package and of others, play a worker, a good one or a mad one.
type WorkerEnd struct {
	Inbox  *Consumer
	Outbox *Producer
	Slots  *Slots
}

// Claim is what a worker does before it begins a call. Tests only.
func (s *Slots) Claim(slot, generation uint32, at int64) bool {
	binary.LittleEndian.PutUint64(s.memory[slot*SlotSize+SlotClaimedAt:], uint64(at))
	return s.word(slot).CompareAndSwap(word(generation, SlotOffered), word(generation, SlotClaimed))
}

// Worker is the worker's end of port i.
func (l *Link) Worker(i int) WorkerEnd {
	g := l.geometry
	_, rings, _ := g.layout()
	each := 2*RingHeaderSize + uint64(g.InboxSize) + uint64(g.OutboxSize)
	inbox := rings + uint64(i)*each
	return WorkerEnd{
		Inbox:  newConsumer(ringAt(l.memory, inbox, uint64(g.InboxSize))),
		Outbox: newProducer(ringAt(l.memory, inbox+RingHeaderSize+uint64(g.InboxSize), uint64(g.OutboxSize))),
		Slots:  l.Port(i).Slots,
	}
}

// Attach maps a link that another process made. Tests only: workers attach in C.
func Attach(memfd, bell int, g Geometry) (*Link, error) {
	_, _, total := g.layout()
	memory, err := unix.Mmap(memfd, 0, int(total), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	l := &Link{geometry: g, memory: memory, Memfd: memfd, Bell: bell}
	l.users.Store(1)
	return l, nil
}

// Memory is the shared memory itself. Tests only.
func (l *Link) Memory() []byte { return l.memory }

// Tight is what the worker was last told with SetTight. Tests only.
func (l *Link) Tight() bool {
	return (*atomic.Uint32)(unsafe.Pointer(&l.memory[HeaderTight])).Load() != 0
}
