package dispatch

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/memory"
	"spvn/gosrc/observe"
)

// within fails the test if f takes longer than it ever should.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it never returned")
	}
}

// A quarter of an inbox may be free and yet too little for a large start and what is kept
// for control records: the loop must go on with other work meanwhile.
func TestLargeStartsAndABusyWorker(t *testing.T) {
	for _, size := range []int{60 << 10, 77<<10 + 8, 90 << 10, 120 << 10} {
		b := newBench(t, func(s *Settings) { s.QueueBytes = 64 << 20 })
		w := b.worker(1)
		r := request()
		r.Method, r.Body = []byte("POST"), make([]byte, size)
		answered := 0
		within(t, func() {
			for range 60 {
				b.start(r)
				b.turn()
			}
			for answered < 60 {
				begun := w.read(t, 1, b.now)
				for _, s := range begun {
					w.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, "ok"))
				}
				answered += len(begun)
				b.now += int64(tick)
				b.shard.Wake(b.now)
				b.turn()
			}
		})
		b.want(observe.CallsAnswered, 60)
	}
}

// Whoever has waited for a worker long ago is no reason to refuse a call today.
func TestTheTimeWithoutAWorkerBeginsAnew(t *testing.T) {
	b := newBench(t, nil)
	first := b.start(request())
	b.turn()
	b.now += int64(time.Second)
	b.shard.Wake(b.now)
	b.turn()
	w := b.worker(1)
	b.turn()
	begun := w.read(t, 1, b.now)
	w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 0, "ok"))
	b.turn()
	first.said(t, `respond 200 0 fields "ok" true`)
	b.shard.Arm(false)

	b.now += int64(time.Hour)
	b.shard.Wake(b.now)
	b.turn()
	w.SetState(WorkerGone)
	b.shard.Detach(w.Worker)
	second := b.start(request())
	for range 100 {
		b.turn()
		b.now += int64(tick)
		b.shard.Wake(b.now)
	}
	second.said(t) // nothing: it waits for the next worker
}

// A call that runs again starts from the beginning: what the first worker was told, had
// room for or received says nothing about the second.
func TestARerunForgetsTheFirstRun(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.RetrySafe = true })
	first := b.worker(1)
	r := request()
	r.BodyLast, r.Body = false, []byte("12345")
	a := b.start(r)
	b.turn()
	id := first.read(t, 1, b.now)[0].id
	first.write(link.WantBody, 0, id, nil)
	first.write(link.BodyCredit, 0, id, binary.LittleEndian.AppendUint64(nil, 5))
	b.turn()
	a.call.Body(nil, true)
	b.shard.DisconnectWorker(first.Worker)
	b.turn()

	second := b.worker(2)
	first.SetState(WorkerGone)
	if lost := b.shard.Detach(first.Worker); len(lost) != 1 || !lost[0].Rerun {
		t.Fatalf("got %+v; want one call that runs again", lost)
	}
	b.turn()
	id = second.read(t, 1, b.now)[0].id
	b.turn()
	second.write(link.BodyCredit, 0, id, binary.LittleEndian.AppendUint64(nil, 5))
	b.turn()
	second.read(t, 10, b.now)
	if len(b.corrupt) != 0 {
		t.Errorf("the second worker was found mad: %v", b.corrupt)
	}
	if len(second.log) != 1 || second.log[0] != "body 0 1" {
		t.Errorf("the second worker was told %v; want the end of the body", second.log)
	}
	second.log = nil
	a.call.Leave()
	b.turn()
	second.read(t, 10, b.now)
	if len(second.log) != 1 || second.log[0] != "disconnect" {
		t.Errorf("the second worker was told %v; want that the client left", second.log)
	}
}

// A call that waited for room in the inbox of a worker that ended waits anew elsewhere.
func TestARerunWaitsForRoomAnew(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.RetrySafe = true })
	first := b.worker(1)
	r := request()
	r.BodyLast = false
	a := b.start(r)
	b.turn()
	first.read(t, 1, b.now)
	fill(b, first.Worker)
	a.call.Body([]byte("body"), true)
	b.want(observe.LinkInboxFull, 0)
	b.turn()
	second := b.worker(2)
	first.SetState(WorkerGone)
	b.shard.Detach(first.Worker)
	b.turn()
	begun := second.read(t, 1, b.now)
	fill(b, second.Worker)
	b.turn()
	for range 100 { // makes room
		second.read(t, 100, b.now)
		b.turn()
	}
	if begun[0].body != 4 {
		t.Errorf("got %d bytes of body; want 4", begun[0].body)
	}
}

