package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	"spvn/gosrc/call"
)

// FuzzHead checks that a head means the same however it is cut, that what is taken is
// clean, and that net/http takes it too.
func FuzzHead(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.in), uint16(len(v.in)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		cfg := DefaultConfig()
		cfg.LimitRequestLine, cfg.LimitHeaderBytes, cfg.LimitHeaderCount = 200, 400, 8
		parse := func(pieces ...int) (int, *Refusal, *head) {
			h := cfg.Pool.head()
			for _, end := range pieces {
				if n, r := h.parse(in[:end:end], cfg); n != 0 || r != nil {
					if r == nil {
						r = h.check(cfg)
					}
					return n, r, h
				}
			}
			return 0, nil, h
		}
		var every []int
		for i := range in {
			every = append(every, i+1)
		}
		n, r, h := parse(len(in))
		for _, pieces := range [][]int{every, {int(cut) % (len(in) + 1), len(in)}} {
			n2, r2, h2 := parse(pieces...)
			if n != n2 || r != r2 || fmt.Sprintf("%s", h.fields) != fmt.Sprintf("%s", h2.fields) {
				t.Fatalf("whole: %d %v %s; in pieces: %d %v %s", n, r, h.fields, n2, r2, h2.fields)
			}
		}
		if n == 0 || r != nil {
			return
		}
		if !bytes.HasSuffix(in[:n], []byte("\r\n\r\n")) {
			t.Errorf("the head ends with %q", in[:n])
		}
		if !validToken(h.method) || len(h.path) == 0 || len(h.fields) > cfg.LimitHeaderCount {
			t.Errorf("method %q, path %q, %d fields", h.method, h.path, len(h.fields))
		}
		for i := range h.fields {
			field := h.fields[i]
			if invalidField(&field) != "" || string(bytes.ToLower(field.Name)) != string(field.Name) || len(trim(field.Value)) != len(field.Value) {
				t.Errorf("field %q: %q", field.Name, field.Value)
			}
		}
		if bytes.IndexByte(h.authority, '%') >= 0 {
			return // RFC 3986 has percent-encoding in hosts, net/http hardly any
		}
		if _, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in))); err != nil {
			t.Errorf("%q: taken; net/http says %v", in[:n], err)
		}
	})
}

// FuzzChunked checks that a chunked body is the same however it is cut, and the one that
// net/http reads.
func FuzzChunked(f *testing.F) {
	for _, v := range vectors {
		if _, b, ok := strings.Cut(v.in, te+"\r\n"); ok {
			f.Add([]byte(b), uint8(3))
		}
	}
	cfg := DefaultConfig()
	cfg.LimitChunkExtensions, cfg.LimitTrailers, cfg.LimitBody = 30, 30, 1000
	read := func(in []byte, step int) (data []byte, used int, done bool, r *Refusal) {
		var d body
		d.startChunked()
		for used < len(in) && !d.done() {
			n, b, r := d.next(in[used:min(len(in), used+step)], cfg)
			if r != nil {
				return data, 0, false, r
			}
			data = append(data, b...)
			used += n
		}
		return data, used, d.done(), nil
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		data, used, done, r := read(in, len(in)+1)
		data2, used2, done2, r2 := read(in, int(step)+1)
		if !bytes.Equal(data, data2) || used != used2 || done != done2 || r != r2 {
			t.Fatalf("whole: %q %d %v %v; in pieces: %q %d %v %v", data, used, done, r, data2, used2, done2, r2)
		}
		if len(data) > int(cfg.LimitBody) {
			t.Errorf("%d bytes of body; the limit is %d", len(data), cfg.LimitBody)
		}
		if !done {
			return
		}
		if want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in))); err != nil || !bytes.Equal(data, want) {
			t.Errorf("body is %q; net/http reads %q, %v", data, want, err)
		}
	})
}

