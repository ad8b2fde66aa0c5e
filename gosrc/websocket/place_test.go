package websocket

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// placeFake has a place for all large messages but each third.
type placeFake struct {
	*callFake
	got    [][]byte // by place or by Message
	placed int
	asked  int
}

func (p *placeFake) PlaceMessage(text bool, n int) []byte {
	if text {
		panic("a place for text, which has to be looked at first")
	}
	if p.asked++; p.asked%3 == 0 {
		return nil
	}
	p.placed++
	p.got = append(p.got, bytes.Repeat([]byte{0xaa}, n))
	return p.got[len(p.got)-1]
}

func (p *placeFake) Message(_ bool, b []byte) { p.got = append(p.got, bytes.Clone(b)) }

// Messages are the same whether they are unmasked into a place of the call's or handed over, and stay in order.
func TestMessagesThatHaveAPlace(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	r := newRig(t, false)
	app := &placeFake{callFake: r.app}
	r.Conn.call = app
	var want [][]byte
	for range 200 {
		payload := make([]byte, rnd.IntN(2*leastPlace)+rnd.IntN(2)*rnd.IntN(1<<16))
		for i := range payload {
			payload[i] = byte(rnd.Uint32())
		}
		opcode := byte(opBinary)
		if rnd.IntN(4) == 0 {
			opcode = opText
			for i := range payload {
				payload[i] = 'a' + payload[i]%26
			}
		}
		want = append(want, payload)
		head := bareHeader(nil, opcode, false, len(payload))
		key := [4]byte(binary.LittleEndian.AppendUint32(nil, rnd.Uint32()))
		copy(head[len(head)-4:], key[:])
		in := append(head, payload...)
		for i := range payload {
			in[len(head)+i] ^= key[i&3]
		}
		pieces := 1 << 20
		if rnd.IntN(3) == 0 {
			pieces = 1 + rnd.IntN(len(in))
		}
		r.send(in, pieces)
	}
	if app.placed == 0 || len(app.got) != len(want) || r.counts[MessageIn] != len(want) {
		t.Fatalf("got %d messages, %d of them placed, %d counted; want %d", len(app.got), app.placed, r.counts[MessageIn], len(want))
	}
	for i := range want {
		if !bytes.Equal(app.got[i], want[i]) {
			t.Fatalf("message %d of %d bytes is another one", i, len(want[i]))
		}
	}
}
