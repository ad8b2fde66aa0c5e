package dispatch

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// bench is a dispatch with one shard and fake workers, driven by hand.
type bench struct {
	t        *testing.T
	registry *observe.Registry
	dispatch *Dispatch
	shard    *Shard
	now      int64
	corrupt  []error
}

func newBench(t *testing.T, change func(*Settings)) *bench {
	t.Helper()
	b := &bench{t: t, registry: observe.NewRegistry(), now: 1e9}
	settings := Settings{
		Loops: 1, QueueCalls: 1000, QueueBytes: 1 << 20, QueueTimeout: 10 * time.Second,
		WorkerTimeout: time.Minute, RetryAfter: 1,
		Corrupt: func(_ *Worker, _ int, err error) { b.corrupt = append(b.corrupt, err) },
	}
	if change != nil {
		change(&settings)
	}
	b.dispatch = New(settings, []*observe.Shard{b.registry.Shard()})
	b.shard = b.dispatch.Shard(0)
	b.shard.Wake(b.now)
	return b
}

func (b *bench) turn() {
	b.shard.Publish()
	for b.shard.Turn() {
	}
	b.shard.Publish()
	b.shard.counters.Publish()
	if s := b.registry.Snapshot(); s.Imbalance() != 0 || s.Get(observe.CallsMisplaced) != 0 {
		b.t.Fatalf("the counters do not add up: imbalance %d, %d misplaced moves", s.Imbalance(), s.Get(observe.CallsMisplaced))
	}
}

func (b *bench) want(c observe.Counter, n uint64) {
	b.t.Helper()
	if got := b.registry.Snapshot().Get(c); got != n {
		b.t.Errorf("%s: got %d; want %d", c, got, n)
	}
}

// fakeWorker plays a worker on the other end of a link.
type fakeWorker struct {
	*Worker
	end  link.WorkerEnd
	seen map[uint64]*started // by call ID
	log  []string
}

type started struct {
	id    uint64
	flags uint16
	body  int
}

func (b *bench) worker(id int) *fakeWorker {
	b.t.Helper()
	l, err := link.New(link.DefaultGeometry(1))
	if err != nil {
		b.t.Fatal(err)
	}
	w := NewWorker(id, l)
	w.SetState(WorkerReady)
	l.Retain()
	b.shard.Attach(w)
	b.t.Cleanup(l.Release)
	return &fakeWorker{Worker: w, end: l.Worker(0), seen: map[uint64]*started{}}
}

// read takes up to n records from the inbox, claiming calls, and returns what was begun.
func (w *fakeWorker) read(t *testing.T, n int, at int64) (begun []*started) {
	t.Helper()
	for range n {
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
			if w.end.Slots.Claim(slot, generation, at) {
				s := &started{id: r.Call, flags: r.Flags, body: int(binary.LittleEndian.Uint32(r.Payload[link.CallBodyLength:]))}
				w.seen[r.Call] = s
				begun = append(begun, s)
			}
		case link.Body:
			w.seen[r.Call].body += int(binary.LittleEndian.Uint32(r.Payload))
			w.log = append(w.log, fmt.Sprintf("body %d %d", binary.LittleEndian.Uint32(r.Payload), r.Flags&link.FlagLast))
		case link.Disconnect:
			w.log = append(w.log, "disconnect")
		case link.SendWindow:
			w.log = append(w.log, fmt.Sprintf("window %d", binary.LittleEndian.Uint64(r.Payload)))
		case link.Drain:
			w.log = append(w.log, "drain")
		}
	}
	w.end.Inbox.Release()
	return begun
}

func (w *fakeWorker) write(kind, flags uint16, id uint64, payload []byte) {
	b, err := w.end.Outbox.Reserve(len(payload), kind, flags, id, 0)
	if err != nil || b == nil {
		panic("no room in the outbox")
	}
	copy(b, payload)
	w.end.Outbox.Publish()
}

