package websocket

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzSession feeds whatever comes, cut as moves says, with an app that echoes, lags and
// closes. However it is cut, a client's bytes mean the same; what is written is always
// frames; and a connection that is over holds nothing.
func FuzzSession(f *testing.F) {
	for i, v := range vectors {
		if len(v.in) < 1000 {
			f.Add(v.in, []byte{byte(i), 3, 1, 7}, i%2 == 0)
		}
	}
	f.Add(join(raw(finBit|rsv1Bit|opText, deflated("Hello")), raw(rsv1Bit|opBinary, deflated("abc")[:2]), ping("p"),
		last(deflated("abc")[2:])), []byte{2}, true)
	f.Fuzz(func(t *testing.T, in, moves []byte, deflate bool) {
		if len(in) > 1<<16 {
			return
		}
		small := func(c *Config) { c.MaxSize = 2000 }
		whole := newRig(t, deflate, small)
		whole.app.on = func(text bool, b []byte) {
			if text && !utf8.Valid(b) {
				t.Fatalf("text %x is not UTF-8", b)
			}
			if len(b) > 2000 {
				t.Fatalf("a message of %d bytes", len(b))
			}
			whole.Send(text, b, false)
		}
		whole.send(in, 1<<20)

		cut := newRig(t, deflate, small)
		cut.app.on = func(text bool, b []byte) { cut.Send(text, b, false) }
		cut.app.limit = len(moves)%2 == 1
		rest := in
		for i := 0; len(rest) > 0 && cut.wire.closed == ""; i++ {
			n := 1
			if len(moves) > 0 {
				n = 1 + int(moves[i%len(moves)])
			}
			if cut.wire.paused {
				cut.app.room = 1 + n%3
				cut.Resume()
				cut.flush()
				continue
			}
			n = min(n, len(rest))
			cut.send(rest[:n], n)
			rest = rest[n:]
		}
		for range len(in) + 1 {
			cut.app.room = 10
			cut.Resume()
			cut.flush()
		}
		if got, want := strings.Join(cut.app.heard, "; "), strings.Join(whole.app.heard, "; "); got != want {
			t.Errorf("cut by %v the app heard %q; want %q", moves, got, want)
		}
		if got, want := strings.Join(readFrames(t, cut.wire.out), "; "), strings.Join(readFrames(t, whole.wire.out), "; "); got != want {
			t.Errorf("cut by %v the client got %q; want %q", moves, got, want)
		}
		for _, r := range []*rig{whole, cut} {
			if r.wire.closed == "" {
				r.Lost()
			}
			if p := &r.config.pool; r.in != nil || r.rest != nil || p.partial != 0 || len(p.holders) != 0 {
				t.Errorf("it holds %d bytes when it is over", p.partial)
			}
		}
	})
}

// FuzzHeader checks the scanner against the rules of RFC 6455 5.2, written down once more.
func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x81, 0x85, 1, 2, 3, 4}, byte(0), false)
	f.Add([]byte{0x82, 0xfe, 0, 126, 1, 2, 3, 4}, byte(0), true)
	f.Add([]byte{0x80, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4}, byte(1), true)
	f.Fuzz(func(t *testing.T, b []byte, message byte, deflate bool) {
		s := scanner{maxSize: 1 << 20, deflate: deflate, message: message % 3}
		var whole frame
		size, v := s.header(b, &whole)
		if v != nil && size != 0 {
			t.Fatal("a violation with a size")
		}
		if size > len(b) || size > maxHeader {
			t.Fatalf("a header of %d bytes in %d", size, len(b))
		}
		if size > 0 {
			if whole.length > s.maxSize || whole.control() && (whole.length > maxControl || !whole.fin) {
				t.Fatalf("accepted %+v", whole)
			}
			if !whole.control() && (whole.opcode == opContinuation) != (s.message != 0) {
				t.Fatalf("accepted opcode %d inside %d", whole.opcode, s.message)
			}
		}
		// A prefix is never judged otherwise: it is incomplete, or refused alike.
		for n := range min(len(b), maxHeader) {
			var part frame
			if got, w := s.header(b[:n], &part); got == 0 && w != nil && w != v || got != 0 && got != size {
				t.Fatalf("%d bytes of it: size %d, %v; whole: size %d, %v", n, got, w, size, v)
			}
		}
	})
}

// FuzzDeflateOffer checks that no offer is granted that this side cannot keep.
func FuzzDeflateOffer(f *testing.F) {
	for _, test := range offers {
		f.Add(test.offer)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d := chooseDeflate([]byte(value))
		if d.on && !strings.Contains(value, "permessage-deflate") {
			t.Errorf("granted %q", value)
		}
		if d.window && !strings.Contains(value, "server_max_window_bits") {
			t.Errorf("named a window that %q does not", value)
		}
	})
}
