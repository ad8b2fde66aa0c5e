package websocket

import (
	"bytes"
	"fmt"
	"testing"
)

// Every length and every start is what RFC 6455 5.3 says byte by byte, in place and apart, and touches nothing else.
func TestUnmask(t *testing.T) {
	key := [4]byte{0x9c, 1, 0xff, 0x37}
	payload := make([]byte, 3*maskBlock+9)
	for i := range payload {
		payload[i] = byte(i * 31)
	}
	for n := range len(payload) + 1 {
		for at := range 5 {
			want := make([]byte, n)
			for i := range want {
				want[i] = payload[i] ^ key[(at+i)%4]
			}
			apart := bytes.Repeat([]byte{0xaa}, n+1)
			unmaskTo(apart[:n], payload[:n], key, at)
			inPlace := bytes.Clone(payload)
			unmask(inPlace[:n], key, at)
			if !bytes.Equal(apart[:n], want) || apart[n] != 0xaa {
				t.Fatalf("%d bytes from %d on, apart: wrong", n, at)
			}
			if !bytes.Equal(inPlace[:n], want) || !bytes.Equal(inPlace[n:], payload[n:]) {
				t.Fatalf("%d bytes from %d on, in place: wrong", n, at)
			}
		}
	}
}

func BenchmarkUnmask(b *testing.B) {
	for _, size := range []int{64, 16384} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			from, to := make([]byte, size), make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				unmaskTo(to, from, [4]byte{1, 2, 3, 4}, 0)
			}
		})
	}
}