func responsePayload(status, fields int, body string) []byte {
	var list []byte
	for i := range fields {
		name, value := fmt.Sprintf("x-%d", i), "v"
		list = binary.LittleEndian.AppendUint32(list, uint32(len(name)))
		list = binary.LittleEndian.AppendUint32(list, uint32(len(value)))
		list = append(append(list, name...), value...)
	}
	p := make([]byte, link.ResponseFixedSize)
	binary.LittleEndian.PutUint32(p[link.ResponseStatus:], uint32(status))
	binary.LittleEndian.PutUint32(p[link.ResponseFieldCount:], uint32(fields))
	binary.LittleEndian.PutUint32(p[link.ResponseFieldBytes:], uint32(len(list)))
	binary.LittleEndian.PutUint32(p[link.ResponseBodyLength:], uint32(len(body)))
	return append(append(p, list...), body...)
}

func bodyPayload(body string) []byte {
	p := make([]byte, link.BodyFixedSize)
	binary.LittleEndian.PutUint32(p, uint32(len(body)))
	return append(p, body...)
}

// fakeAnswer records what it is told.
type fakeAnswer struct {
	log  []string
	call call.Call
}

func (a *fakeAnswer) note(format string, args ...any) {
	a.log = append(a.log, fmt.Sprintf(format, args...))
}
func (a *fakeAnswer) Respond(status int, fields []call.Field, body []byte, last, _ bool) {
	a.note("respond %d %d fields %q %v", status, len(fields), body, last)
}
func (a *fakeAnswer) RespondBody(body []byte, last bool) { a.note("body %q %v", body, last) }
func (a *fakeAnswer) RespondTrailers(fields []call.Field, last bool) {
	a.note("trailers %d %v", len(fields), last)
}
func (a *fakeAnswer) Informational(status int, fields []call.Field) {
	a.note("informational %d", status)
}
func (a *fakeAnswer) Continue()                                    { a.note("continue") }
func (a *fakeAnswer) Resume()                                      { a.note("resume") }
func (a *fakeAnswer) Fail(status int, text string, retryAfter int) { a.note("fail %d", status) }
func (a *fakeAnswer) said(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(a.log, "; "); got != strings.Join(want, "; ") {
		t.Errorf("the connection was told %q; want %q", got, strings.Join(want, "; "))
	}
}

func request() *call.Request {
	return &call.Request{
		Method: []byte("GET"), Version: 11, Path: []byte("/x"), Query: []byte("q=1"),
		Fields: []call.Field{{Name: []byte("host"), Value: []byte("h")}},
		Client: call.Addr{Host: "1.2.3.4", Port: 5}, Server: call.Addr{Host: "::1", Port: 80},
		BodyLast: true,
	}
}

func (b *bench) start(r *call.Request) *fakeAnswer {
	a := &fakeAnswer{}
	if c := b.shard.Start(r, a); c != nil {
		a.call = c
	}
	return a
}

func TestAnswered(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	a := b.start(request())
	b.turn()
	begun := w.read(t, 10, b.now)
	if len(begun) != 1 || begun[0].flags&link.FlagLast == 0 || begun[0].flags&link.FlagPathIsRaw == 0 {
		t.Fatalf("got %+v; want one call with its whole body", begun)
	}
	w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 2, "hi"))
	b.turn()
	a.said(t, `respond 200 2 fields "hi" true`)
	b.want(observe.CallsAnswered, 1)
	b.want(observe.CallsClaimed, 1)
	b.want(observe.CallsHeld, 0)
	b.want(observe.LinkRecordsIn, 1)
	b.want(observe.LinkRecordsOut, 1)
	// The slot's next call has another generation; records of the old one are dropped.
	w.write(link.CallDone, 0, begun[0].id, nil)
	b.turn()
	b.want(observe.LinkStaleRecords, 1)
	b.start(request())
	b.turn()
	again := w.read(t, 10, b.now)
	if uint32(again[0].id) != uint32(begun[0].id) || again[0].id == begun[0].id {
		t.Errorf("got call %x after %x; want the same slot and another generation", again[0].id, begun[0].id)
	}
}

