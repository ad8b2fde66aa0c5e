package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"spvn/gosrc/link"
)

var small = link.Geometry{Loops: 2, Slots: 16, InboxSize: 4096, OutboxSize: 4096}

func newLink(t *testing.T) *link.Link {
	t.Helper()
	l, err := link.New(small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l
}

func TestRecordsArriveInOrderAcrossWraps(t *testing.T) {
	l := newLink(t)
	core, worker := l.Port(1).Inbox, l.Worker(1).Inbox
	rnd := rand.New(rand.NewPCG(1, 2))
	var sent [][]byte
	for round := range 5000 {
		for range rnd.IntN(8) {
			payload := bytes.Repeat([]byte{byte(round)}, rnd.IntN(link.MaxRecord(small.InboxSize)-link.RecordHeaderSize))
			b, err := core.Reserve(len(payload), link.Body, 3, uint64(round), 0)
			if err != nil {
				t.Fatal(err)
			}
			if b == nil {
				break
			}
			copy(b, payload)
			sent = append(sent, payload)
		}
		if r, ok, err := worker.Next(); len(sent) > 0 && ok && err == nil {
			// What is not published is not seen: the first unpublished record must not be here.
			checkRecord(t, r, sent[0])
			sent = sent[1:]
		}
		core.Publish()
		for range rnd.IntN(8) {
			r, ok, err := worker.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			checkRecord(t, r, sent[0])
			sent = sent[1:]
		}
		worker.Release()
	}
}

func checkRecord(t *testing.T, r link.Record, want []byte) {
	t.Helper()
	if r.Type != link.Body || r.Flags != 3 {
		t.Fatalf("got type %d flags %d; want %d, 3", r.Type, r.Flags, link.Body)
	}
	if len(r.Payload) < len(want) || !bytes.Equal(r.Payload[:len(want)], want) {
		t.Fatalf("got a payload of %d bytes; want %d equal ones", len(r.Payload), len(want))
	}
	if extra := len(r.Payload) - len(want); extra > 7 {
		t.Fatalf("got %d bytes of padding; want at most 7", extra)
	}
}

func TestFullRingKeepsTheReserve(t *testing.T) {
	l := newLink(t)
	p := l.Port(0).Inbox
	keep := uint64(small.InboxSize / 8)
	n := 0
	for {
		b, err := p.Reserve(100, link.Body, 0, 1, keep)
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			break
		}
		n++
	}
	if b, _ := p.Reserve(8, link.Disconnect, 0, 1, 0); b == nil {
		t.Error("got no room for a control record in a ring full of data; want some")
	}
	p.Publish()
	if p.WantRoom() {
		t.Error("got room in a full ring; want none")
	}
	w := l.Worker(0).Inbox
	rung := 0
	for {
		if _, ok, err := w.Next(); err != nil {
			t.Fatal(err)
		} else if !ok {
			break
		}
		if w.Release() {
			rung++
		}
	}
	if rung != 1 {
		t.Errorf("the producer was rung %d times while the ring emptied; want once", rung)
	}
	if b, _ := p.Reserve(100, link.Body, 0, 1, keep); b == nil {
		t.Error("got no room in an empty ring")
	}
}

func TestArmSeesWhatCameMeanwhile(t *testing.T) {
	l := newLink(t)
	p, w := l.Port(0).Inbox, l.Worker(0).Inbox
	if !w.Arm(false) {
		t.Fatal("Arm says that there is something in an empty ring")
	}
	if _, err := p.Reserve(8, link.Body, 0, 1, 0); err != nil {
		t.Fatal(err)
	}
	if !p.Publish() {
		t.Error("Publish does not ring a sleeping consumer")
	}
	if p.Publish() {
		t.Error("Publish rings twice for one sleep")
	}
	if w.Arm(false) {
		t.Error("Arm lets a consumer sleep on a record")
	}
}

// A worker may write anything anywhere: the core's end says ErrCorrupt or gives records of
// sound lengths, and never panics.
func TestScribbledRing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	corrupt := 0
	for range 3000 {
		l, err := link.New(small)
		if err != nil {
			t.Fatal(err)
		}
		port, w := l.Port(0), l.Worker(0)
		for range rnd.IntN(5) {
			w.Outbox.Reserve(rnd.IntN(500), link.ResponseBody, 0, 1, 0)
		}
		w.Outbox.Publish()
		for range 1 + rnd.IntN(4) {
			at := link.HeaderSize + rnd.IntN(len(l.Memory())-link.HeaderSize-8)
			if rnd.IntN(2) == 0 { // the control words of the rings are the interesting ones
				at = link.HeaderSize*2 + rnd.IntN(2)*(link.RingHeaderSize+small.InboxSize) + rnd.IntN(4)*64
			}
			binary.LittleEndian.PutUint64(l.Memory()[at:], rnd.Uint64()>>rnd.IntN(64))
		}
		for range 100 {
			_, ok, err := port.Outbox.Next()
			if errors.Is(err, link.ErrCorrupt) {
				corrupt++
				break
			}
			if !ok {
				break
			}
			port.Outbox.Release()
		}
		if _, err := port.Inbox.Reserve(1000, link.Body, 0, 1, 0); err == nil {
			port.Inbox.Reserve(1000, link.Body, 0, 1, 0)
			port.Inbox.Publish()
			port.Inbox.WantRoom()
		}
		l.Release()
	}
	if corrupt == 0 {
		t.Error("no scribble was noticed")
	}
}

