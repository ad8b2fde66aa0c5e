package websocket

import (
	"bytes"
	standard "crypto/sha1"
	"testing"
)

func TestSHA1(t *testing.T) {
	for n := range 300 {
		text := bytes.Repeat([]byte{byte(n), 0xff, 'a'}, n)[:n]
		if got, want := sha1(text), standard.Sum(text); got != want {
			t.Fatalf("%d bytes: %x, want %x", n, got, want)
		}
	}
}
