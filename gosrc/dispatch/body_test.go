package dispatch

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"spvn/gosrc/link"
	"spvn/gosrc/memory"
)

// upload is a request body on its way from a client that sends all it is let to.
type upload struct {
	answer         *fakeAnswer
	id             uint64
	total          int
	sent, received int
	read           int // bytes read from the client that the call could not forward at once, at most
	resumed        int // Resumes seen
	places         int // reads into the inbox
	paused, done   bool
}

// value is byte i of an upload.
func (u *upload) value(i int) byte { return byte(i*7 + u.total) }

// send reads from the client as http1 does: until there is no room.
func (u *upload) send(rnd *rand.Rand, most int) {
	for _, line := range u.answer.log[u.resumed:] {
		u.paused = u.paused && line != "resume"
	}
	u.resumed = len(u.answer.log)
	for !u.paused && u.sent < u.total {
		c := u.answer.call.(*Call)
		place := c.Place(u.total - u.sent)
		b := place
		switch {
		case place == nil:
			b = make([]byte, min(1+rnd.IntN(most), u.total-u.sent))
		case rnd.IntN(4) > 0: // a read may bring less than there is room for, or nothing
			b = place[:rnd.IntN(min(len(place), most)+1)]
		}
		for i := range b {
			b[i] = u.value(u.sent + i)
		}
		u.sent += len(b)
		if place != nil {
			u.places++
			c.Placed(len(b), u.sent == u.total)
		} else {
			c.Body(b, u.sent == u.total)
			clear(b) // it belongs to the caller
		}
		u.read = max(u.read, len(u.answer.call.(*Call).body))
		u.paused = u.sent < u.total && u.answer.call.Room() <= 0
	}
}

// take is the worker's drain: every byte has to be there, once and in order. It gives back what it received.
func take(t *testing.T, w *fakeWorker, uploads map[uint64]*upload, most int) {
	credit := map[uint64]int{}
	for range most {
		r, ok, err := w.end.Inbox.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		slot, generation, _ := w.end.Slots.Of(r.Call)
		switch r.Type {
		case link.CallHTTP:
			if !w.end.Slots.Claim(slot, generation, 1) {
				t.Fatal("an offer was taken back")
			}
		case link.Body:
			u := uploads[r.Call]
			n := int(binary.LittleEndian.Uint32(r.Payload))
			for i, v := range r.Payload[link.BodyBytes : link.BodyBytes+n] {
				if v != u.value(u.received+i) {
					t.Fatalf("byte %d of an upload of %d is wrong", u.received+i, u.total)
				}
			}
			u.received += n
			u.done = r.Flags&link.FlagLast != 0
			credit[r.Call] += n
		}
	}
	w.end.Inbox.Release()
	for id, n := range credit {
		w.write(link.BodyCredit, 0, id, binary.LittleEndian.AppendUint64(nil, uint64(n)))
	}
}

func TestUploadsArriveWhole(t *testing.T) {
	for _, most := range []int{1500, 64 << 10, 200 << 10} {
		budget := memory.NewBudget(32 << 20)
		b := newBench(t, func(s *Settings) { s.Bodies = budget })
		w := b.worker(1)
		rnd := rand.New(rand.NewPCG(1, uint64(most)))
		uploads := map[uint64]*upload{}
		for i := range 24 {
			r := request()
			r.Method, r.BodyLast = []byte("POST"), false
			u := &upload{answer: b.start(r), total: 1 + rnd.IntN(1<<18)}
			if i == 0 {
				u.total = 1 << 20
			}
			c := u.answer.call.(*Call)
			u.id = c.port.slots.ID(c.slot, c.generation)
			uploads[u.id] = u
		}
		left := len(uploads)
		for round := 0; left > 0; round++ {
			if round == 100000 {
				t.Fatalf("parts of %d: %d uploads are stuck", most, left)
			}
			for _, u := range uploads {
				if rnd.IntN(2) == 0 {
					u.send(rnd, most)
				}
			}
			b.turn()
			take(t, w, uploads, rnd.IntN(20))
			b.turn()
			left = 0
			for _, u := range uploads {
				if !u.done || u.received != u.total {
					left++
				}
			}
		}
		places := 0
		for _, u := range uploads {
			places += u.places
			// Of a call that runs one read at most is kept here; before the claim it is a window.
			if u.read > link.BodyWindow+most {
				t.Errorf("parts of %d: %d bytes were kept for one upload", most, u.read)
			}
		}
		if places == 0 {
			t.Error("nothing was read into the inbox")
		}
		if budget.Used() != 0 {
			t.Errorf("parts of %d: %d bytes are still charged", most, budget.Used())
		}
		if len(b.corrupt) != 0 {
			t.Errorf("the worker was found mad: %v", b.corrupt)
		}
	}
}

// What does not fit into the inbox stays with the kernel, but for the one part that was read already; its buffer is
// the shard's and is used again.
func TestAFullInboxPausesReading(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	r := request()
	r.Method, r.BodyLast = []byte("POST"), false
	a := b.start(r)
	b.turn()
	w.read(t, 1, b.now)
	b.turn()
	if room := a.call.Room(); room != link.BodyWindow {
		t.Fatalf("got %d bytes of room for an upload that was begun; want %d", room, link.BodyWindow)
	}
	fill(b, w.Worker)
	a.call.Body(make([]byte, 1000), false)
	if room := a.call.Room(); room > 0 {
		t.Errorf("%d bytes more would be kept while the inbox is full", room)
	}
	a.said(t)
	for range 100 {
		w.read(t, 100, b.now)
		b.turn()
	}
	a.said(t, "resume")
	if n := len(b.shard.spare); n != 1 {
		t.Errorf("the shard keeps %d buffers; want the one that waited", n)
	}
	a.call.Leave()
	b.turn()
}

// A body that came before its call was begun leaves with the claim, and nothing of it is left behind.
func TestABodyWaitsForItsClaim(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	r := request()
	r.Method, r.BodyLast = []byte("POST"), false
	a := b.start(r)
	for range 40 {
		a.call.Body(make([]byte, 1000), false)
	}
	a.call.Body(nil, true)
	b.turn()
	begun := w.read(t, 1, b.now)
	b.turn()
	w.read(t, 10, b.now)
	if begun[0].body != 40000 || w.log[len(w.log)-1][len(w.log[len(w.log)-1])-1] != '1' {
		t.Errorf("got %d bytes as %v; want 40000 and the end", begun[0].body, w.log)
	}
	if c := a.call.(*Call); c.kept != nil || c.body != nil {
		t.Error("the buffer of a body that was forwarded is kept by its call")
	}
}

// However many small buffers are kept, a large one is found again.
func TestSpareBuffersOfAllSizes(t *testing.T) {
	s := newBench(t, nil).shard
	var taken [][]byte
	for range pendingsKept + 10 {
		taken = append(taken, s.spareBuffer(100))
	}
	for _, b := range taken {
		s.keepBuffer(b)
	}
	large := s.spareBuffer(60 << 10)
	s.keepBuffer(large)
	s.keepBuffer(make([]byte, 0, keepPending+1))
	if len(s.spare) != pendingsKept {
		t.Errorf("%d buffers are kept; want %d", len(s.spare), pendingsKept)
	}
	if again := s.spareBuffer(50 << 10); cap(again) != cap(large) || len(again) != 0 {
		t.Errorf("got a buffer of %d bytes; want the one of %d that was given back", cap(again), cap(large))
	}
	for _, b := range s.spare {
		if cap(b) > keepPending {
			t.Errorf("a buffer of %d bytes is kept", cap(b))
		}
	}
}