// A loop does not sleep while there is room that a call waits for: that another call, whose wish for room came last,
// found it at once took the wish of all others back.
func TestNobodySleepsOverRoom(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	r := request()
	r.BodyLast = false
	a := b.start(r)
	b.turn()
	w.read(t, 1, b.now)
	fill(b, w.Worker)
	a.call.Body([]byte("body"), true)
	b.turn()
	if _, ok := b.shard.Arm(false); !ok {
		t.Error("the loop does not sleep although there is no room")
	}
	w.read(t, 1<<20, b.now) // all there is, and the bell that it rings is not heard
	if _, ok := b.shard.Arm(false); ok {
		t.Fatal("the loop sleeps, and a call waits for room that is there")
	}
	b.turn()
	w.read(t, 10, b.now)
	if w.log[len(w.log)-1] != "body 4 1" {
		t.Errorf("the worker was told %v; want the body last", w.log)
	}
}

// fill leaves no room for data in a worker's inbox.
func fill(b *bench, w *Worker) {
	p := b.shard.portOf(w)
	for {
		if _, ok := p.write(1<<10, link.Timer, 0, 0, data); !ok {
			break
		}
	}
	for {
		if _, ok := p.write(0, link.Timer, 0, 0, data); !ok {
			return
		}
	}
}

// The ID 0 is that of control records, however often the first slot was used.
func TestGenerationsWrap(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	p := b.shard.portOf(w.Worker)
	p.calls, p.generations, p.free = []*Call{nil}, []uint32{^uint32(0)}, []uint32{0}
	a := b.start(request())
	b.turn()
	begun := w.read(t, 1, b.now)
	if begun[0].id == 0 {
		t.Fatal("a call has the ID of control records")
	}
	w.write(link.Response, link.FlagLast|link.FlagDone, begun[0].id, responsePayload(200, 0, "ok"))
	b.turn()
	a.said(t, `respond 200 0 fields "ok" true`)
}

// The bodies of waiting calls are the queue's bytes too: beyond the bound they stay in the
// kernels of their clients.
func TestWaitingBodiesAreBounded(t *testing.T) {
	const most = 256 << 10
	b := newBench(t, func(s *Settings) { s.QueueBytes = most })
	r := request()
	r.BodyLast = false
	var all []*fakeAnswer
	for range 100 {
		all = append(all, b.start(r))
	}
	for _, a := range all {
		if a.call.Room() > 0 {
			a.call.Body(make([]byte, 30<<10), false)
		}
	}
	if n := b.dispatch.bytes.Load(); n > most+30<<10 {
		t.Errorf("%d bytes wait; want about %d", n, most)
	}
	b.turn()
	w := b.worker(1)
	for range 10 {
		b.turn()
		w.read(t, 1000, b.now)
	}
	b.turn()
	for i, a := range all[:64] {
		if a.call.Room() <= 0 {
			t.Errorf("%d: a worker began the call, and there is no room", i)
		}
		if i > 20 {
			a.said(t, "resume")
		}
	}
	for _, a := range all {
		a.call.Leave()
	}
	b.turn()
	if n := b.dispatch.bytes.Load(); n != 0 {
		t.Errorf("%d bytes are left over", n)
	}
}

// brokenAnswer panics when it is told of an answer.
type brokenAnswer struct{ fakeAnswer }

func (a *brokenAnswer) Respond(int, []call.Field, []byte, bool, bool) { panic("broken") }
func (a *brokenAnswer) RespondBody([]byte, bool)                      { panic("broken") }

// A panic in the protocol's answer costs that call: it is counted, its slot comes back, and the
// calls behind it are answered.
func TestAPanicCostsOneCall(t *testing.T) {
	for name, flags := range map[string]uint16{"begun": 0, "complete": link.FlagLast, "complete and done": link.FlagLast | link.FlagDone} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			w := b.worker(1)
			broken := &brokenAnswer{}
			b.shard.Start(request(), broken)
			good := b.start(request())
			b.turn()
			begun := w.read(t, 2, b.now)
			w.write(link.Response, flags, begun[0].id, responsePayload(200, 0, "a"))
			w.write(link.Response, link.FlagLast|link.FlagDone, begun[1].id, responsePayload(200, 0, "b"))
			b.turn()
			broken.said(t, "fail 500")
			good.said(t, `respond 200 0 fields "b" true`)
			if flags&link.FlagDone == 0 {
				b.want(observe.CallsHeld, 1)
				w.write(link.CallDone, 0, begun[0].id, nil)
				b.turn()
			}
			b.want(observe.CallsHeld, 0)
			b.want(observe.CallsInFlight, 0)
			b.want(observe.LoopPanics, 1)
		})
	}
}

