package websocket

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// vectors are rules of RFC 6455 5 to 7, each with what the app hears and what the client
// gets. Every one is sent whole, in threes, and byte by byte.
var vectors = []struct {
	name   string
	in     []byte
	heard  string
	frames string
	closed string
}{
	// 5.2 Base framing, 5.6 Data frames
	{"empty text", text(""), "text", "", ""},
	{"text", text("Hello"), "text Hello", "", ""},
	{"text of the RFC", []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}, "text Hello", "", ""},
	{"binary", binaryOf("\x00\xff"), "binary \x00\xff", "", ""},
	{"length 125", text(strings.Repeat("a", 125)), "text of 125 bytes", "", ""},
	{"length 126", text(strings.Repeat("a", 126)), "text of 126 bytes", "", ""},
	{"length 65535", binaryOf(strings.Repeat("a", 65535)), "binary of 65535 bytes", "", ""},
	{"length 65536", binaryOf(strings.Repeat("a", 65536)), "binary of 65536 bytes", "", ""},
	{"two messages", join(text("a"), binaryOf("b")), "text a; binary b", "", ""},
	{"not masked", []byte{0x81, 1, 'a'}, "closed 1002 " + notMasked.reason, "close 1002 " + notMasked.reason, "close"},
	{"RSV1", raw(finBit|rsv1Bit|opText, "a"), "closed 1002 " + badReserved.reason, "close 1002 " + badReserved.reason, "close"},
	{"RSV2", raw(finBit|0x20|opText, "a"), "closed 1002 " + badReserved.reason, "close 1002 " + badReserved.reason, "close"},
	{"RSV3", raw(finBit|0x10|opPing, "a"), "closed 1002 " + badReserved.reason, "close 1002 " + badReserved.reason, "close"},
	{"opcode 3", raw(finBit|3, ""), "closed 1002 " + badOpcode.reason, "close 1002 " + badOpcode.reason, "close"},
	{"opcode 7", raw(finBit|7, ""), "closed 1002 " + badOpcode.reason, "close 1002 " + badOpcode.reason, "close"},
	{"opcode 11", raw(finBit|11, ""), "closed 1002 " + badOpcode.reason, "close 1002 " + badOpcode.reason, "close"},
	{"opcode 15", raw(finBit|15, ""), "closed 1002 " + badOpcode.reason, "close 1002 " + badOpcode.reason, "close"},
	{"16 bits for 125", []byte{0x82, 0xfe, 0, 125}, "closed 1002 " + notMinimal.reason, "close 1002 " + notMinimal.reason, "close"},
	{"64 bits for 65535", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, "closed 1002 " + notMinimal.reason, "close 1002 " + notMinimal.reason, "close"},
	{"highest bit of a length", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, "closed 1002 " + badLength.reason, "close 1002 " + badLength.reason, "close"},
	{"a length beyond all", []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "closed 1009 " + reasonTooLarge, "close 1009 " + reasonTooLarge, "close"},

	// 5.4 Fragmentation
	{"fragments", join(first("Hel"), more("l"), last("o")), "text Hello", "", ""},
	{"empty fragments", join(first(""), more(""), last("")), "text", "", ""},
	{"binary fragments", join(raw(opBinary, "a"), last("b")), "binary ab", "", ""},
	{"control between", join(first("a"), ping("p"), more("b"), raw(finBit|opPong, ""), last("c")), "text abc", "pong p", ""},
	{"continuation of nothing", last("a"), "closed 1002 " + noMessage.reason, "close 1002 " + noMessage.reason, "close"},
	{"unfinished continuation of nothing", more("a"), "closed 1002 " + noMessage.reason, "close 1002 " + noMessage.reason, "close"},
	{"continuation behind a message", join(text("a"), last("b")), "text a; closed 1002 " + noMessage.reason, "close 1002 " + noMessage.reason, "close"},
	{"text inside a message", join(first("a"), text("b")), "closed 1002 " + insideMessage.reason, "close 1002 " + insideMessage.reason, "close"},
	{"a second beginning", join(first("a"), first("b")), "closed 1002 " + insideMessage.reason, "close 1002 " + insideMessage.reason, "close"},

	// 5.5 Control frames
	{"ping", ping(""), "", "pong", ""},
	{"ping with payload", ping("\x00\xffabc"), "", "pong \x00\xffabc", ""},
	{"ping of 125", ping(strings.Repeat("p", 125)), "", "pong of 125 bytes", ""},
	{"ten pings", bytes.Repeat(ping("x"), 10), "", strings.TrimSuffix(strings.Repeat("pong x; ", 10), "; "), ""},
	{"ping of 126", raw(finBit|opPing, strings.Repeat("p", 126)), "closed 1002 " + longControl.reason, "close 1002 " + longControl.reason, "close"},
	{"fragmented ping", raw(opPing, "a"), "closed 1002 " + splitControl.reason, "close 1002 " + splitControl.reason, "close"},
	{"fragmented close", raw(opClose, ""), "closed 1002 " + splitControl.reason, "close 1002 " + splitControl.reason, "close"},
	{"pong unasked", raw(finBit|opPong, "x"), "", "", ""},

	// 7 Closing
	{"close", closeFrame(""), "closed 1005", "close", "close"},
	{"close 1000", closeWith(1000, ""), "closed 1000", "close 1000", "close"},
	{"close with reason", closeWith(1001, "gone"), "closed 1001 gone", "close 1001", "close"},
	{"close 3000", closeWith(3000, ""), "closed 3000", "close 3000", "close"},
	{"close 4999", closeWith(4999, "x"), "closed 4999 x", "close 4999", "close"},
	{"close with 123 bytes", closeWith(1000, strings.Repeat("r", 123)), "closed 1000 " + strings.Repeat("r", 123), "close 1000", "close"},
	{"close of 126", closeWith(1000, strings.Repeat("r", 124)), "closed 1002 " + longControl.reason, "close 1002 " + longControl.reason, "close"},
	{"close of one byte", closeFrame("\x03"), "closed 1002 " + shortClose.reason, "close 1002 " + shortClose.reason, "close"},
	{"frames behind a close", join(closeWith(1000, ""), text("late"), ping("late")), "closed 1000", "close 1000", "close"},
	{"close inside a message", join(first("a"), closeWith(1000, "")), "closed 1000", "close 1000", "close"},

	// 8.1 UTF-8
	{"UTF-8", text("κόσμε \U0010ffff"), "text κόσμε \U0010ffff", "", ""},
	{"UTF-8 cut by fragments", join(first("\xce"), more("\xba\xe1"), last("\xbd\xb9")), "text \xce\xba\xe1\xbd\xb9", "", ""},
	{"not UTF-8", text("a\xff"), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"UTF-8 without its end", text("\xce"), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"fragments without the end", join(first("\xf4\x8f"), last("\xbf")), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"a surrogate", text("\xed\xa0\x80"), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"beyond Unicode", text("\xf4\x90\x80\x80"), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"too long an encoding", text("\xc0\xaf"), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"fails before the end", join(first("\xf4\x90"), ping("unseen")), "closed 1007 " + reasonNotText, "close 1007 " + reasonNotText, "close"},
	{"binary may be anything", binaryOf("\xff\xfe"), "binary \xff\xfe", "", ""},
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		for _, n := range []int{1 << 20, 3, 1} {
			t.Run(fmt.Sprintf("%s/%d", v.name, n), func(t *testing.T) {
				r := newRig(t, false)
				r.t = t
				r.send(v.in, n)
				r.wantHeard(splitList(v.heard)...)
				r.wantFrames(splitList(v.frames)...)
				r.wantClosed(v.closed)
			})
		}
	}
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "; ")
}

