package dispatch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/memory"
	"spvn/gosrc/observe"
)

// fakeSocket is a connection whose handshake was accepted.
type fakeSocket struct {
	fakeAnswer
	call call.WebSocketCall
}

func (s *fakeSocket) Send(text bool, b []byte, more bool) { s.note("send %v %q %v", text, b, more) }
func (s *fakeSocket) CloseWith(code int, reason []byte)   { s.note("close %d %s", code, reason) }
func (s *fakeSocket) Restart() {
	s.note("restart")
	s.call.Closed(1012, []byte("restart"))
}

// fakeHandshake is a connection that asks for an upgrade.
type fakeHandshake struct {
	fakeAnswer
	socket *fakeSocket
	refuse bool   // the answer cannot be sent
	early  string // a message that came with the handshake
	closes bool   // the client closed behind it
}

func (a *fakeHandshake) Accept(subprotocol []byte, fields []call.Field) call.WebSocket {
	a.note("accept %q %d fields", subprotocol, len(fields))
	c := a.call.(call.WebSocketCall)
	if a.refuse {
		c.Leave()
		return nil
	}
	a.socket = &fakeSocket{call: c}
	if a.early != "" {
		c.Message(true, []byte(a.early))
	}
	if a.closes {
		c.Closed(1000, nil)
		return nil
	}
	return a.socket
}

func acceptPayload(subprotocol string) []byte {
	fields := responsePayload(200, 1, "")[link.ResponseFixedSize:]
	p := binary.LittleEndian.AppendUint32(nil, uint32(len(subprotocol)))
	p = binary.LittleEndian.AppendUint32(p, 1)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(fields)))
	p = binary.LittleEndian.AppendUint32(p, 0)
	return append(append(p, subprotocol...), fields...)
}

func messagePayload(opcode uint32, s string) []byte {
	p := binary.LittleEndian.AppendUint32(nil, opcode)
	return append(binary.LittleEndian.AppendUint32(p, uint32(len(s))), s...)
}

func closePayload(code uint16, reason string) []byte {
	p := binary.LittleEndian.AppendUint16(nil, code)
	p = binary.LittleEndian.AppendUint16(p, uint16(len(reason)))
	return append(append(p, 0, 0, 0, 0), reason...)
}

func creditPayload(messages, bytes uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, messages), bytes)
}

// socketRig is a WebSocket call that its worker has claimed.
type socketRig struct {
	*bench
	w  *fakeWorker
	a  *fakeHandshake
	id uint64
}

func newSocketRig(t *testing.T, change func(*Settings)) *socketRig {
	b := newBench(t, func(s *Settings) {
		s.WebSocketQueue = 4
		if change != nil {
			change(s)
		}
	})
	r := &socketRig{bench: b, w: b.worker(1), a: &fakeHandshake{}}
	request := request()
	request.WebSocket, request.Scheme = true, call.WS
	r.a.call = b.shard.Start(request, r.a)
	b.turn()
	record, ok, err := r.w.end.Inbox.Next()
	if !ok || err != nil || record.Type != link.CallWebsocket {
		t.Fatalf("the worker got record %d, %v, %v; want a CALL_WEBSOCKET", record.Type, ok, err)
	}
	r.id = record.Call
	slot, generation, _ := r.w.end.Slots.Of(r.id)
	if !r.w.end.Slots.Claim(slot, generation, b.now) {
		t.Fatal("the call cannot be claimed")
	}
	r.w.end.Inbox.Release()
	b.turn()
	return r
}

func (r *socketRig) open() *fakeSocket {
	r.t.Helper()
	r.w.write(link.WsAccept, 0, r.id, acceptPayload("chat"))
	r.turn()
	if r.a.socket == nil {
		r.t.Fatalf("it was not accepted: %v", r.a.log)
	}
	return r.a.socket
}