func TestStreamedAnswerAndBackgroundWork(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	a := b.start(request())
	b.turn()
	id := w.read(t, 1, b.now)[0].id
	w.write(link.Response, 0, id, responsePayload(200, 0, ""))
	w.write(link.ResponseBody, 0, id, bodyPayload("one"))
	b.turn()
	a.call.Sent(link.SendWindowStream / 4)
	b.turn()
	w.read(t, 10, b.now)
	if got := strings.Join(w.log, ";"); got != fmt.Sprintf("window %d", link.SendWindowStream/4) {
		t.Errorf("the worker was told %q; want its window back", got)
	}
	w.write(link.ResponseBody, link.FlagLast, id, bodyPayload("two"))
	b.turn()
	b.want(observe.CallsAnswered, 1)
	b.want(observe.CallsHeld, 1) // a background task runs
	w.write(link.CallDone, 0, id, nil)
	b.turn()
	b.want(observe.CallsHeld, 0)
	a.said(t, `respond 200 0 fields "" false`, `body "one" false`, `body "two" true`)
}

func TestUploadIsForwardedAfterTheClaimAndAsTheAppReceives(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	r := request()
	r.BodyLast, r.Body = false, []byte("12345")
	a := b.start(r)
	chunk := make([]byte, 40<<10)
	a.call.Body(chunk, false)
	a.call.Body(chunk, false)
	if room := a.call.Room(); room > 0 {
		t.Errorf("got room for %d bytes; want none", room)
	}
	b.turn()
	begun := w.read(t, 10, b.now)
	if begun[0].flags&link.FlagLast != 0 || begun[0].flags&link.FlagWantBody == 0 || begun[0].body != 5 {
		t.Fatalf("got %+v; want an incomplete body of 5 bytes", begun[0])
	}
	if len(w.log) != 0 {
		t.Errorf("got %v before the core saw the claim; want nothing", w.log)
	}
	id := begun[0].id
	w.write(link.WantBody, 0, id, nil)
	b.turn()
	w.read(t, 10, b.now)
	if begun[0].body != 5+80<<10 {
		t.Errorf("got %d bytes of body; want %d", begun[0].body, 5+80<<10)
	}
	credit := binary.LittleEndian.AppendUint64(nil, uint64(begun[0].body))
	w.write(link.BodyCredit, 0, id, credit)
	b.turn()
	a.said(t, "continue", "resume")
	a.call.Body(nil, true)
	b.turn()
	w.read(t, 10, b.now)
	if last := w.log[len(w.log)-1]; last != "body 0 1" {
		t.Errorf("got %q last; want the end of the body", last)
	}
	w.write(link.BodyCredit, 0, id, credit)
	b.turn()
	if len(b.corrupt) != 1 {
		t.Error("credit for bytes never forwarded was accepted")
	}
}

func TestLargeHeadWithALargeBodyAtOnce(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	r := request()
	r.Fields = append(r.Fields, call.Field{Name: []byte("x-large"), Value: make([]byte, 90<<10)})
	r.Body = make([]byte, 60<<10)
	a := b.start(r)
	b.turn()
	begun := w.read(t, 1, b.now)
	if len(begun) != 1 || begun[0].flags&link.FlagLast != 0 || begun[0].body != 0 {
		t.Fatalf("got %+v; want a start without its body", begun)
	}
	w.write(link.WantBody, 0, begun[0].id, nil)
	b.turn()
	w.read(t, 10, b.now)
	if begun[0].body != 60<<10 || !strings.HasSuffix(w.log[len(w.log)-1], " 1") {
		t.Errorf("got %d bytes of body, %v; want all of it and its end", begun[0].body, w.log)
	}
	r.Fields = append(r.Fields, r.Fields[1])
	b.start(r).said(t, "fail 431")
	a.said(t, "continue")
}