// TestCloseCodes checks which codes a client may send (RFC 6455 7.4).
func TestCloseCodes(t *testing.T) {
	for code, good := range map[int]bool{
		0: false, 999: false, 1000: true, 1001: true, 1002: true, 1003: true, 1004: false, 1005: false, 1006: false,
		1007: true, 1008: true, 1009: true, 1010: true, 1011: true, 1012: true, 1013: true, 1014: true, 1015: false, 1016: false,
		1100: false, 2000: false, 2999: false, 3000: true, 3999: true, 4000: true, 4999: true, 5000: false, 65535: false,
	} {
		r := newRig(t, false)
		r.send(closeWith(code, ""), 100)
		r.wantClosed("close")
		frames := readFrames(t, r.wire.out)
		if want := fmt.Sprintf("close %d", code); good && (len(frames) != 1 || frames[0] != want) {
			t.Errorf("code %d: frames %q; want %q", code, frames, want)
		} else if !good && (len(frames) != 1 || !strings.HasPrefix(frames[0], "close 1002")) {
			t.Errorf("code %d: frames %q; want a close with 1002", code, frames)
		}
		if !good && r.app.heard[0] != "closed 1002 "+badCloseCode.reason {
			t.Errorf("code %d: the app heard %q", code, r.app.heard)
		}
	}
	r := newRig(t, false)
	r.send(closeWith(1000, "\xff"), 100) // the reason is text (RFC 6455 5.5.1)
	r.wantFrames("close 1007 " + reasonBadReason)
	r.wantHeard("closed 1007 " + reasonBadReason)
}

