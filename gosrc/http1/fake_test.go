package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/call"
)

// wire is a carrier whose kernel takes what a test lets it take.
type wire struct {
	t         testing.TB
	now       int64
	out       []byte // committed and not taken
	taken     []byte // what the peer has read
	deadline  int64
	paused    bool
	idle      bool
	closed    bool
	aborted   bool
	deadlines int
}

func (w *wire) Now() int64                { return w.now }
func (w *wire) Buffer() []byte            { return w.out }
func (w *wire) CommitBody(b, body []byte) { w.Commit(append(b, body...)) }
func (w *wire) Commit(b []byte) {
	if !w.closed && !w.aborted {
		w.out = b
	}
}
func (w *wire) Buffered() int     { return len(w.out) }
func (w *wire) TakenAt() int64    { return 0 }
func (w *wire) Pause()            { w.set(&w.paused, true, "Pause") }
func (w *wire) Resume()           { w.set(&w.paused, false, "Resume") }
func (w *wire) Deadline(at int64) { w.deadline = at; w.deadlines++ }
func (w *wire) Idle(idle bool)    { w.idle = idle }
func (w *wire) Close()            { w.set(&w.closed, true, "Close") }
func (w *wire) Abort()            { w.set(&w.aborted, true, "Abort"); w.out = nil }

func (w *wire) set(flag *bool, value bool, what string) {
	if *flag == value && w.t != nil {
		w.t.Errorf("%s was called twice", what)
	}
	*flag = value
}

// appCall is one call that a test's app got.
type appCall struct {
	answer   call.Answer
	method   string
	path     string
	rawPath  string
	query    string
	scheme   string
	version  uint8
	client   call.Addr
	fields   []string
	body     []byte
	bodyLast bool
	wait     bool // for 100 (Continue)
	ws       bool
	left     bool
	sent     int
	room     int
	onBody   func(c *appCall)
	place    []byte // what Place returned and Placed is due for
}

// Place has every other part of a body come by Body, in turns.
func (c *appCall) Place(n int) []byte {
	if c.place != nil || c.bodyLast || c.left {
		panic("Place, but not for the next part of a body")
	}
	if len(c.body)%3 == 1 || c.room <= 0 {
		return nil
	}
	c.place = make([]byte, min(n, 11))
	return c.place
}

func (c *appCall) Placed(n int, last bool) {
	b := c.place[:n]
	c.place = nil
	if n > 0 {
		c.Body(b, last)
	}
}

func (c *appCall) Body(b []byte, last bool) {
	if c.bodyLast || c.left {
		panic("Body behind the end")
	}
	c.body = append(c.body, b...)
	c.bodyLast = last
	c.room -= len(b)
	if c.onBody != nil {
		c.onBody(c)
	}
}
func (c *appCall) Room() int { return c.room }
func (c *appCall) Sent(n int) {
	if n <= 0 {
		panic("Sent of nothing")
	}
	c.sent += n
}
func (c *appCall) Leave() {
	if c.left {
		panic("left twice")
	}
	c.left = true
}

// anySockets grants whatever looks like a handshake.
type anySockets struct{ handshake }

type handshake = call.Handshake

func (s anySockets) Handshake(r *call.Request, upgrade bool) (call.Handshake, *call.HandshakeError) {
	if !upgrade || string(r.Method) != "GET" || !r.BodyLast || len(r.Body) > 0 {
		return nil, nil
	}
	return s, nil
}

// app is a dispatcher that records calls; start, if there is one, answers them at once and
// says whether the call goes on.
type app struct {
	calls []*appCall
	room  int
	start func(c *appCall) bool
}

func (a *app) Start(r *call.Request, answer call.Answer) call.Call {
	c := &appCall{
		answer: answer, method: string(r.Method), path: string(r.Path), rawPath: string(r.RawPath),
		query: string(r.Query), scheme: r.Scheme.String(), version: r.Version, client: r.Client,
		body: bytes.Clone(r.Body), bodyLast: r.BodyLast, wait: r.Continue, ws: r.WebSocket, room: a.room,
	}
	c.client.Host = strings.Clone(r.Client.Host)
	for _, f := range r.Fields {
		c.fields = append(c.fields, string(f.Name)+": "+string(f.Value))
	}
	c.room -= len(c.body)
	a.calls = append(a.calls, c)
	if a.start != nil && !a.start(c) {
		return nil
	}
	return c
}