// heard reads all records in the inbox.
func (r *socketRig) heard() string {
	r.t.Helper()
	r.turn()
	var list []string
	for {
		record, ok, err := r.w.end.Inbox.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if !ok {
			break
		}
		p := record.Payload
		switch record.Type {
		case link.WsMessage:
			n := binary.LittleEndian.Uint32(p[4:])
			word := fmt.Sprintf("%d %d bytes", binary.LittleEndian.Uint32(p), n)
			if n < 20 {
				word = fmt.Sprintf("%d %s", binary.LittleEndian.Uint32(p), p[8:8+n])
			}
			if record.Flags&link.FlagMore != 0 {
				word += " more"
			}
			list = append(list, word)
		case link.WsClosed:
			n, word := binary.LittleEndian.Uint16(p[2:]), "closed"
			if record.Flags&link.FlagMore != 0 {
				word = "will be closed"
			}
			list = append(list, fmt.Sprintf("%s %d %s", word, binary.LittleEndian.Uint16(p), p[8:8+n]))
		case link.Disconnect:
			list = append(list, "disconnect")
		case link.SendWindow:
			list = append(list, fmt.Sprintf("window %d", binary.LittleEndian.Uint64(p)))
		case link.Drain:
			list = append(list, "drain")
		}
	}
	if r.w.end.Inbox.Release() {
		r.turn() // the core waited for room
	}
	return strings.Join(list, "; ")
}

func (r *socketRig) wantHeard(want string) {
	r.t.Helper()
	if got := r.heard(); got != want {
		r.t.Errorf("the worker heard %q; want %q", got, want)
	}
}

func TestSocketTalks(t *testing.T) {
	r := newSocketRig(t, nil)
	s := r.open()
	r.a.said(t, `accept "chat" 1 fields`)
	r.a.call.(call.WebSocketCall).Message(true, []byte("hello"))
	s.call.Message(false, nil)
	r.wantHeard("1 hello; 2 ")
	r.w.write(link.WsSend, 0, r.id, messagePayload(1, "answer"))
	r.w.write(link.WsSend, link.FlagMore, r.id, messagePayload(2, "in "))
	r.w.write(link.WsSend, 0, r.id, messagePayload(2, "parts"))
	r.turn()
	s.said(t, `send true "answer" false`, `send false "in " true`, `send false "parts" false`)
	s.call.Sent(link.SendWindowStream / 4)
	r.wantHeard(fmt.Sprintf("window %d", link.SendWindowStream/4))
	r.want(observe.CallsInFlight, 1)
}

func TestSocketEnds(t *testing.T) {
	for _, test := range []struct {
		name    string
		end     func(r *socketRig, s *fakeSocket)
		said    string
		heard   string
		counter observe.Counter
	}{
		{"the client closes", func(r *socketRig, s *fakeSocket) { s.call.Closed(1001, []byte("bye")) },
			"", "closed 1001 bye", observe.CallsAnswered},
		{"the client vanishes", func(r *socketRig, s *fakeSocket) { s.call.Leave() },
			"", "disconnect", observe.CallsLeft},
		{"the client breaks the rules", func(r *socketRig, s *fakeSocket) {
			s.call.Message(true, []byte("good"))
			s.call.Failing(1002, []byte("bad"))
			r.wantHeard("1 good; will be closed 1002 bad")
			r.w.write(link.WsSend, 0, r.id, messagePayload(1, "answer"))
			r.w.write(link.WsClose, 0, r.id, closePayload(1000, ""))
		}, `send true "answer" false; close 1000 `, "", observe.CallsAnswered},
		{"the app does not hear that it does", func(r *socketRig, s *fakeSocket) {
			s.call.Failing(1002, []byte("bad"))
			r.wantHeard("will be closed 1002 bad")
			s.call.Closed(1002, []byte("bad"))
		}, "", "closed 1002 bad", observe.CallsAnswered},
		{"a client vanishes that broke them", func(r *socketRig, s *fakeSocket) {
			s.call.Failing(1002, []byte("bad"))
			s.call.Leave()
		}, "", "will be closed 1002 bad; closed 1002 bad", observe.CallsLeft},
		{"the app closes", func(r *socketRig, s *fakeSocket) { r.w.write(link.WsClose, 0, r.id, closePayload(4000, "enough")) },
			"close 4000 enough", "", observe.CallsAnswered},
		{"the app fails", func(r *socketRig, s *fakeSocket) { r.w.write(link.CallFailed, 0, r.id, nil) },
			"fail 500", "", observe.FailedCut},
		{"the worker drains", func(r *socketRig, s *fakeSocket) {
			r.w.SetState(WorkerDraining)
			r.shard.DrainWorker(r.w.Worker)
		}, "restart", "drain; closed 1012 restart", observe.CallsAnswered},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newSocketRig(t, nil)
			r.bench.t = t
			s := r.open()
			test.end(r, s)
			r.wantHeard(test.heard)
			if got := strings.Join(s.log, "; "); got != test.said {
				t.Errorf("the connection was told %q; want %q", got, test.said)
			}
			r.want(test.counter, 1)
			r.want(observe.CallsInFlight, 0)
			// What the app says afterwards goes nowhere, until it is done.
			if test.counter != observe.FailedCut {
				r.w.write(link.WsSend, 0, r.id, messagePayload(1, "late"))
				r.w.write(link.WsCredit, 0, r.id, creditPayload(0, 0))
				r.w.write(link.CallDone, 0, r.id, nil)
			}
			r.turn()
			if got := strings.Join(s.log, "; "); got != test.said {
				t.Errorf("afterwards the connection was told %q; want %q", got, test.said)
			}
			r.want(observe.CallsHeld, 0)
		})
	}
}