func TestSizes(t *testing.T) {
	small := func(c *Config) { c.MaxSize = 1000 }
	whole := strings.Repeat("a", 1000)
	for _, test := range []struct {
		name string
		in   []byte
		good bool
	}{
		{"the size itself", text(whole), true},
		{"in fragments", join(first(whole[:500]), more(whole[:499]), last("a")), true},
		{"one more", text(whole + "a"), false},
		{"one more in fragments", join(first(whole[:500]), last(whole[:501])), false},
		{"only announced", raw(finBit|opText, whole+"a")[:8], false},
	} {
		for _, n := range []int{1 << 20, 7} {
			r := newRig(t, false, small)
			r.send(test.in, n)
			if test.good {
				r.wantHeard("text of 1000 bytes")
				r.wantClosed("")
			} else {
				r.wantHeard("closed 1009 " + reasonTooLarge)
				r.wantFrames("close 1009 " + reasonTooLarge)
				if r.counts[TooLarge] != 1 {
					t.Errorf("%s: counted %d", test.name, r.counts[TooLarge])
				}
			}
		}
	}
}

// deflated is a compressed message as RFC 7692 7.2.1 has it.
func deflated(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	w.Write([]byte(s))
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

func TestInflate(t *testing.T) {
	long := strings.Repeat("spvn ", 2000)
	packed := deflated(long)
	for _, n := range []int{1 << 20, 5} {
		r := newRig(t, true)
		r.send(join(raw(finBit|rsv1Bit|opText, deflated("Hello")), text("plain"), raw(rsv1Bit|opBinary, packed[:10]), ping("p"),
			last(packed[10:])), n)
		r.wantHeard("text Hello", "text plain", "binary of 10000 bytes")
		r.wantFrames("pong p")
	}
	r := newRig(t, true, func(c *Config) { c.MaxSize = len(long) })
	r.send(raw(finBit|rsv1Bit|opText, packed), 1<<20)
	r.wantHeard("text of 10000 bytes")
	r = newRig(t, true, func(c *Config) { c.MaxSize = len(long) - 1 })
	r.send(raw(finBit|rsv1Bit|opText, packed), 1<<20)
	r.wantHeard("closed 1009 " + reasonTooLarge)
	r = newRig(t, true)
	r.send(raw(finBit|rsv1Bit|opText, deflated("a\xff")), 1<<20)
	r.wantHeard("closed 1007 " + reasonNotText)
	r = newRig(t, true)
	r.send(raw(finBit|rsv1Bit|opText, "\xff\xff\xff"), 1<<20)
	r.wantHeard("closed 1007 " + reasonInflate)
	for _, in := range [][]byte{
		join(raw(opText, "a"), raw(finBit|rsv1Bit|opContinuation, "b")), raw(finBit|rsv1Bit|opPing, ""),
	} {
		r = newRig(t, true)
		r.send(in, 1<<20)
		r.wantHeard("closed 1002 " + badCompressed.reason)
	}
}

// TestBomb checks that a bomb costs no more memory than a message may have.
func TestBomb(t *testing.T) {
	bomb := deflated(strings.Repeat("\x00", 64<<20)) // 64 KiB
	r := newRig(t, true, func(c *Config) { c.MaxSize = 1 << 20 })
	r.send(raw(finBit|rsv1Bit|opBinary, bomb), 1<<20)
	r.wantHeard("closed 1009 " + reasonTooLarge)
	if n := cap(r.config.pool.scratch); n > 4<<20 {
		t.Errorf("%d bytes of scratch memory for a message of at most 1 MiB", n)
	}
}

func TestSend(t *testing.T) {
	r := newRig(t, false)
	r.Send(true, []byte("Hello"), false)
	r.Send(false, nil, false)
	r.Send(false, bytes.Repeat([]byte("a"), 70000), false)
	r.wantFrames("text Hello", "binary", "binary of 70000 bytes")
	r.flush()
	if want := 70005 + 3*8; r.app.sent != want {
		t.Errorf("reported %d bytes; want %d", r.app.sent, want)
	}
	r = newRig(t, false)
	r.Send(true, bytes.Repeat([]byte("a"), 100000), true)
	r.Send(true, bytes.Repeat([]byte("b"), 50000), true)
	r.Send(true, []byte("c"), false)
	r.Send(true, []byte("next"), false)
	frames := readFrames(t, r.wire.out)
	if len(frames) < 3 || !strings.HasPrefix(frames[0], "text+") || !strings.HasPrefix(frames[len(frames)-2], "more") ||
		frames[len(frames)-1] != "text next" {
		t.Errorf("a message in parts: %q", frames)
	}
}

// TestLengths checks messages around each border of the ways in which a length is written, whole and in pieces: all of
// the payload, both ways.
func TestLengths(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 9, 31, 32, 33, 39, 125, 126, 127, 65535, 65536, 65537} {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		for _, piece := range []int{1 << 20, 1000} {
			r := newRig(t, false)
			var got []byte
			r.app.on = func(text bool, b []byte) {
				got = bytes.Clone(b)
				r.Send(text, b, false)
			}
			r.send(binaryOf(string(payload)), piece)
			if !bytes.Equal(got, payload) || len(r.app.heard) != 1 {
				t.Errorf("%d bytes in pieces of %d: the app got %d bytes of something else", n, piece, len(got))
			}
			if frames := readFrames(t, r.wire.out); len(frames) != 1 || !bytes.HasSuffix(r.wire.out, payload) {
				t.Errorf("%d bytes in pieces of %d: the client got %.80q", n, piece, frames)
			}
		}
	}
}

