package websocket

import (
	"encoding/binary"
	"math/bits"
)

// sha1 is the SHA-1 of a short text (RFC 3174), which Sec-WebSocket-Accept is made with. It guards nothing there, so that
// speed and secrecy do not matter; crypto/sha1 would bring Go's FIPS 140 module into the core, and 32 MB of its memory
// into the address space, for one hash in a handshake.
func sha1(text []byte) (sum [20]byte) {
	padded := append(append(make([]byte, 0, 192), text...), 0x80)
	for len(padded)%64 != 56 {
		padded = append(padded, 0)
	}
	padded = binary.BigEndian.AppendUint64(padded, uint64(len(text))*8)
	h := [5]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}
	var w [80]uint32
	for block := padded; len(block) > 0; block = block[64:] {
		for t := range w {
			if t < 16 {
				w[t] = binary.BigEndian.Uint32(block[4*t:])
			} else {
				w[t] = bits.RotateLeft32(w[t-3]^w[t-8]^w[t-14]^w[t-16], 1)
			}
		}
		a, b, c, d, e := h[0], h[1], h[2], h[3], h[4]
		for t := range w {
			var f, k uint32
			switch t / 20 {
			case 0:
				f, k = b&c|^b&d, 0x5a827999
			case 1:
				f, k = b^c^d, 0x6ed9eba1
			case 2:
				f, k = b&c|b&d|c&d, 0x8f1bbcdc
			case 3:
				f, k = b^c^d, 0xca62c1d6
			}
			a, b, c, d, e = bits.RotateLeft32(a, 5)+f+e+w[t]+k, a, bits.RotateLeft32(b, 30), c, d
		}
		for i, v := range [5]uint32{a, b, c, d, e} {
			h[i] += v
		}
	}
	for i, v := range h {
		binary.BigEndian.PutUint32(sum[4*i:], v)
	}
	return sum
}