func TestSocketOfAWorkerThatDies(t *testing.T) {
	r := newSocketRig(t, nil)
	s := r.open()
	r.w.SetState(WorkerGone)
	r.shard.Detach(r.w.Worker)
	r.turn()
	s.said(t, "fail 502")
	r.want(observe.FailedCut, 1)
	r.want(observe.CallsHeld, 0)
}

// TestSocketAcceptedWhileDraining checks that a worker on its way out keeps no new connection.
func TestSocketAcceptedWhileDraining(t *testing.T) {
	r := newSocketRig(t, nil)
	r.w.SetState(WorkerDraining)
	r.shard.DrainWorker(r.w.Worker)
	s := r.open()
	s.said(t, "restart")
	r.wantHeard("drain; closed 1012 restart")
}

func TestSocketDenied(t *testing.T) {
	r := newSocketRig(t, nil)
	r.w.write(link.Response, link.FlagLast|link.FlagDone, r.id, responsePayload(403, 0, ""))
	r.turn()
	r.a.said(t, `respond 403 0 fields "" true`)
	r.want(observe.CallsAnswered, 1)
	r.want(observe.CallsHeld, 0)
}

func TestSocketAnswerThatCannotBeSent(t *testing.T) {
	r := newSocketRig(t, nil)
	r.a.refuse = true
	r.w.write(link.WsAccept, 0, r.id, acceptPayload("chat"))
	r.w.write(link.WsSend, 0, r.id, messagePayload(1, "into the void"))
	r.wantHeard("disconnect")
	r.w.write(link.CallDone, 0, r.id, nil)
	r.turn()
	r.want(observe.CallsLeft, 1)
	r.want(observe.CallsHeld, 0)
	r.want(observe.LinkViolations, 0)
}

// TestSocketFlow fills the queue of an app that lags.
func TestSocketFlow(t *testing.T) {
	r := newSocketRig(t, nil)
	r.a.early = "early"
	s := r.open()
	count := 1
	for s.call.Ready() {
		s.call.Message(true, []byte("x"))
		count++
	}
	if want := 4 + link.WsCreditMessages - 1; count != want {
		t.Errorf("%d messages until the connection has to wait; want %d", count, want)
	}
	r.w.write(link.WsCredit, 0, r.id, creditPayload(4, 8))
	r.turn()
	s.said(t, "resume")
	if !s.call.Ready() {
		t.Error("there is no room after credit")
	}
	r.wantHeard("1 early" + strings.Repeat("; 1 x", count-1))
	// One large message may pass the window, the next may not.
	s.call.Message(false, make([]byte, link.WsWindow+1))
	if s.call.Ready() {
		t.Error("there is room beyond the window")
	}
}