func TestSendCompressed(t *testing.T) {
	r := newRig(t, true)
	r.Send(true, []byte("small"), false)
	r.Send(true, bytes.Repeat([]byte("a"), 10000), false)
	frames := readFrames(t, r.wire.out)
	if len(frames) != 2 || frames[0] != "text small" || !strings.HasPrefix(frames[1], "text* ") || len(r.wire.out) > 200 {
		t.Errorf("frames %q in %d bytes", frames, len(r.wire.out))
	}
	// A compressor that keeps everything must not keep the app waiting.
	for range 10 {
		r.Send(false, bytes.Repeat([]byte("b"), 64<<10), true)
		r.flush()
	}
	if want := 10*(64<<10) + 10000 + 5 + 11*8 - 1000; r.app.sent < want {
		t.Errorf("reported %d bytes; want at least %d", r.app.sent, want)
	}
}

// TestAppCloses checks the closing handshake that the app begins.
func TestAppCloses(t *testing.T) {
	r := newRig(t, false)
	r.CloseWith(4000, []byte("enough"))
	r.wantFrames("close 4000 enough")
	r.wantClosed("")
	r.send(join(text("crossed"), ping("crossed")), 100)
	r.Send(true, []byte("late"), false)
	r.send(closeWith(4000, ""), 100)
	r.wantFrames("close 4000 enough")
	r.wantClosed("close")
	r.wantHeard()
	if r.counts[Closing] != 1 || r.counts[ClosingOver] != 1 || r.counts[Closed] != 1 {
		t.Errorf("counted %v", r.counts)
	}
}

// TestPeerDoesNotClose checks that a peer without an answer to a close frame is not waited for.
func TestPeerDoesNotClose(t *testing.T) {
	r := newRig(t, false)
	r.CloseWith(1000, nil)
	r.flush()
	r.pass(DefaultCloseTimeout - time.Second)
	r.wantClosed("")
	r.pass(2 * time.Second)
	r.wantClosed("close")
}

// TestPeerDoesNotTakeTheClose checks that a client that reads nothing is that, also behind a close.
func TestPeerDoesNotTakeTheClose(t *testing.T) {
	r := newRig(t, false)
	r.wire.stuck = true
	r.Send(true, []byte("much"), false)
	r.CloseWith(1000, nil)
	r.pass(DefaultSendTimeout - time.Second)
	r.wantClosed("")
	r.pass(2 * time.Second)
	r.wantClosed("abort")
	if r.counts[TimedOutSend] != 1 || r.counts[ClosingOver] != 1 {
		t.Errorf("counted %v", r.counts)
	}
}

// TestWhenItWasTaken checks that what a client took is not taken for news when it was long ago.
func TestWhenItWasTaken(t *testing.T) {
	r := newRig(t, false)
	r.wire.stuck = true
	r.Send(true, []byte("much"), false)
	begin := r.wire.now
	unacked := true
	r.wire.looked = func() {
		if unacked { // it was taken at once, and the first look finds it
			unacked, r.wire.takenAt = false, r.wire.now
		}
	}
	for r.wire.closed == "" && r.wire.now-begin < int64(3*DefaultSendTimeout) {
		r.pass(100 * time.Millisecond)
	}
	r.wantClosed("abort")
	if took := time.Duration(r.wire.now - begin); took > DefaultSendTimeout*5/4+time.Second {
		t.Errorf("it was cut after %v; want %v and at most a quarter more", took, DefaultSendTimeout)
	}
}