func TestLeave(t *testing.T) {
	for _, when := range []string{"queued", "offered", "claimed unseen", "claimed", "answering"} {
		t.Run(when, func(t *testing.T) {
			b := newBench(t, nil)
			var w *fakeWorker
			if when != "queued" {
				w = b.worker(1)
			}
			a := b.start(request())
			b.turn()
			var id uint64
			if strings.HasPrefix(when, "claimed") || when == "answering" {
				id = w.read(t, 1, b.now)[0].id
			}
			if when == "answering" {
				w.write(link.Response, 0, id, responsePayload(200, 0, ""))
			}
			if when != "claimed unseen" {
				b.turn()
			}
			a.call.Leave()
			b.turn()
			b.want(observe.CallsLeft, 1)
			b.want(observe.CallsInFlight, 0)
			if id == 0 {
				b.want(observe.CallsHeld, 0)
				if w != nil && len(w.read(t, 10, b.now)) != 0 {
					t.Error("the worker began a call whose client had left")
				}
				return
			}
			b.want(observe.CallsHeld, 1)
			w.read(t, 10, b.now)
			if got := strings.Join(w.log, ";"); got != "disconnect" {
				t.Errorf("the worker was told %q; want disconnect", got)
			}
			said := len(a.log)
			w.write(link.Response, link.FlagLast|link.FlagDone, id, responsePayload(200, 0, "late"))
			b.turn()
			if len(a.log) != said {
				t.Errorf("a connection that left was told %v", a.log[said:])
			}
			b.want(observe.CallsHeld, 0)
		})
	}
}

func TestAppFails(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	first, second := b.start(request()), b.start(request())
	b.turn()
	begun := w.read(t, 10, b.now)
	w.write(link.CallFailed, 0, begun[0].id, nil)
	w.write(link.Response, 0, begun[1].id, responsePayload(200, 0, ""))
	w.write(link.CallFailed, 0, begun[1].id, nil)
	b.turn()
	first.said(t, "fail 500")
	second.said(t, `respond 200 0 fields "" false`, "fail 500")
	b.want(observe.Failed500, 1)
	b.want(observe.FailedCut, 1)
	b.want(observe.CallsHeld, 0)
}

func TestRefusals(t *testing.T) {
	t.Run("queue full", func(t *testing.T) {
		b := newBench(t, func(s *Settings) { s.QueueCalls = 2 })
		b.start(request())
		b.start(request())
		b.start(request()).said(t, "fail 503")
		b.turn()
		b.want(observe.RefusedQueueFull, 1)
		b.want(observe.CallsInFlight, 2)
	})
	t.Run("concurrency", func(t *testing.T) {
		b := newBench(t, func(s *Settings) { s.Concurrency = 1 })
		b.start(request())
		b.start(request()).said(t, "fail 503")
		b.turn()
		b.want(observe.RefusedLimit, 1)
	})
	t.Run("queue timeout", func(t *testing.T) {
		b := newBench(t, func(s *Settings) { s.QueueCalls = 5000 })
		w := b.worker(1)
		var all []*fakeAnswer
		for range 1300 {
			all = append(all, b.start(request()))
		}
		b.turn()
		for range 1100 { // the worker takes one record at a time: it lives, and is late
			for _, s := range w.read(t, 1, b.now) {
				w.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, ""))
			}
			b.tick(10 * time.Millisecond)
			if b.registry.Snapshot().Get(observe.RefusedQueueTimeout) > 0 {
				break
			}
		}
		said := 0
		for _, a := range all {
			if len(a.log) > 0 {
				if a.log[0] == "fail 503" {
					said++
				}
			}
		}
		if said == 0 {
			t.Errorf("no call was refused after ten seconds in the queue: clock %v, %d wait, window %v", time.Duration(b.shard.clock), b.shard.queue.live, b.shard.ports[0].window)
		}
	})
	t.Run("no worker", func(t *testing.T) {
		b := newBench(t, nil)
		a := b.start(request())
		for range 3 {
			b.shard.Arm(false)
			b.now += int64(31 * time.Second)
			b.shard.Wake(b.now)
			b.turn()
		}
		a.said(t, "fail 503")
		b.want(observe.RefusedNoWorker, 1)
	})
}

func TestWorkerGone(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	var all []*fakeAnswer
	for range 4 {
		all = append(all, b.start(request()))
	}
	b.turn()
	begun := w.read(t, 3, b.now)
	w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 0, "published before its death"))
	w.write(link.Response, 0, begun[1].id, responsePayload(200, 0, ""))
	w.SetState(WorkerGone)
	b.shard.Detach(w.Worker)
	b.turn()
	all[0].said(t, `respond 200 0 fields "published before its death" true`)
	all[1].said(t, `respond 200 0 fields "" false`, "fail 502")
	all[2].said(t, "fail 502")
	all[3].said(t)
	b.want(observe.CallsHeld, 0)
	b.want(observe.CallsTakenBack, 1)
	next := b.worker(2)
	b.turn()
	if got := len(next.read(t, 10, b.now)); got != 1 {
		t.Errorf("the next worker got %d calls; want the one that was not begun", got)
	}
}