// A client may close right behind the handshake: that the app receives what came before breaks no rule.
func TestSocketThatWasClosedBeforeItWasAccepted(t *testing.T) {
	r := newSocketRig(t, nil)
	r.a.early, r.a.closes = "early", true
	r.open()
	r.wantHeard("1 early; closed 1000 ")
	r.w.write(link.WsCredit, 0, r.id, creditPayload(1, 5))
	r.w.write(link.CallDone, 0, r.id, nil)
	r.turn()
	if len(r.corrupt) != 0 {
		t.Errorf("the worker was found mad: %v", r.corrupt)
	}
	r.want(observe.CallsAnswered, 1)
	r.want(observe.CallsHeld, 0)
}

// TestSocketLargeMessages sends more than the ring holds; what is left over waits, and its end waits for it.
func TestSocketLargeMessages(t *testing.T) {
	r := newSocketRig(t, nil)
	s := r.open()
	size := 3 << 20
	s.call.Message(false, make([]byte, size))
	s.call.Message(true, []byte("next"))
	s.call.Closed(1000, nil)
	var list []string
	for range 100 {
		if heard := r.heard(); heard != "" {
			list = append(list, strings.Split(heard, "; ")...)
		}
	}
	total, ended := 0, false
	for _, word := range list[:len(list)-2] {
		var opcode, n int
		if _, err := fmt.Sscanf(word, "%d %d bytes", &opcode, &n); err != nil || opcode != 2 || ended {
			t.Fatalf("a part of the message is %q", word)
		}
		ended = !strings.HasSuffix(word, "more")
		total += n
	}
	if total != size || !ended {
		t.Errorf("%d bytes came, ended %v; want %d", total, ended, size)
	}
	if end := strings.Join(list[len(list)-2:], "; "); end != "1 next; closed 1000 " {
		t.Errorf("behind it came %q", end)
	}
}

func TestSocketViolations(t *testing.T) {
	for _, test := range []struct {
		name    string
		open    bool
		kind    uint16
		payload []byte
	}{
		{"send without accept", false, link.WsSend, messagePayload(1, "x")},
		{"close without accept", false, link.WsClose, closePayload(1000, "")},
		{"credit without accept", false, link.WsCredit, creditPayload(0, 0)},
		{"accept twice", true, link.WsAccept, acceptPayload("")},
		{"too much credit", true, link.WsCredit, creditPayload(1, 0)},
		{"too many bytes of credit", true, link.WsCredit, creditPayload(0, 1)},
		{"short accept", false, link.WsAccept, []byte{1}},
		{"accept that does not fit", false, link.WsAccept, []byte("\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00")},
		{"send that does not fit", true, link.WsSend, []byte("\x01\x00\x00\x00\xff\xff\xff\xff")},
		{"close that does not fit", true, link.WsClose, []byte("\xe8\x03\xff\x00\x00\x00\x00\x00")},
		{"a response behind accept", true, link.Response, responsePayload(200, 0, "")},
		{"a body behind accept", true, link.ResponseBody, bodyPayload("x")},
		{"trailers behind accept", true, link.Trailers, make([]byte, 8)},
		{"an unknown record", true, 99, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newSocketRig(t, nil)
			r.bench.t = t
			if test.open {
				r.open()
			}
			r.w.write(test.kind, 0, r.id, test.payload)
			r.turn()
			if len(r.corrupt) != 1 {
				t.Errorf("got %v; want one violation", r.corrupt)
			}
		})
	}
	// An accept of what is no handshake.
	b := newBench(t, nil)
	w := b.worker(1)
	b.start(request())
	b.turn()
	w.write(link.WsAccept, 0, w.read(t, 1, b.now)[0].id, acceptPayload(""))
	b.turn()
	if len(b.corrupt) != 1 {
		t.Errorf("an accept of an HTTP call: got %v; want one violation", b.corrupt)
	}
}