// FuzzConn plays a whole connection: moves says how the input is cut and what app, kernel
// and clock do in between. Whatever happens, no rule of the seams is broken (the fakes
// check), calls are left or answered, and the client reads a sequence of answers.
func FuzzConn(f *testing.F) {
	for i, v := range vectors {
		f.Add([]byte(v.in+get), []byte{byte(i), 3, 5, 2, byte(i) * 7, 4, 11, 9})
	}
	f.Fuzz(func(t *testing.T, in, moves []byte) {
		r := newRig(t, func(c *Config) {
			c.LimitBody, c.LimitDiscard, c.LimitHeaderBytes = 500, 50, 500
			c.WebSockets = anySockets{}
		})
		r.app.room = 20
		r.app.start = func(c *appCall) bool {
			if len(c.path)%5 == 4 {
				c.answer.Fail(503, "busy", 1)
				return false
			}
			return true
		}
		over := map[*appCall]bool{}  // the app has answered
		begun := map[*appCall]bool{} // its answer has begun
		play := func(move byte) {
			if len(r.app.calls) == 0 {
				return
			}
			c := r.app.calls[len(r.app.calls)-1]
			if over[c] || c.left || r.call == nil {
				return
			}
			last := move&64 != 0
			data := []byte("answer"[:move%7])
			switch {
			case move%11 == 0:
				over[c] = true
				c.answer.Fail(500, "failed", 0)
			case move%11 == 1:
				c.answer.Continue()
			case move%11 == 2 && !begun[c]:
				c.answer.Informational(103, nil)
			case move%11 == 3:
				c.room = 20
				c.answer.Resume()
			case begun[c]:
				over[c] = last
				c.answer.RespondBody(data, last)
			default:
				begun[c] = true
				over[c] = last
				var fields []call.Field
				if move%3 == 0 {
					fields = []call.Field{field("content-length", "6")}
				}
				c.answer.Respond(200+int(move%2)*4, fields, data, last, false)
			}
		}
		for i := 0; len(in) > 0 && !r.wire.closed && !r.wire.aborted; i++ {
			if i > 2*len(in)+len(moves)+20 {
				break
			}
			move := byte(64 + 5)
			if i < len(moves) {
				move = moves[i]
			}
			switch {
			case move%4 == 0 && !r.wire.paused:
				n := min(1+int(move>>2), len(in))
				r.send(string(in[:n]))
				in = in[n:]
			case move == 255:
				r.PeerClosed(i%2 == 0, i%5)
				in = nil
			case move == 254 && r.wire.deadline != 0:
				r.wire.now = r.wire.deadline
				r.Timeout()
			case move == 253:
				r.Drain()
			case move%4 == 1:
				r.flush(int(move))
			default:
				play(move)
			}
		}
		if r.call != nil && r.answering == answerDue && r.body.done() != r.app.calls[len(r.app.calls)-1].bodyLast {
			t.Error("connection and call do not agree whether the body is complete")
		}
		if !r.wire.closed && !r.wire.aborted {
			r.Lost()
		}
		for i, c := range r.app.calls {
			if i < len(r.app.calls)-1 && c.bodyLast == false && !c.left && !over[c] && len(c.path)%5 != 4 {
				t.Errorf("call %d neither ended nor left", i)
			}
		}
		if r.in != nil || r.head != nil || r.Conn.call != nil {
			t.Error("the connection is over and holds on to something")
		}
		answers(t, r)
	})
}

// answers reads what the client got. Only the last answer may be incomplete, and only if
// the connection was lost or cut.
func answers(t *testing.T, r *rig) {
	out := bufio.NewReader(strings.NewReader(r.output()))
	for i := 0; ; i++ {
		if _, err := out.Peek(1); err != nil {
			return
		}
		request := &http.Request{Method: "GET"}
		if i < len(r.app.calls) {
			request.Method = r.app.calls[i].method
		}
		for {
			a, err := http.ReadResponse(out, request)
			if err != nil {
				if r.wire.closed && !r.peerDone {
					t.Errorf("answer %d of %q: %v", i, r.wire.taken, err)
				}
				return
			}
			if a.StatusCode >= 200 {
				if _, err := io.ReadAll(a.Body); err != nil && r.wire.closed && !r.peerDone {
					t.Errorf("answer %d of %q: %v", i, r.wire.taken, err)
				}
				break
			}
		}
	}
}