// Whoever waits when the server ends is told so: nobody is left with a connection that closes without a word.
func TestTheEndRefusesWhatWaits(t *testing.T) {
	b := newBench(t, func(s *Settings) {
		s.RetrySafe, s.PriorityPaths = true, []string{"/urgent"}
		s.RetryAfter = 1
	})
	w := b.worker(1)
	runs, offered := b.start(request()), b.start(request())
	b.turn()
	w.read(t, 1, b.now)
	w.SetState(WorkerDraining)
	urgent := request()
	urgent.Path = []byte("/urgent")
	socket := request()
	socket.WebSocket = true
	waiting := []*fakeAnswer{b.start(request()), b.start(urgent), b.start(socket)}
	gone := b.start(request())
	gone.call.Leave()
	var lines []string
	b.shard.dispatch.settings.Log = func(level, event, message string) { lines = append(lines, message) }
	b.shard.dispatch.End()
	b.shard.RefuseWaiting()
	for _, a := range waiting {
		a.said(t, "fail 503")
	}
	offered.said(t)
	b.shard.DrainWorker(w.Worker)
	offered.said(t, "fail 503")
	runs.said(t)
	b.shard.Detach(w.Worker) // and it is to run again, without anybody to run it
	runs.said(t, "fail 503")
	b.start(request()).said(t, "fail 503") // a head that was incomplete came to its end
	b.start(urgent).said(t, "fail 503")
	b.turn()
	b.want(observe.RefusedStopping, 7)
	b.want(observe.CallsLeft, 1)
	b.want(observe.CallsInFlight, 0)
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "3 calls were refused (calls.refused_by.stopping)") {
		t.Errorf("the log says %q; want one line, of three calls", lines)
	}
}

// tick lets time pass, as a loop would that looks every ten milliseconds.
func (b *bench) tick(d time.Duration) {
	for end := b.now + int64(d); b.now < end; {
		b.shard.Publish()
		b.shard.Arm(false)
		b.now += int64(tick)
		b.shard.Wake(b.now)
		b.turn()
	}
}

func TestSafeCallsRunAgainOnceAndAlone(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.RetrySafe = true })
	first := b.worker(1)
	post := request()
	post.Method = []byte("POST")
	answers := []*fakeAnswer{b.start(request()), b.start(request()), b.start(post), b.start(request())}
	b.turn()
	begun := first.read(t, 4, b.now)
	first.write(link.Response, 0, begun[3].id, responsePayload(200, 0, ""))
	second := b.worker(2)
	first.SetState(WorkerGone)
	lost := b.shard.Detach(first.Worker)
	if len(lost) != 4 || lost[0].Method != "GET" || lost[0].Path != "/x" {
		t.Errorf("got lost calls %+v; want four", lost)
	}
	b.turn()
	answers[2].said(t, "fail 502")
	answers[3].said(t, `respond 200 0 fields "" false`, "fail 502")
	b.want(observe.CallsRerun, 2)
	again := second.read(t, 10, b.now)
	if len(again) != 1 {
		t.Fatalf("got %d calls run again at a time; want 1", len(again))
	}
	second.write(link.Response, link.FlagLast|link.FlagDone, again[0].id, responsePayload(200, 0, ""))
	b.turn()
	again = second.read(t, 10, b.now)
	if len(again) != 1 {
		t.Fatalf("got %d calls run again after the first; want 1", len(again))
	}
	b.shard.Detach(second.Worker)
	b.worker(3)
	b.turn()
	if log := strings.Join(append(answers[0].log, answers[1].log...), "; "); !strings.Contains(log, "fail 502") || !strings.Contains(log, "respond 200") {
		t.Errorf("got %q; want one answer and one 502: no call runs a third time", log)
	}
	b.want(observe.CallsInFlight, 0)
}