// A message that is written into its place comes in order with those that are handed over, whether there is room or not.
func TestMessagesInTheirPlaces(t *testing.T) {
	r := newSocketRig(t, nil)
	r.open()
	c := r.a.call.(*Call)
	placed, sent, seen := 0, 0, 0
	for sent < 400 {
		for range 20 { // more than fits
			message := bytes.Repeat([]byte{byte(sent)}, 1+sent%250*300)
			if place := c.PlaceMessage(false, len(message)); place != nil {
				placed++
				copy(place, message)
			} else {
				c.Message(false, message)
			}
			sent++
		}
		for idle := 0; seen < sent; idle++ {
			if idle == 100 {
				t.Fatalf("message %d does not come", seen)
			}
			r.turn()
			for {
				record, ok, err := r.w.end.Inbox.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				n := binary.LittleEndian.Uint32(record.Payload[4:])
				if want := bytes.Repeat([]byte{byte(seen)}, int(n)); !bytes.Equal(record.Payload[8:8+n], want) {
					t.Fatalf("message %d is another one", seen)
				}
				if record.Flags&link.FlagMore == 0 {
					seen++
				}
			}
			r.w.end.Inbox.Release()
		}
	}
	if placed == 0 || placed == sent {
		t.Errorf("%d of %d messages had a place; want some", placed, sent)
	}
}

// The messages that wait for a full inbox are bounded in all, whatever each connection may have; they all arrive.
func TestMessagesThatWaitAreBounded(t *testing.T) {
	const size, sockets = 4 << 20, 40
	r := newSocketRig(t, nil)
	calls := []*Call{r.a.call.(*Call)}
	for range sockets - 1 {
		request := request()
		request.WebSocket, request.Scheme = true, call.WS
		a := &fakeHandshake{}
		a.call = r.shard.Start(request, a)
		calls = append(calls, a.call.(*Call))
	}
	r.turn()
	ids := []uint64{r.id}
	for {
		record, ok, err := r.w.end.Inbox.Next()
		if !ok || err != nil {
			break
		}
		slot, generation, _ := r.w.end.Slots.Of(record.Call)
		r.w.end.Slots.Claim(slot, generation, r.now)
		ids = append(ids, record.Call)
	}
	r.w.end.Inbox.Release()
	if len(ids) != sockets {
		t.Fatalf("%d handshakes were begun; want %d", len(ids), sockets)
	}
	for _, id := range ids {
		r.w.write(link.WsAccept, 0, id, acceptPayload(""))
		r.turn()
	}
	sent := 0
	for _, c := range calls {
		if c.Ready() {
			c.Message(false, make([]byte, size))
			sent++
		}
	}
	if most := mostMessages/size + 2; sent > most || sent < most/2 {
		t.Errorf("%d connections handed over a message of %d bytes; want about %d", sent, size, most)
	}
	calls[sent].Leave() // while it waits
	// Another worker's connections have nothing to do with it.
	r.w.SetState(WorkerDraining)
	r.worker(2)
	other := &fakeHandshake{}
	request := request()
	request.WebSocket = true
	other.call = r.shard.Start(request, other)
	r.turn()
	c := other.call.(*Call)
	c.socket = &socket{port: c.port}
	if c.port == r.shard.ports[0] || !c.Ready() {
		t.Error("a connection of another worker has to wait")
	}
	c.socket = nil
	r.w.SetState(WorkerReady)
	resumed := func() (n int) {
		for _, c := range calls {
			if c.socket != nil && !c.state.ended() {
				n += strings.Count(strings.Join(c.socket.conn.(*fakeSocket).log, ";"), "resume")
			}
		}
		return n
	}
	for range 10_000 {
		for {
			if _, ok, err := r.w.end.Inbox.Next(); !ok || err != nil {
				break
			}
		}
		if r.w.end.Inbox.Release(); r.shard.ports[0].messages == 0 {
			break
		}
		r.turn()
	}
	r.turn()
	if want := sockets - sent - 1; resumed() != want || len(r.shard.ports[0].crowded) != 0 {
		t.Errorf("%d connections went on, %d still wait; want %d and none", resumed(), len(r.shard.ports[0].crowded), want)
	}
	if r.shard.ports[0].messages != 0 {
		t.Errorf("%d bytes wait for ever", r.shard.ports[0].messages)
	}
}

