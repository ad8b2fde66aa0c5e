package websocket

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
)

// wireFake is a carrier that keeps what was written. taken bytes of it have left.
type wireFake struct {
	now      int64
	out      []byte
	taken    int
	paused   bool
	deadline int64
	closed   string // "close" or "abort"
	stuck    bool   // the peer takes nothing
	takenAt  int64
	looked   func() // is called before TakenAt answers; may be nil
}

func (w *wireFake) Now() int64                { return w.now }
func (w *wireFake) Buffer() []byte            { return w.out }
func (w *wireFake) CommitBody(b, body []byte) { w.Commit(append(b, body...)) }
func (w *wireFake) Commit(b []byte)           { w.out = b }
func (w *wireFake) Buffered() int             { return len(w.out) - w.taken }
func (w *wireFake) Pause()                    { w.paused = true }
func (w *wireFake) Resume()                   { w.paused = false }
func (w *wireFake) Deadline(at int64)         { w.deadline = at }
func (w *wireFake) Idle(bool)                 {}
func (w *wireFake) Close()                    { w.closed = "close" }
func (w *wireFake) Abort()                    { w.closed = "abort" }

func (w *wireFake) TakenAt() int64 {
	if w.looked != nil {
		w.looked()
	}
	return w.takenAt
}

// callFake is the app: it writes down what it hears.
type callFake struct {
	heard []string
	room  int // messages that may be forwarded, with limited
	limit bool
	sent  int
	on    func(text bool, b []byte)
	conn  call.WebSocket
	slow  bool // it does not hear that its connection fails
}

func (c *callFake) Body([]byte, bool) {}
func (c *callFake) Room() int         { return 1 }
func (c *callFake) Sent(n int)        { c.sent += n }
func (c *callFake) Leave()            { c.heard = append(c.heard, "left") }
func (c *callFake) Ready() bool       { return !c.limit || c.room > 0 }

func (c *callFake) Message(text bool, b []byte) {
	c.room--
	kind := "binary"
	if text {
		kind = "text"
	}
	if len(b) > 40 {
		c.heard = append(c.heard, fmt.Sprintf("%s of %d bytes", kind, len(b)))
	} else {
		c.heard = append(c.heard, strings.TrimRight(kind+" "+string(b), " "))
	}
	if c.on != nil {
		c.on(text, b)
	}
}

func (c *callFake) Failing(code int, reason []byte) {
	if !c.slow {
		c.Closed(code, reason)
		c.conn.CloseWith(1000, nil)
	}
}

func (c *callFake) Closed(code int, reason []byte) {
	c.heard = append(c.heard, strings.TrimSpace(fmt.Sprintf("closed %d %s", code, reason)))
}

// rig is a connection with both of its ends played by the test.
type rig struct {
	*Conn
	t      testing.TB
	wire   *wireFake
	app    *callFake
	counts [NumEvents]int
}

func newRig(t testing.TB, deflate bool, change ...func(*Config)) *rig {
	config := NewConfig()
	r := &rig{t: t, wire: &wireFake{now: int64(time.Hour)}, app: &callFake{}}
	config.Count = func(e Event) { r.counts[e]++ }
	for _, f := range change {
		f(config)
	}
	r.open(config, deflate)
	return r
}

func (r *rig) open(config *Config, deflate bool) {
	r.Conn = newConn(config, r.wire, r.app, deflate)
	r.app.conn = r.Conn
}

// send feeds bytes, at most n at a time, as the poll loop would; paused ones wait for ever.
func (r *rig) send(b []byte, n int) {
	for len(b) > 0 && r.wire.closed == "" && !r.wire.paused {
		piece := bytes.Clone(b[:min(n, len(b))])
		b = b[len(piece):]
		r.Receive(piece)
		for i := range piece {
			piece[i] = 0xee // nobody may have kept it
		}
		r.flush()
	}
}

// flush has the peer take all output.
func (r *rig) flush() {
	if n := r.wire.Buffered(); n > 0 && !r.wire.stuck {
		r.wire.taken += n
		if r.wire.closed == "" {
			r.Sent(n)
		}
	}
}

// pass lets time go by, as a carrier does.
func (r *rig) pass(d time.Duration) {
	end := r.wire.now + int64(d)
	for r.wire.deadline != 0 && r.wire.deadline <= end && r.wire.closed == "" {
		r.wire.now = r.wire.deadline
		r.wire.deadline = 0
		r.Timeout()
		r.flush()
	}
	r.wire.now = end
}

func (r *rig) wantHeard(want ...string) {
	r.t.Helper()
	if got := strings.Join(r.app.heard, "; "); got != strings.Join(want, "; ") {
		r.t.Errorf("the app heard %q; want %q", got, strings.Join(want, "; "))
	}
}

// wantFrames compares what was written, frame by frame: "text hello", "ping ", "close 1000 bye".
func (r *rig) wantFrames(want ...string) {
	r.t.Helper()
	got := strings.Join(readFrames(r.t, r.wire.out), "; ")
	if got != strings.Join(want, "; ") {
		r.t.Errorf("frames written: %q; want %q", got, strings.Join(want, "; "))
	}
}

func (r *rig) wantClosed(want string) {
	r.t.Helper()
	if r.wire.closed != want {
		r.t.Errorf("the connection's end is %q; want %q", r.wire.closed, want)
	}
}

var opcodeNames = map[byte]string{0: "more", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}

// readFrames reads a server's frames, which are not masked.
func readFrames(t testing.TB, b []byte) []string {
	t.Helper()
	var list []string
	for len(b) > 0 {
		if len(b) < 2 || b[1]&maskBit != 0 {
			t.Fatalf("output %x is no frame of a server", b)
		}
		length, size := int(b[1]), 2
		switch length {
		case 126:
			length, size = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			length, size = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		payload := b[size : size+length]
		text := opcodeNames[b[0]&0xf]
		if b[0]&finBit == 0 {
			text += "+"
		}
		if b[0]&rsv1Bit != 0 {
			text += "*"
		}
		switch {
		case b[0]&0xf == opClose && length >= 2:
			text += strings.TrimRight(fmt.Sprintf(" %d %s", binary.BigEndian.Uint16(payload), payload[2:]), " ")
		case length > 40:
			text += fmt.Sprintf(" of %d bytes", length)
		case length > 0:
			text += " " + string(payload)
		}
		list = append(list, text)
		b = b[size+length:]
	}
	return list
}

var testKey = [4]byte{0x37, 0xfa, 0x21, 0x3d} // RFC 6455 5.7

// raw is a client's frame with this first byte.
func raw(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, maskBit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	b = append(b, testKey[:]...)
	at := len(b)
	b = append(b, payload...)
	for i := range b[at:] {
		b[at+i] ^= testKey[i&3]
	}
	return b
}

func text(s string) []byte       { return raw(finBit|opText, s) }
func binaryOf(s string) []byte   { return raw(finBit|opBinary, s) }
func ping(s string) []byte       { return raw(finBit|opPing, s) }
func first(s string) []byte      { return raw(opText, s) }
func more(s string) []byte       { return raw(opContinuation, s) }
func last(s string) []byte       { return raw(finBit|opContinuation, s) }
func closeFrame(b string) []byte { return raw(finBit|opClose, b) }

func closeWith(code int, reason string) []byte {
	return closeFrame(string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var _ call.WebSocketCall = (*callFake)(nil)