func TestUnclaimedCallsLeaveAStalledWorker(t *testing.T) {
	var stalled, recovered time.Duration
	b := newBench(t, func(s *Settings) {
		s.StallWarning = time.Second
		s.Stalled = func(_ *Worker, _ int, d time.Duration) { stalled = d }
		s.Recovered = func(_ *Worker, _ int, d time.Duration) { recovered = d }
	})
	stuck := b.worker(1)
	for range 3 {
		b.start(request())
	}
	b.turn()
	stuck.read(t, 1, b.now) // begins one and blocks in it
	other := b.worker(2)
	b.tick(60 * time.Millisecond)
	if got := len(other.read(t, 10, b.now)); got != 2 {
		t.Errorf("the other worker got %d calls; want the 2 that were not begun", got)
	}
	b.start(request())
	b.turn()
	if got := len(other.read(t, 10, b.now)); got != 1 {
		t.Errorf("a new call went to the stalled worker")
	}
	b.tick(1100 * time.Millisecond)
	if stalled < time.Second || recovered != 0 {
		t.Errorf("got a warning of %v and a recovery of %v; want a warning after 1 s", stalled, recovered)
	}
	if late := stuck.read(t, 10, b.now); len(late) != 0 {
		t.Errorf("the stalled worker began %d calls that were taken back", len(late))
	}
	b.tick(20 * time.Millisecond)
	if recovered < time.Second {
		t.Errorf("got a recovery of %v; want more than 1 s", recovered)
	}
}

func TestBatchesShrinkWhereACallTakesLongToBegin(t *testing.T) {
	for _, c := range []struct {
		cost time.Duration
		want int
	}{
		{5 * time.Microsecond, maxUnclaimed}, {100 * time.Microsecond, 50},
		{time.Millisecond, 5}, {10 * time.Millisecond, leastBatch},
	} {
		var b batch
		at := int64(1e9)
		for range 100 { // offered at once, claimed one by one
			at += int64(c.cost)
			b.note(1e9, at)
		}
		if got := b.limit(); got < c.want-1 || got > c.want+2 {
			t.Errorf("a claim each %v: got batches of %d; want %d", c.cost, got, c.want)
		}
		for range 100 { // each offered when the one before was long begun
			at += 1e6
			b.note(at-1000, at)
		}
		if got := b.limit(); got != maxUnclaimed {
			t.Errorf("prompt claims: got batches of %d; want %d", got, maxUnclaimed)
		}
	}
}

func TestCallsWaitWhileAllWorkersAreStalled(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	first := b.start(request())
	b.turn()
	b.tick(100 * time.Millisecond)
	second := b.start(request())
	b.tick(30 * time.Second) // longer than the queue's time-out, whose clock stands still
	first.said(t)
	second.said(t)
	for _, s := range w.read(t, 10, b.now) {
		w.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, ""))
	}
	b.tick(30 * time.Millisecond)
	for _, s := range w.read(t, 10, b.now) {
		w.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, ""))
	}
	b.turn()
	b.want(observe.CallsAnswered, 2)
}

func TestDrainWorkerTakesBackWhatIsNotBegun(t *testing.T) {
	b := newBench(t, nil)
	first := b.worker(1)
	for range 5 {
		b.start(request())
	}
	b.turn()
	begun := first.read(t, 2, b.now)
	second := b.worker(2)
	first.SetState(WorkerDraining)
	b.shard.DrainWorker(first.Worker)
	b.turn()
	if late := first.read(t, 10, b.now); len(late) != 0 {
		t.Errorf("a draining worker began %d calls", len(late))
	}
	if got := strings.Join(first.log, ";"); got != "drain" {
		t.Errorf("the worker was told %q; want drain", got)
	}
	if got := len(second.read(t, 10, b.now)); got != 3 {
		t.Errorf("the other worker got %d calls; want 3", got)
	}
	for _, s := range begun {
		first.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, ""))
	}
	b.turn()
	if first.Held() != 0 {
		t.Errorf("got %d calls held; want 0", first.Held())
	}
}