// A worker that is never quite done with its offers must not make their list grow for ever.
func TestOffersOfABusyWorkerAreForgotten(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	b.start(request())
	for range 5000 {
		b.start(request())
		b.shard.Publish()
		for _, s := range w.read(t, 1, b.now) {
			w.write(link.Response, link.FlagLast|link.FlagDone, s.id, responsePayload(200, 0, "ok"))
		}
		b.shard.Turn()
	}
	p := b.shard.portOf(w.Worker)
	if p.unclaimed == 0 {
		t.Fatal("the worker was done with its offers")
	}
	if n := cap(p.offers); n > 8*maxUnclaimed {
		t.Errorf("the list of offers has room for %d; want at most %d", n, 8*maxUnclaimed)
	}
}

func TestNewestFirstKeepsTheQueueSmall(t *testing.T) {
	var q queue
	oldest := &Call{}
	q.push(oldest)
	for range 1000 {
		a, b := &Call{}, &Call{}
		q.push(a)
		q.push(b)
		for _, want := range []*Call{b, a} {
			if got := q.newest(); got != want {
				t.Fatalf("got %p; want %p", got, want)
			}
			q.remove(want)
		}
	}
	if len(q.ring) > 64 || q.live != 1 || q.oldest() != oldest {
		t.Errorf("got room for %d, %d live; want at most 64 and the oldest", len(q.ring), q.live)
	}
	q.remove(oldest)
	if q.oldest() != nil || q.newest() != nil {
		t.Error("an empty queue has a call")
	}
}

// A proxy names the client as it likes; a name that its record cannot hold must not reach a worker,
// which would find the link corrupt.
func TestAClientsNameHasABound(t *testing.T) {
	b := newBench(t, nil)
	b.worker(1)
	r := request()
	r.Client.Host = strings.Repeat("x", 70<<10)
	b.start(r).said(t, "fail 431")
	r.Client.Host = r.Client.Host[:maxHost]
	b.start(r).said(t)
}

// What a worker has of a body need not be kept for it.
func TestTheFirstPartOfABodyIsNotKept(t *testing.T) {
	for _, method := range []string{"POST", "GET"} {
		b := newBench(t, func(s *Settings) { s.RetrySafe = true })
		w := b.worker(1)
		r := request()
		r.Method, r.Body = []byte(method), make([]byte, 60<<10)
		c := b.start(r).call.(*Call)
		b.turn()
		if n := w.read(t, 1, b.now)[0].body; n != 60<<10 {
			t.Fatalf("the worker was given %d bytes", n)
		}
		b.turn()
		if kept := cap(c.start); (kept < 1<<10) != (method == "POST") {
			t.Errorf("%s: %d bytes are kept; want few, unless it may run again", method, kept)
		}
		var line AccessLine
		readStart(c.start, &line)
		if string(line.Method) != method || string(line.Path) != "/x" || line.Client != "1.2.3.4" {
			t.Errorf("the log would say %s %s of %s", line.Method, line.Path, line.Client)
		}
	}
}

// A priority call is refused for those of its kind only, not for the bytes of others.
func TestPriorityCallsBesideLargeBodies(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.PriorityPaths, s.QueueBytes = []string{"/healthz"}, 1<<20 })
	large, urgent := request(), request()
	large.Method, large.BodyLast = []byte("POST"), false
	urgent.Path = []byte("/healthz")
	var uploads []*fakeAnswer
	for range 100 {
		uploads = append(uploads, b.start(large))
	}
	for _, a := range uploads {
		a.call.Body(make([]byte, 60<<10), false)
	}
	a := b.start(urgent)
	a.said(t) // nothing: it waits
	urgent.Method, urgent.Body = []byte("POST"), make([]byte, 60<<10)
	refused := 0
	for range 100 {
		if len(b.start(urgent).log) > 0 {
			refused++
		}
	}
	if refused < 80 {
		t.Errorf("%d of 100 priority calls with large bodies were refused; want those beyond the bound", refused)
	}
	if most := int64(b.dispatch.settings.QueueBytes) + 64<<10; b.dispatch.urgentBytes.Load() > most {
		t.Errorf("%d bytes of priority calls wait; want at most %d", b.dispatch.urgentBytes.Load(), most)
	}
}