func TestCodesThatMustNotBeSent(t *testing.T) {
	for _, code := range []int{1004, 1005, 1006, 1015, 2000} {
		r := newRig(t, false)
		r.CloseWith(code, []byte("x"))
		r.wantFrames("close")
	}
	r := newRig(t, false)
	r.CloseWith(1000, []byte(strings.Repeat("ä", 70)))
	r.wantFrames("close 1000 " + strings.Repeat("ä", 61))
}

func TestFail(t *testing.T) {
	for status, want := range map[int]string{500: "close 1011 " + reasonInternal, 502: "close 1012 " + reasonRestart} {
		r := newRig(t, false)
		r.Fail(status, "", 0)
		r.wantFrames(want)
		r.wantHeard()
		r.send(closeWith(1011, ""), 100)
		r.wantClosed("close")
	}
}

// TestFailing checks that what came before a violation is answered before the close frame, and
// that the app cannot put that off.
func TestFailing(t *testing.T) {
	violation := join(text("good"), first("bad"), text("worse"), ping("unseen"))
	setUp := func(change ...func(*Config)) *rig {
		r := newRig(t, false, change...)
		r.app.slow = true
		r.send(violation, 1<<20)
		r.send(text("ignored"), 1)
		r.wantHeard("text good")
		r.wantFrames()
		r.wantClosed("")
		if r.wire.paused || r.in != nil || r.rest != nil || r.counts[ProtocolError] != 1 {
			t.Errorf("paused %v, %d and %d bytes held, counted %v", r.wire.paused, cap(r.in), cap(r.rest), r.counts)
		}
		r.Send(true, []byte("good"), false)
		return r
	}
	closed := "close 1002 " + insideMessage.reason

	r := setUp()
	r.CloseWith(1000, nil) // the app has heard, or closes, whatever with
	r.wantFrames("text good", closed)
	r.wantClosed("close")
	r.wantHeard("text good")

	r = setUp()
	r.Send(true, []byte("more"), true)
	r.Fail(500, "", 0)
	r.wantFrames("text good", closed)
	r.wantClosed("close")

	r = setUp()
	r.Restart() // the worker drains: it is not long
	r.wantClosed("")
	r.pass(DefaultFailTimeout - 1)
	r.wantFrames("text good")
	r.pass(1)
	r.wantFrames("text good", closed)
	r.wantClosed("close")
	r.wantHeard("text good", "closed 1002 "+insideMessage.reason)

	r = setUp()
	r.PeerClosed(true, 0) // it may be waiting for the answer
	r.wantClosed("")
	r.pass(DefaultFailTimeout)
	r.wantFrames("text good", closed)

	r = setUp()
	r.Lost()
	r.wantHeard("text good", "left")

	r = setUp(func(c *Config) { c.PingInterval = time.Millisecond })
	r.pass(DefaultFailTimeout)
	r.wantFrames("text good", closed) // and no ping
}

// TestFailingWhileHeldUp checks that a connection that is not being read can fail.
func TestFailingWhileHeldUp(t *testing.T) {
	r := newRig(t, false, func(c *Config) { c.MaxSize, c.Budget = 1000, 2000 })
	r.app.slow = true
	r.config.pool.partial = 1999
	r.send(raw(opBinary, "abc")[:7], 100)
	if !r.heldUp || !r.wire.paused {
		t.Fatal("it is not held up")
	}
	r.fail(overBudget)
	if r.heldUp || r.wire.paused {
		t.Error("it is still held up")
	}
	r.CloseWith(1000, nil)
	r.wantFrames("close 1009 " + reasonOverBudget)
}

func TestRestart(t *testing.T) {
	r := newRig(t, false)
	r.Drain()
	r.wantFrames("close 1012 " + reasonRestart)
	r.wantHeard("closed 1012 " + reasonRestart)
	r.send(closeWith(1012, ""), 100)
	r.wantClosed("close")
}

func TestClientVanishes(t *testing.T) {
	r := newRig(t, false)
	r.send(text("a"), 100)
	r.PeerClosed(false, 0)
	r.wantHeard("text a", "left")
	r.wantClosed("close")
	r = newRig(t, false)
	r.Lost()
	r.wantHeard("left")
	r.wantClosed("") // the carrier knows
}

