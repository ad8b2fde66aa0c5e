package link_test

import (
	"testing"

	"spvn/gosrc/link"
)

// BenchmarkRing is a record of a small call on its way: reserved, filled and published, then taken and its room given back,
// by Go's two ends in one goroutine, so without what two processors' caches cost.
func BenchmarkRing(b *testing.B) {
	l, err := link.New(link.Geometry{Loops: 1, Slots: 16, InboxSize: 1 << 18, OutboxSize: 1 << 18})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Release()
	core, worker := l.Port(0).Inbox, l.Worker(0).Inbox
	payload := make([]byte, 240)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		room, err := core.Reserve(len(payload), link.CallHTTP, link.FlagLast, 1, 0)
		if err != nil || room == nil {
			b.Fatal(len(room), err)
		}
		copy(room, payload)
		core.Publish()
		if r, ok, err := worker.Next(); !ok || err != nil || len(r.Payload) != len(payload) {
			b.Fatal(ok, err)
		}
		worker.Release()
	}
}
