// Package link is the shared memory between the core and one worker: rings of records,
// call slots, doorbells. schema.json describes the layout for both languages.
//
// Rules:
//   - One producer and one consumer for each ring, and each poll loop has its own pair, so
//     nothing here locks. The loop that owns a Port is the only one to touch it.
//   - The worker may be mad. Cursors live in private memory, lengths are copied out before
//     they are checked, and what does not fit is ErrCorrupt, never a panic.
//   - A flag is stored before the cursor is looked at again, on both sides and sequentially
//     consistent, so that no wake-up is lost.
package link

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Geometry is a link's dimensions.
type Geometry struct {
	Loops      int // poll loops
	Slots      int // calls that a worker may hold, for each loop
	InboxSize  int // bytes, a power of two
	OutboxSize int // bytes, a power of two
}

// Sizes of a server's rings: a quarter takes the largest head that the usual limits admit,
// and the whole stays in a core's cache.
const (
	InboxSize  = 512 << 10
	OutboxSize = 512 << 10
)

// DefaultGeometry is what a server uses: 32,768 calls in flight for each loop and worker.
func DefaultGeometry(loops int) Geometry {
	return Geometry{Loops: loops, Slots: 32768, InboxSize: InboxSize, OutboxSize: OutboxSize}
}

const page = 4096

func (g Geometry) layout() (slots, rings, total uint64) {
	slots = HeaderSize
	rings = slots + (uint64(g.Loops*g.Slots*SlotSize)+page-1)&^(page-1)
	total = rings + uint64(g.Loops)*(2*RingHeaderSize+uint64(g.InboxSize)+uint64(g.OutboxSize))
	return slots, rings, total
}

// Link is the core's end of the shared memory. Retain and Release count its users; the
// last Release unmaps it.
type Link struct {
	geometry Geometry
	memory   []byte
	users    atomic.Int32
	shared   bool // the worker uses this mapping too

	// Memfd is the memory and Bell the worker's doorbell; both belong to the link and are
	// closed with it. Whoever hands them to a worker dups them.
	Memfd, Bell int
}

// New makes a link with one user.
func New(g Geometry) (l *Link, err error) {
	_, rings, total := g.layout()
	memfd, err := unix.MemfdCreate("spvn-link", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("link: memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(memfd)
		}
	}()
	// Allocated before it is sealed: neither a full tmpfs nor a worker's ftruncate can then
	// turn an access of the core into a SIGBUS.
	if err = unix.Fallocate(memfd, 0, 0, int64(total)); err != nil {
		return nil, fmt.Errorf("link: cannot allocate %d bytes of shared memory: %w", total, err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err = unix.FcntlInt(uintptr(memfd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("link: cannot seal the shared memory: %w", err)
	}
	memory, err := unix.Mmap(memfd, 0, int(total), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("link: mmap: %w", err)
	}
	// A child that the app forks must not be able to scribble over the link.
	if err = unix.Madvise(memory, unix.MADV_DONTFORK); err != nil {
		unix.Munmap(memory)
		return nil, fmt.Errorf("link: madvise: %w", err)
	}
	bell, err := NewBell()
	if err != nil {
		unix.Munmap(memory)
		return nil, fmt.Errorf("link: eventfd: %w", err)
	}
	binary.LittleEndian.PutUint64(memory[HeaderMagic:], Magic)
	binary.LittleEndian.PutUint32(memory[HeaderVersion:], Version)
	binary.LittleEndian.PutUint32(memory[HeaderLoops:], uint32(g.Loops))
	binary.LittleEndian.PutUint32(memory[HeaderSlots:], uint32(g.Slots))
	binary.LittleEndian.PutUint32(memory[HeaderInboxSize:], uint32(g.InboxSize))
	binary.LittleEndian.PutUint32(memory[HeaderOutboxSize:], uint32(g.OutboxSize))
	binary.LittleEndian.PutUint64(memory[HeaderSlotsOffset:], HeaderSize)
	binary.LittleEndian.PutUint64(memory[HeaderRingsOffset:], rings)
	binary.LittleEndian.PutUint64(memory[HeaderTotalSize:], total)
	l = &Link{geometry: g, memory: memory, Memfd: memfd, Bell: bell}
	l.users.Store(1)
	return l, nil
}

// Retain counts one more user.
func (l *Link) Retain() { l.users.Add(1) }

// Share returns the address of the mapping for a worker in this process: one mapping for both sides takes half the
// resident memory and page faults. It stays until both have left, whoever is the first.
func (l *Link) Share() uintptr {
	l.shared = true
	l.sides().Store(2)
	return uintptr(unsafe.Pointer(unsafe.SliceData(l.memory)))
}

func (l *Link) sides() *atomic.Int32 { return (*atomic.Int32)(unsafe.Pointer(&l.memory[HeaderSides])) }

// Release gives up one use; the last one unmaps the memory and closes the descriptors.
func (l *Link) Release() {
	if l.users.Add(-1) != 0 {
		return
	}
	if !l.shared || l.sides().Add(-1) == 0 {
		unix.Munmap(l.memory)
	}
	l.memory = nil
	unix.Close(l.Memfd)
	unix.Close(l.Bell)
}

// Port is one poll loop's end of the link.
type Port struct {
	Inbox  *Producer
	Outbox *Consumer
	Slots  *Slots
}

// Port is the end of the link that poll loop i uses.
func (l *Link) Port(i int) Port {
	g := l.geometry
	slots, rings, _ := l.geometry.layout()
	each := 2*RingHeaderSize + uint64(g.InboxSize) + uint64(g.OutboxSize)
	inbox := rings + uint64(i)*each
	outbox := inbox + RingHeaderSize + uint64(g.InboxSize)
	from := slots + uint64(i*g.Slots*SlotSize)
	return Port{
		Inbox:  newProducer(ringAt(l.memory, inbox, uint64(g.InboxSize))),
		Outbox: newConsumer(ringAt(l.memory, outbox, uint64(g.OutboxSize))),
		Slots: &Slots{
			memory: l.memory[from : from+uint64(g.Slots*SlotSize)],
			first:  uint32(i * g.Slots),
			count:  uint32(g.Slots),
		},
	}
}

// Draining reports whether the worker is in the middle of a drain: it rings when that
// ends, and until then whoever waits for an answer looks again from time to time.
func (l *Link) Draining() bool {
	return (*atomic.Uint32)(unsafe.Pointer(&l.memory[HeaderDraining])).Load() != 0
}

// SetTight tells the worker whether the core is short of memory for output: then a complete
// answer may be on its way with no more than a stream's window.
func (l *Link) SetTight(tight bool) {
	v := uint32(0)
	if tight {
		v = 1
	}
	(*atomic.Uint32)(unsafe.Pointer(&l.memory[HeaderTight])).Store(v)
}

// Turns is how many drains the worker has begun.
func (l *Link) Turns() uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&l.memory[HeaderTurns])).Load()
}