// TestQueue checks that a lagging app stops the client, and that nothing is lost or mixed up.
func TestQueue(t *testing.T) {
	r := newRig(t, false)
	r.app.limit, r.app.room = true, 2
	r.send(join(text("1"), text("2"), text("3"), ping("p"), text("4"), closeWith(1000, "bye")), 1<<20)
	r.wantHeard("text 1", "text 2")
	if !r.wire.paused {
		t.Error("the client is still read")
	}
	r.PeerClosed(false, 0) // the client does not wait either
	r.app.room = 1
	r.Resume()
	r.wantHeard("text 1", "text 2", "text 3")
	r.app.room = 5
	r.Resume()
	r.wantHeard("text 1", "text 2", "text 3", "text 4", "closed 1000 bye")
	r.wantFrames("pong p", "close 1000")
	r.wantClosed("close")
}

// TestFloodOfPings checks that a client that reads nothing cannot make pongs pile up.
func TestFloodOfPings(t *testing.T) {
	r := newRig(t, false)
	r.wire.stuck = true
	for range 100 {
		if r.wire.paused {
			break
		}
		r.Receive(bytes.Repeat(ping(strings.Repeat("x", 125)), 100))
	}
	if n := r.wire.Buffered(); !r.wire.paused || n > maxUnsent+200 {
		t.Errorf("paused %v with %d bytes of output", r.wire.paused, n)
	}
	r.wire.stuck = false
	r.flush()
	if r.wire.paused {
		t.Error("still paused after the client has read")
	}
	r.wire.stuck = true
	r.Receive(ping("x"))
	r.pass(DefaultSendTimeout + time.Second)
	r.wantClosed("abort")
	r.wantHeard("left")
	if r.counts[TimedOutSend] != 1 {
		t.Errorf("counted %d", r.counts[TimedOutSend])
	}
}

func TestPings(t *testing.T) {
	r := newRig(t, false)
	r.pass(DefaultPingInterval - 1)
	r.wantFrames()
	r.pass(1)
	r.wantFrames("ping")
	r.pass(time.Second)
	r.send(raw(finBit|opPong, ""), 100)
	r.pass(DefaultPingInterval)
	r.wantFrames("ping", "ping")
	r.pass(time.Second)
	r.Receive(text("any sign of life will do")[:3])
	r.pass(DefaultPingInterval)
	r.wantFrames("ping", "ping", "ping")
	r.pass(DefaultPingTimeout)
	r.wantClosed("close")
	r.wantHeard("left")
	if r.counts[TimedOutPing] != 1 || r.counts[PingSent] < 3 {
		t.Errorf("counted %v", r.counts)
	}
}

// TestNoTimeoutWhileNotReading checks that a client is not blamed for an answer that nobody reads.
func TestNoTimeoutWhileNotReading(t *testing.T) {
	r := newRig(t, false)
	r.app.limit = true
	r.send(text("waits"), 100)
	r.pass(10 * time.Minute)
	r.wantClosed("")
	r.app.limit = false
	r.Resume()
	r.wantHeard("text waits")
	r.pass(2 * (DefaultPingInterval + DefaultPingTimeout))
	r.wantClosed("close")
}

func TestNoPings(t *testing.T) {
	r := newRig(t, false, func(c *Config) { c.PingInterval = 0 })
	r.pass(time.Hour)
	r.wantFrames()
	r.wantClosed("")
}

// TestBudget fills the memory for incomplete messages.
func TestBudget(t *testing.T) {
	config := NewConfig()
	config.MaxSize, config.Budget = 1<<20, 2<<20
	config.PingInterval = 0
	var counts [NumEvents]int
	config.Count = func(e Event) { counts[e]++ }
	var rigs []*rig
	half := strings.Repeat("a", 1<<19)
	for range 6 {
		r := &rig{t: t, wire: &wireFake{now: int64(time.Hour)}, app: &callFake{}}
		r.open(config, false)
		rigs = append(rigs, r)
	}
	// The first holds most of what it may.
	r := rigs[0]
	r.send(raw(opBinary, half+half[:1<<19-100]), 64<<10)
	for _, r := range rigs[1:] {
		r.send(raw(opBinary, half), 64<<10)
	}
	held := 0
	for _, r := range rigs {
		if r.heldUp {
			held++
		}
	}
	if held == 0 || config.pool.partial > 2<<20 {
		t.Fatalf("%d connections wait, %d bytes are held; the budget is %d", held, config.pool.partial, 2<<20)
	}
	for i := len(rigs) - 1; i >= 0; i-- {
		rigs[i].pass(900 * time.Millisecond)
	}
	rigs[0].wantClosed("")
	for i := len(rigs) - 1; i >= 0 && rigs[0].wire.closed == ""; i-- {
		rigs[i].pass(200 * time.Millisecond)
	}
	rigs[0].wantClosed("close")
	rigs[0].wantHeard("closed 1009 " + reasonOverBudget)
	if counts[OverBudget] != 1 {
		t.Errorf("counted %d", counts[OverBudget])
	}
	// Everything is given back in the end.
	for _, r := range rigs[1:] {
		if r.wire.closed == "" {
			r.Lost()
		}
	}
	if config.pool.partial != 0 || len(config.pool.holders) != 0 {
		t.Errorf("%d bytes in %d connections are left", config.pool.partial, len(config.pool.holders))
	}
}