// Messages that the app does not receive, and those that a client does not read, are in the budgets.
func TestBudgetsForMessages(t *testing.T) {
	bodies, outputs := memory.NewBudget(100<<10), memory.NewBudget(100<<10)
	r := newSocketRig(t, func(s *Settings) { s.Bodies, s.Outputs = bodies, outputs })
	r.w.write(link.WsAccept, 0, r.id, acceptPayload(""))
	r.turn()
	c := r.a.call.(*Call)
	conn := &resuming{}
	c.socket.conn = conn
	bodies.Add(200 << 10) // others
	for sent := 0; c.Ready(); sent++ {
		if sent > 4 {
			t.Fatal("it is read on although the budget is overdrawn")
		}
		c.Message(false, make([]byte, 3<<10))
	}
	if used := bodies.Used(); used != 202<<10 {
		t.Errorf("%d bytes are held; want what was there and what is beyond the first 4 KiB", used)
	}
	r.turn()
	r.want(observe.MemoryReadsPaused, 1)
	bodies.Add(-200 << 10)
	r.tick(20 * time.Millisecond)
	if conn.resumed != 1 || !c.Ready() {
		t.Errorf("it was resumed %d times; want once, when there is room", conn.resumed)
	}
	credit := binary.LittleEndian.AppendUint32(nil, 1)
	r.w.write(link.WsCredit, 0, r.id, binary.LittleEndian.AppendUint32(credit, 3<<10))
	r.turn()
	if used := bodies.Used(); used != 0 {
		t.Errorf("%d bytes are held; want none once the app has received them", used)
	}

	message := binary.LittleEndian.AppendUint32(nil, 2)
	message = append(binary.LittleEndian.AppendUint32(message, 20<<10), make([]byte, 20<<10)...)
	for range 2 {
		r.w.write(link.WsSend, 0, r.id, message)
	}
	r.turn()
	outputs.Add(200 << 10) // others
	c.Sent(20<<10 + call.SendCost)
	if c.acked == 0 {
		t.Error("the app may send more while the budget is overdrawn and something of it waits")
	}
	c.Sent(20<<10 + call.SendCost)
	if c.acked != 0 || c.inCore != 0 {
		t.Errorf("the app may not send although nothing of it waits: %d bytes", c.inCore)
	}
}

// resuming is a connection that reads on when it is told to.
type resuming struct {
	fakeSocket
	resumed int
}

func (s *resuming) Resume() { s.resumed++ }

// Large messages that the app has not received are bounded in all, once the budget is overdrawn: each connection may
// have one, however large.
func TestLargeMessagesAreBounded(t *testing.T) {
	budget := memory.NewBudget(100 << 10)
	r := newSocketRig(t, func(s *Settings) { s.Bodies = budget })
	r.w.write(link.WsAccept, 0, r.id, acceptPayload(""))
	r.turn()
	c, p := r.a.call.(*Call), r.shard.ports[0]
	other := &Call{shard: r.shard, state: answering, port: p, socket: &socket{port: p}}
	conn := &resuming{}
	other.socket.conn = conn
	c.countMessage(mostMessages + tightBody + 1)
	if c.Ready() || other.Ready() {
		t.Error("a connection takes one more")
	}
	c.hold(-mostMessages/2 - 1)
	r.turn()
	if conn.resumed != 1 || !other.Ready() {
		t.Errorf("it was resumed %d times; want once, when half of it was received", conn.resumed)
	}
	c.dropSocket()
	if p.large != 0 || c.charged != 0 {
		t.Errorf("%d and %d bytes are counted at the end; want none", p.large, c.charged)
	}
	c.socket = nil
}