func TestSealed(t *testing.T) {
	l := newLink(t)
	if err := unix.Ftruncate(l.Memfd, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating a link: got %v; want EPERM", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(l.Memfd, &st); err != nil || st.Blocks*512 < st.Size {
		t.Errorf("got %d of %d bytes allocated (%v); want all", st.Blocks*512, st.Size, err)
	}
}

func TestSlots(t *testing.T) {
	l := newLink(t)
	s := l.Port(1).Slots
	id := s.ID(3, 7)
	if slot, generation, ok := s.Of(id); slot != 3 || generation != 7 || !ok {
		t.Errorf("Of(ID(3, 7)): got %d, %d, %v", slot, generation, ok)
	}
	if _, _, ok := l.Port(0).Slots.Of(id); ok {
		t.Error("a slot of loop 1 is taken for one of loop 0")
	}
	s.Offer(3, 7)
	if _, ok, err := s.Claimed(3, 7); ok || err != nil {
		t.Error("an offered call counts as claimed")
	}
	if l.Worker(1).Slots.Claim(3, 6, 1) {
		t.Error("a worker claims an older generation")
	}
	if !l.Worker(1).Slots.Claim(3, 7, 99) {
		t.Error("a worker cannot claim an offer")
	}
	if at, ok, err := s.Claimed(3, 7); !ok || at != 99 || err != nil {
		t.Errorf("Claimed: got %d, %v; want 99, true", at, ok)
	}
	if s.TakeBack(3, 7) {
		t.Error("a claimed call is taken back")
	}
	s.Offer(4, 1)
	if !s.TakeBack(4, 1) || l.Worker(1).Slots.Claim(4, 1, 1) {
		t.Error("a call that was taken back can be claimed")
	}
}

func TestMain(m *testing.M) {
	if os.Getenv("SPVN_STRESS_CHILD") != "" {
		stressChild()
		return
	}
	os.Exit(m.Run())
}

// What Fits says is what Reserve takes, and no more.
func TestFitsIsWhatReserveTakes(t *testing.T) {
	const keep = 512
	most := link.MaxRecord(small.InboxSize) - link.RecordHeaderSize
	rnd := rand.New(rand.NewPCG(3, 4))
	l := newLink(t)
	core, worker := l.Port(0).Inbox, l.Worker(0).Inbox
	for range 20000 {
		n, err := core.Fits(keep)
		if err != nil {
			t.Fatal(err)
		}
		if larger := max(n, 0) + 8; larger <= most {
			if b, _ := core.Reserve(larger, link.Body, 0, 1, keep); b != nil {
				t.Fatalf("Fits says %d, and Reserve took %d", n, larger)
			}
		}
		if n >= 0 {
			size := n
			if rnd.IntN(2) == 0 {
				size = rnd.IntN(n + 1)
			}
			if b, err := core.Reserve(size, link.Body, 0, 1, keep); b == nil || err != nil {
				t.Fatalf("Fits says %d, but there was no room for %d (%v)", n, size, err)
			}
		}
		core.Publish()
		for range rnd.IntN(4) {
			if _, ok, err := worker.Next(); !ok || err != nil {
				break
			}
		}
		worker.Release()
	}
}

// A record that was reserved may become shorter, or none, wherever in the ring it lies.
func TestShortenAndCancel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	l := newLink(t)
	core, worker := l.Port(0).Inbox, l.Worker(0).Inbox
	var sent [][]byte
	for round := range 20000 {
		size := rnd.IntN(link.MaxRecord(small.InboxSize) - link.RecordHeaderSize)
		b, err := core.Reserve(size, link.Body, 7, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		if b != nil {
			kept := b[:rnd.IntN(size+1)]
			for i := range kept {
				kept[i] = byte(round + i)
			}
			switch rnd.IntN(4) {
			case 0:
				core.Cancel()
			case 1:
				core.Shorten(len(kept), 3)
				sent = append(sent, bytes.Clone(kept))
			default:
				core.Shorten(size, 3)
				sent = append(sent, bytes.Clone(b))
			}
		}
		if rnd.IntN(2) == 0 {
			core.Publish()
		}
		for range rnd.IntN(4) {
			r, ok, err := worker.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			checkRecord(t, r, sent[0])
			sent = sent[1:]
		}
		worker.Release()
	}
}
