package dispatch

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// socketAnswer is a fakeAnswer that grants handshakes.
type socketAnswer struct{ fakeAnswer }

func (a *socketAnswer) Accept([]byte, []call.Field) call.WebSocket { return a }
func (a *socketAnswer) Send(bool, []byte, bool)                    {}
func (a *socketAnswer) CloseWith(int, []byte)                      {}
func (a *socketAnswer) Restart()                                   {}

// A worker may write anything anywhere into its link: the core neither panics nor hangs nor
// loses count, and every call comes to an end, at the latest with its worker.
func TestAMadWorkerHurtsOnlyItself(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 7))
		b := newBench(t, func(s *Settings) { s.RetrySafe = seed%2 == 0 })
		w := b.worker(1)
		memory := w.Link.Memory()
		var ids []uint64
		var calls []call.Call
		within(t, func() {
			for range 60 {
				for range rng.IntN(4) {
					r := request()
					if rng.IntN(3) == 0 {
						r.BodyLast, r.Body = false, make([]byte, rng.IntN(3000))
					}
					r.WebSocket = rng.IntN(4) == 0
					if c := b.shard.Start(r, &socketAnswer{}); c != nil {
						calls = append(calls, c)
					}
				}
				b.shard.Publish()
				for {
					r, ok, err := w.end.Inbox.Next()
					if err != nil || !ok {
						break
					}
					slot, generation, _ := w.end.Slots.Of(r.Call)
					if r.Type == link.CallHTTP || r.Type == link.CallWebsocket {
						if rng.IntN(8) > 0 && w.end.Slots.Claim(slot, generation, int64(rng.Uint64())) {
							ids = append(ids, r.Call)
						}
					}
				}
				w.end.Inbox.Release()
				for range rng.IntN(6) {
					madRecord(rng, w, ids)
				}
				if rng.IntN(40) == 0 {
					for range 1 + rng.IntN(4) {
						scribble(rng, memory)
					}
				}
				if len(calls) > 0 && rng.IntN(8) == 0 {
					// The latest are not over yet, in the eyes of a protocol that heard nothing.
					if c := calls[len(calls)-1].(*Call); c.answer != nil {
						c.Leave()
					}
					calls = calls[:len(calls)-1]
				}
				b.now += rng.Int64N(int64(20 * tick))
				b.shard.Wake(b.now)
				b.turn()
				b.shard.Arm(false)
			}
			w.SetState(WorkerGone)
			b.shard.Detach(w.Worker)
			b.turn()
		})
		b.want(observe.CallsHeld, 0)
		b.want(observe.LoopPanics, 0)
		if n := b.dispatch.InFlight(); n != int64(b.shard.queue.live+b.shard.urgent.live+b.shard.again.live) {
			t.Errorf("seed %d: %d calls in flight with %d waiting", seed, n, b.shard.queue.live)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// madRecord writes a record that may make sense.
func madRecord(rng *rand.Rand, w *fakeWorker, ids []uint64) {
	id := rng.Uint64() >> rng.IntN(64)
	if len(ids) > 0 && rng.IntN(10) > 0 {
		id = ids[rng.IntN(len(ids))]
	}
	var payload []byte
	kind, flags := uint16(rng.IntN(24)), uint16(0)
	if rng.IntN(2) == 0 {
		flags = uint16(rng.IntN(32))
	}
	switch rng.IntN(4) {
	case 0:
		kind, payload = link.Response, responsePayload(100+rng.IntN(900), rng.IntN(5), "body")
	case 1:
		kind, payload = link.ResponseBody, bodyPayload("more")
	case 2:
		payload = make([]byte, rng.IntN(64))
		for i := range payload {
			payload[i] = byte(rng.IntN(4))
		}
	default:
		payload = binary.LittleEndian.AppendUint64(nil, uint64(rng.IntN(4000)))
	}
	b, err := w.end.Outbox.Reserve(len(payload), kind, flags, id, 0)
	if err != nil || b == nil {
		return
	}
	copy(b, payload)
	w.end.Outbox.Publish()
}

// scribble overwrites eight bytes where they may hurt: cursors and flags of the rings, slots, the
// first records.
func scribble(rng *rand.Rand, memory []byte) {
	g := link.DefaultGeometry(1)
	rings := link.HeaderSize + g.Slots*link.SlotSize
	at := [...]int{
		link.HeaderSize + 8*rng.IntN(64),
		rings + 64*rng.IntN(4),
		rings + link.RingHeaderSize + 8*rng.IntN(2000),
		rings + link.RingHeaderSize + g.InboxSize + 64*rng.IntN(4),
		rings + 2*link.RingHeaderSize + g.InboxSize + 8*rng.IntN(2000),
	}[rng.IntN(5)]
	value := rng.Uint64() >> (8 * rng.IntN(8))
	binary.LittleEndian.PutUint64(memory[at:], value&^7)
}