// TestManyFragments checks that a message of tiny fragments costs its payload and not its frames.
func TestManyFragments(t *testing.T) {
	r := newRig(t, false)
	r.send(raw(opBinary, "a"), 100)
	b := bytes.Repeat(more("a"), 1000)
	for range 100 {
		r.send(b, 1<<20)
	}
	if n := cap(r.in); n > 300_000 {
		t.Errorf("%d bytes for a message of 100,001", n)
	}
	r.send(last("a"), 100)
	r.wantHeard("binary of 100002 bytes")
}

func TestIdleHoldsNoBuffer(t *testing.T) {
	r := newRig(t, true)
	r.app.on = func(text bool, b []byte) { r.Send(text, b, false) }
	r.send(join(text("a"), first("b"), last(strings.Repeat("c", 5000)), ping("p")), 3)
	if r.in != nil || r.rest != nil || r.control != nil || r.config.pool.partial != 0 {
		t.Errorf("an idle connection holds %d, %d and %d bytes", cap(r.in), cap(r.rest), cap(r.control))
	}
}

func TestEchoAllocates(t *testing.T) {
	r := newRig(t, false)
	r.app.on = func(text bool, b []byte) { r.Send(text, b, false) }
	in := binaryOf(strings.Repeat("x", 64))
	n := testing.AllocsPerRun(1000, func() {
		r.app.heard = r.app.heard[:0]
		r.Receive(in)
		r.wire.out, r.wire.taken = r.wire.out[:0], 0
	})
	if n > 3 { // the fake's own: what the app heard
		t.Errorf("%v allocations for an echo", n)
	}
}

func BenchmarkEcho(b *testing.B) {
	r := newRig(b, false)
	in := binaryOf(strings.Repeat("x", 64))
	quiet := &quietCall{callFake: r.app, conn: r.Conn}
	r.Conn.call = quiet
	b.ReportAllocs()
	for b.Loop() {
		r.Receive(in)
		r.wire.out, r.wire.taken = r.wire.out[:0], 0
	}
}

type quietCall struct {
	*callFake
	conn *Conn
}

func (c *quietCall) Message(text bool, b []byte) { c.conn.Send(text, b, false) }

// A FIN may come while reading is paused: what the kernel still has is read first, and then the app hears of it.
func TestTheEndBehindUnreadInput(t *testing.T) {
	r := newRig(t, false)
	r.app.limit, r.app.room = true, 1
	r.send(join(text("a"), text("b")), 1<<20)
	if !r.wire.paused {
		t.Fatal("reading is not paused")
	}
	unread := join(text("c"), text("d"))
	r.PeerClosed(false, len(unread))
	r.app.room = 100
	r.Resume()
	r.send(unread, 5)
	r.wantHeard("text a", "text b", "text c", "text d", "left")
	r.wantClosed("close")
}

// crowded opens four sessions that share a budget which two messages of part's length fill, and sends that much of one
// to each of the first three: the third is held up.
func crowded(t *testing.T, part string) []*rig {
	t.Helper()
	config := NewConfig()
	config.MaxSize, config.Budget, config.PingInterval = 1<<20, 2<<20, 0
	config.Count = func(Event) {}
	rigs := make([]*rig, 4)
	for i := range rigs {
		rigs[i] = &rig{t: t, wire: &wireFake{now: int64(time.Hour)}, app: &callFake{}}
		rigs[i].open(config, false)
	}
	for _, r := range rigs[:3] {
		r.send(raw(opBinary, part), 64<<10)
	}
	if !rigs[2].heldUp {
		t.Fatal("nobody is held up")
	}
	return rigs
}

// Memory that comes and goes elsewhere does not prolong the time for which a connection is held up.
func TestHeldUpBesideOthers(t *testing.T) {
	rigs := crowded(t, strings.Repeat("a", 900<<10))
	for range 8 {
		rigs[3].send(text("small"), 3)
		for _, r := range rigs {
			r.pass(250 * time.Millisecond)
		}
	}
	if rigs[2].heldUp {
		t.Error("it is still held up after two seconds")
	}
	if rigs[0].wire.closed == "" && rigs[1].wire.closed == "" {
		t.Error("nobody was closed to make room")
	}
	if len(rigs[3].app.heard) != 8 {
		t.Errorf("the one beside was heard %d times; want 8", len(rigs[3].app.heard))
	}
}

