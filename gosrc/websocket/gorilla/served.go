// Package websocket is the part of github.com/gorilla/websocket v1.5.3 that is a connection: conn.go, compression.go,
// mask.go and prepared.go are its own, unchanged. Its Dialer and Upgrader are left out. They are all that needs net/http
// and crypto/tls, which are a quarter of the core's library and a megabyte of every process that serves; spvn makes
// handshakes by itself. For a newer version copy these files anew.
package websocket

import (
	"bufio"
	"net"
)

// SkipRest has what was not read of the last frame forgotten: a compressed message may go on behind its final block
// (RFC 7692 7.2.3.4), and whoever feeds whole frames must not have that looked for in the next one.
func (c *Conn) SkipRest() { c.readRemaining = 0 }

// NewServed is the server's half of a connection whose handshake is done elsewhere, as Upgrader.Upgrade would make it.
func NewServed(conn net.Conn, reader *bufio.Reader, writeBufferSize int, buffers BufferPool, compress bool) *Conn {
	c := newConn(conn, true, 0, writeBufferSize, buffers, reader, nil)
	if compress {
		c.newCompressionWriter = compressNoContextTakeover
		c.newDecompressionReader = decompressNoContextTakeover
	}
	return c
}