// A worker that is awake is not rung, and rings at its drain's end only: until then the loop looks by itself.
func TestTheLoopLooksWhileAWorkerDrains(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	b.turn()
	drain := func(draining uint32) {
		binary.LittleEndian.PutUint32(w.Link.Memory()[link.HeaderDraining:], draining)
	}
	w.end.Inbox.Disarm() // another loop has rung it
	drain(1)
	b.start(request())
	b.turn()
	if limit, _ := b.shard.Arm(false); limit != watchDrain {
		t.Errorf("the loop sleeps for %v while the worker drains; want %v", limit, watchDrain)
	}
	w.read(t, 1, b.now)
	b.turn()
	drain(0)
	if limit, _ := b.shard.Arm(false); limit == watchDrain {
		t.Error("the loop goes on looking when the drain is over")
	}
}

func TestMadWorker(t *testing.T) {
	long := responsePayload(200, 1, "")
	binary.LittleEndian.PutUint32(long[link.ResponseFieldBytes:], 1<<30)
	count := responsePayload(200, 1, "")
	binary.LittleEndian.PutUint32(count[link.ResponseFieldCount:], 2)
	name := responsePayload(200, 1, "")
	binary.LittleEndian.PutUint32(name[link.ResponseFixedSize:], 1<<31)
	for what, write := range map[string]func(w *fakeWorker, id uint64){
		"a record of a call not claimed": func(w *fakeWorker, id uint64) {
			w.end.Slots.Offer(uint32(id), uint32(id>>32))
			w.write(link.CallDone, 0, id, nil)
		},
		"a short response":  func(w *fakeWorker, id uint64) { w.write(link.Response, 0, id, []byte{1}) },
		"a long field list": func(w *fakeWorker, id uint64) { w.write(link.Response, 0, id, long) },
		"too many fields":   func(w *fakeWorker, id uint64) { w.write(link.Response, 0, id, count) },
		"a long name":       func(w *fakeWorker, id uint64) { w.write(link.Response, 0, id, name) },
		"status 7":          func(w *fakeWorker, id uint64) { w.write(link.Response, 0, id, responsePayload(7, 0, "")) },
		"a long body": func(w *fakeWorker, id uint64) {
			w.write(link.ResponseBody, 0, id, []byte{255, 255, 255, 255, 0, 0, 0, 0})
		},
		"body first":      func(w *fakeWorker, id uint64) { w.write(link.ResponseBody, 0, id, bodyPayload("x")) },
		"an unknown type": func(w *fakeWorker, id uint64) { w.write(77, 0, id, nil) },
		"two responses": func(w *fakeWorker, id uint64) {
			w.write(link.Response, 0, id, responsePayload(200, 0, ""))
			w.write(link.Response, 0, id, responsePayload(200, 0, ""))
		},
		"a control record with a bad length": func(w *fakeWorker, id uint64) {
			w.write(link.StartFailed, 0, 0, []byte{255, 255, 255, 255, 0, 0, 0, 0})
		},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t, nil)
			w := b.worker(1)
			a := b.start(request())
			b.turn()
			id := w.read(t, 1, b.now)[0].id
			write(w, id)
			b.turn()
			if len(b.corrupt) != 1 {
				t.Fatalf("got %d reports of a mad worker; want 1", len(b.corrupt))
			}
			w.SetState(WorkerGone)
			b.shard.Detach(w.Worker)
			b.turn()
			if len(a.log) == 0 && what != "a record of a call not claimed" {
				t.Error("the call of a mad worker was never answered")
			}
		})
	}
}