// rig is a connection between a fake client and a fake app.
type rig struct {
	*Conn
	t       testing.TB
	cfg     *Config
	wire    *wire
	app     *app
	refused []string
	logged  []string
}

const testDate = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

func newRig(t testing.TB, change ...func(*Config)) *rig {
	r := &rig{t: t, cfg: DefaultConfig(), wire: &wire{t: t, now: int64(time.Hour)}, app: &app{room: 1 << 16}}
	r.cfg.Date, r.cfg.Server = false, ""
	r.cfg.Clock = func() time.Time { return time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC) }
	r.cfg.Refused = func(why *Refusal, _ call.Addr, inCall bool) {
		r.refused = append(r.refused, fmt.Sprintf("%d %v", why.Status, inCall))
	}
	r.cfg.Log = func(level, message string) { r.logged = append(r.logged, level+": "+message) }
	for _, f := range change {
		f(r.cfg)
	}
	r.Conn = New(r.cfg, r.wire, r.app, call.Addr{Host: "192.0.2.1", Port: 1234}, call.Addr{Host: "192.0.2.2", Port: 80}, call.HTTP)
	return r
}

// send gives bytes to the connection as memory that is overwritten afterwards: in one read, and more before that if
// it has a place for some of them.
func (r *rig) send(s string) {
	b := []byte(s)
	for target := r.Target(); target != nil; target = r.Target() {
		n := copy(target, b)
		r.Landed(n)
		if b = b[n:]; len(b) == 0 || r.wire.paused || r.wire.closed || r.wire.aborted {
			break
		}
	}
	if len(b) == 0 {
		return
	}
	r.Receive(b)
	for i := range b {
		b[i] = 0xee
	}
}

// sendIn gives bytes in pieces of n, as long as the connection wants them.
func (r *rig) sendIn(s string, n int) {
	for len(s) > 0 && !r.wire.closed && !r.wire.aborted && !r.wire.paused {
		k := min(n, len(s))
		r.send(s[:k])
		s = s[k:]
	}
}

// flush lets the kernel take n bytes; all if n is negative.
func (r *rig) flush(n int) {
	w := r.wire
	if n < 0 || n > len(w.out) {
		n = len(w.out)
	}
	if n == 0 {
		return
	}
	w.taken = append(w.taken, w.out[:n]...)
	w.out = append([]byte(nil), w.out[n:]...)
	if !w.closed && !w.aborted {
		r.Sent(n)
	}
}

// read lets the kernel take all output, and what comes because it did.
func (r *rig) read() {
	for len(r.wire.out) > 0 {
		r.flush(-1)
	}
}

// output is everything that was written so far.
func (r *rig) output() string {
	r.flush(-1)
	return string(r.wire.taken)
}

func (r *rig) wantOutput(want string) {
	r.t.Helper()
	if got := r.output(); got != want {
		r.t.Errorf("output is\n%q; want\n%q", got, want)
	}
}

func (r *rig) wantStatus(status int) {
	r.t.Helper()
	out := r.output()
	if !strings.HasPrefix(out, fmt.Sprintf("HTTP/1.1 %d ", status)) {
		r.t.Errorf("output is %q; want status %d", out, status)
	}
}

func (r *rig) wantEnd(closed, aborted bool) {
	r.t.Helper()
	if r.wire.closed != closed || r.wire.aborted != aborted {
		r.t.Errorf("closed %v, aborted %v; want %v, %v", r.wire.closed, r.wire.aborted, closed, aborted)
	}
}

// last is the last call; it ends the test if there were not n.
func (r *rig) last(n int) *appCall {
	r.t.Helper()
	if len(r.app.calls) != n {
		r.t.Fatalf("%d calls; want %d (output %q)", len(r.app.calls), n, r.output())
	}
	return r.app.calls[n-1]
}

func (c *appCall) ok(body string) {
	c.answer.Respond(200, nil, []byte(body), true, false)
}

func field(name, value string) call.Field {
	return call.Field{Name: []byte(name), Value: []byte(value)}
}

const get = "GET /hello?a=b HTTP/1.1\r\nHost: example.com\r\n\r\n"