// Whoever was held up once, and went on later for another reason, begins to wait anew.
func TestHeldUpAnew(t *testing.T) {
	part := strings.Repeat("a", 900<<10)
	rigs := crowded(t, part)
	late := rigs[2]
	late.app.limit = true // its app lags, too
	rigs[0].Lost()
	if late.heldUp {
		t.Fatal("it is held up although there is room")
	}
	for _, r := range rigs {
		r.pass(time.Minute)
	}
	rigs[3].send(raw(opBinary, part), 64<<10)
	late.app.limit = false
	late.Resume()
	if !late.heldUp {
		t.Fatal("it is not held up again")
	}
	for _, r := range rigs[1:] {
		r.pass(900 * time.Millisecond)
		r.wantClosed("")
	}
}

// A compressed message may end with a final block and go on behind it (RFC 7692 7.2.3.4); wherever it ends, the next
// frame is read from its beginning.
func TestFinalBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	payload := make([]byte, 9000)
	for i := range payload {
		payload[i] = byte(random.Uint32())
	}
	r := newRig(t, true, func(c *Config) { c.PingInterval = 0 })
	count := 0
	for n := 3900; n < len(payload); n++ {
		if n == 4300 {
			n = 7900
		}
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, 1)
		w.Write(payload[:n])
		w.Close()
		b.WriteByte(0)
		r.wire.out, r.wire.taken = nil, 0
		r.send(join(raw(finBit|rsv1Bit|opBinary, b.String()), ping("p")), 1<<20)
		if got := strings.Join(readFrames(t, r.wire.out), "; "); got != "pong p" {
			t.Fatalf("behind a message of %d bytes: %q", n, got)
		}
		count++
	}
	if len(r.app.heard) != count {
		t.Errorf("%d messages were heard; want %d", len(r.app.heard), count)
	}
}

// Clients that are slow to take large messages must not make each of them keep a compressor.
func TestFewCompressorsAreKept(t *testing.T) {
	config := NewConfig()
	var rigs []*rig
	for range 3 * maxCompressing {
		r := &rig{t: t, wire: &wireFake{now: int64(time.Hour)}, app: &callFake{}}
		r.open(config, true)
		r.Conn.Send(true, []byte(strings.Repeat("a", 5000)), true)
		rigs = append(rigs, r)
	}
	if n := config.pool.compressing; n != maxCompressing {
		t.Errorf("%d compressors; want %d", n, maxCompressing)
	}
	for i, r := range rigs {
		switch i % 3 {
		case 0:
			r.Conn.Send(true, []byte("end"), false)
			want := []string{"text*", "more"}
			if i >= maxCompressing {
				want = []string{"text", "more"}
			}
			for _, frame := range readFrames(t, r.wire.out) {
				if word, _, _ := strings.Cut(frame, " "); strings.TrimRight(word, "+") != want[0] && strings.TrimRight(word, "+") != want[1] {
					t.Errorf("connection %d wrote %q", i, frame)
				}
			}
		case 1:
			r.Lost()
		default:
			r.CloseWith(1000, nil)
		}
	}
	if n := config.pool.compressing; n != 0 {
		t.Errorf("%d compressors are left; want none", n)
	}
}

// Who reads slowly takes something all the time, although the kernel takes nothing more for a while.
func TestSlowIsNotStuck(t *testing.T) {
	r := newRig(t, false, func(c *Config) { c.SendTimeout, c.PingInterval, c.PingTimeout = 20*time.Second, 0, 0 })
	r.wire.stuck = true
	r.Conn.Send(false, make([]byte, 100_000), false)
	for range 10 {
		r.wire.takenAt = r.wire.now
		r.pass(15 * time.Second)
	}
	r.wantClosed("")
	r.pass(21 * time.Second)
	r.wantClosed("abort")
}

// Nor is a ping that lies behind megabytes unanswered as long as those are being read.
func TestAPingBehindWhatIsRead(t *testing.T) {
	r := newRig(t, false, func(c *Config) { c.PingInterval, c.PingTimeout = 20*time.Second, 20*time.Second })
	for range 10 {
		r.wire.takenAt = r.wire.now
		r.pass(15 * time.Second)
	}
	r.wantClosed("")
	r.pass(45 * time.Second)
	r.wantClosed("close")
}