// The budget for bodies hears of a body that came with a large head, too.
func TestABodyBehindALargeHeadIsCharged(t *testing.T) {
	budget := memory.NewBudget(24 << 20)
	b := newBench(t, func(s *Settings) { s.Bodies = budget })
	w := b.worker(1)
	r := request()
	r.Method, r.Body = []byte("POST"), make([]byte, 60<<10)
	r.Fields = append(r.Fields, call.Field{Name: []byte("x-large"), Value: make([]byte, 90<<10)})
	b.start(r)
	b.turn()
	id := w.read(t, 1, b.now)[0].id
	b.turn()
	if n := budget.Used(); n != 60<<10 {
		t.Errorf("%d bytes are counted; want those of the body", n)
	}
	w.read(t, 10, b.now)
	w.write(link.BodyCredit, 0, id, binary.LittleEndian.AppendUint64(nil, 60<<10))
	b.turn()
	if n := budget.Used(); n != 0 {
		t.Errorf("%d bytes are counted once the app has received them; want none", n)
	}
}

func TestAbandonedCallsAreCounted(t *testing.T) {
	b := newBench(t, nil)
	w := b.worker(1)
	a := b.start(request())
	b.turn()
	id := w.read(t, 1, b.now)[0].id
	b.turn()
	a.call.Leave()
	b.turn()
	b.want(observe.CallsAbandoned, 1)
	w.write(link.CallDone, 0, id, nil)
	b.turn()
	b.want(observe.CallsAbandoned, 0)
}

// Whoever hangs up, or waits no longer, leaves a call behind that the app goes on with: it counts for the bound.
func TestAbandonedCallsCountForTheConcurrency(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.Concurrency = 2 })
	w := b.worker(1)
	a, other := b.start(request()), b.start(request())
	b.turn()
	begun := w.read(t, 2, b.now)
	b.turn()
	a.call.Leave()
	other.call.Leave()
	b.start(request()).said(t, "fail 503")
	for _, c := range begun {
		w.write(link.CallDone, 0, c.id, nil)
	}
	b.turn()
	b.start(request()).said(t)
	b.turn()
	b.want(observe.RefusedLimit, 1)
}

// Whoever was offered to a worker, and comes back, has waited since it arrived.
func TestWaitingGoesOnBehindAnOffer(t *testing.T) {
	b := newBench(t, nil)
	busy := b.pooledWorker(1, 1)
	b.start(request())
	b.turn()
	busy.read(t, 10, b.now)
	b.turn()
	pass := func(d time.Duration) {
		for ; d > 0; d -= 100 * time.Millisecond {
			b.tick(100 * time.Millisecond)
			binary.LittleEndian.PutUint64(busy.Link.Memory()[link.HeaderTurns:], busy.Link.Turns()+1)
		}
	}
	for range 3 {
		b.start(request())
	}
	pass(9 * time.Second)
	leaving := b.pooledWorker(2, 1)
	b.tick(10 * time.Millisecond)
	leaving.SetState(WorkerDraining)
	b.shard.DrainWorker(leaving.Worker)
	b.turn()
	b.want(observe.CallsTakenBack, 1)
	pass(1500 * time.Millisecond)
	b.want(observe.RefusedQueueTimeout, 3)
}

// What a stalled worker was offered is bounded as what waits in the core is, if nobody else can take it.
func TestOffersOfAStalledWorkerAreGivenUp(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.WorkerTimeout = 2 * time.Second })
	w := b.worker(1)
	b.start(request())
	b.turn()
	w.read(t, 1, b.now)
	b.turn()
	early := b.start(request())
	b.tick(1500 * time.Millisecond)
	late := b.start(request())
	b.tick(time.Second)
	early.said(t, "fail 503")
	late.said(t)
	b.tick(1100 * time.Millisecond)
	late.said(t, "fail 503")
	b.want(observe.RefusedNoWorker, 2)
	b.want(observe.CallsInFlight, 1)
}