// A worker whose slots are overwritten is not believed, whatever it says, and not waited for. A call
// that may be run twice is, whether the core had seen that it was begun or not.
func TestOverwrittenSlots(t *testing.T) {
	for _, seen := range []bool{false, true} {
		for _, answers := range []bool{false, true} {
			for _, method := range []string{"GET", "POST"} {
				t.Run(fmt.Sprintf("claim seen %v, answered %v, %s", seen, answers, method), func(t *testing.T) {
					b := newBench(t, func(s *Settings) { s.RetrySafe = true })
					w := b.worker(1)
					r := request()
					r.Method = []byte(method)
					a := b.start(r)
					b.turn()
					id := w.read(t, 1, b.now)[0].id
					if seen {
						b.turn()
					}
					slots := w.Link.Memory()[link.HeaderSize:]
					for i := range 64 * link.SlotSize {
						slots[i] = 0xff
					}
					if answers {
						w.write(link.Response, link.FlagLast|link.FlagDone, id, responsePayload(200, 0, "ok"))
					} else if seen {
						b.start(request()) // the next offer has a sound slot, and shows nothing
					}
					b.turn()
					if want := answers || !seen; (len(b.corrupt) == 1) != want {
						t.Fatalf("got %d violations; want one: %v", len(b.corrupt), want)
					}
					a.said(t)
					w.SetState(WorkerGone)
					b.shard.Detach(w.Worker)
					b.turn()
					if method == "POST" {
						a.said(t, "fail 502")
						return
					}
					a.said(t)
					other := b.worker(2)
					b.turn()
					for _, c := range other.read(t, 2, b.now) {
						other.write(link.Response, link.FlagLast|link.FlagDone, c.id, responsePayload(200, 0, "ok"))
					}
					b.turn()
					if len(a.log) != 1 || !strings.HasPrefix(a.log[0], "respond 200") {
						t.Errorf("got %v; want the answer of the other worker", a.log)
					}
				})
			}
		}
	}
}

// Everything at random, and after each turn the counters add up.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		b := newBench(t, func(s *Settings) { s.QueueCalls = 300 })
		workers := []*fakeWorker{b.worker(1), b.worker(2)}
		next := 3
		var open []*fakeAnswer
		running := map[*fakeWorker][]uint64{}
		for range 2000 {
			switch rnd.IntN(8) {
			case 0, 1, 2:
				r := request()
				r.BodyLast = rnd.IntN(2) == 0
				if a := b.start(r); a.call != nil {
					open = append(open, a)
				}
			case 3:
				if n := len(open); n > 0 {
					i := rnd.IntN(n)
					if !ended(open[i]) {
						open[i].call.Leave()
					}
					open = append(open[:i], open[i+1:]...)
				}
			case 4, 5:
				w := workers[rnd.IntN(len(workers))]
				for _, s := range w.read(t, rnd.IntN(80), b.now) {
					running[w] = append(running[w], s.id)
				}
			case 6:
				w := workers[rnd.IntN(len(workers))]
				for len(running[w]) > 0 && rnd.IntN(4) > 0 {
					id := running[w][0]
					running[w] = running[w][1:]
					if rnd.IntN(5) == 0 {
						w.write(link.CallFailed, 0, id, nil)
					} else {
						w.write(link.Response, link.FlagLast|link.FlagDone, id, responsePayload(200, 1, "x"))
					}
				}
			case 7:
				if rnd.IntN(20) == 0 {
					i := rnd.IntN(len(workers))
					workers[i].SetState(WorkerGone)
					b.shard.Detach(workers[i].Worker)
					workers[i] = b.worker(next)
					next++
				}
			}
			b.now += int64(rnd.IntN(20)) * 1e6
			b.shard.Wake(b.now)
			if rnd.IntN(2) == 0 {
				b.turn()
				live := open[:0]
				for _, a := range open {
					if !ended(a) {
						live = append(live, a)
					}
				}
				open = live
			}
		}
		b.turn()
		for _, w := range workers {
			b.shard.Detach(w.Worker)
		}
		last := b.worker(next)
		b.turn()
		for {
			begun := last.read(t, 1000, b.now)
			if len(begun) == 0 {
				break
			}
			for _, s := range begun {
				last.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, ""))
			}
			b.turn()
		}
		b.want(observe.CallsInFlight, 0)
		b.want(observe.CallsHeld, 0)
		b.want(observe.CallsWaiting, 0)
		if b.dispatch.waiting.Load() != 0 || b.dispatch.bytes.Load() != 0 || b.dispatch.InFlight() != 0 {
			t.Errorf("left over: %d waiting, %d bytes, %d in flight", b.dispatch.waiting.Load(), b.dispatch.bytes.Load(), b.dispatch.InFlight())
		}
		if len(b.corrupt) > 0 {
			t.Errorf("a sound worker was called mad: %v", b.corrupt)
		}
	}
}

func ended(a *fakeAnswer) bool {
	for _, line := range a.log {
		if strings.HasPrefix(line, "fail") || strings.HasSuffix(line, "true") {
			return true
		}
	}
	return false
}
