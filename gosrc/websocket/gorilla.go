package websocket

import (
	"bufio"
	"errors"
	"net"
	"time"

	"github.com/gorilla/websocket"

	"spvn/gosrc/call"
)

const (
	readerSize  = 4 << 10 // of the one bufio.Reader of a loop; gorilla peeks up to 125 bytes
	writerSize  = 4 << 10 // of a write buffer; a compressed message is cut into frames of this size
	keepScratch = 256 << 10

	// maxCompressing is how many messages that come in parts are compressed at a time; further ones leave as they
	// are. A compressor takes 1.2 MB until the last part has come, and clients may be slow.
	maxCompressing = 16
)

// pool is what the connections of one loop use in turn.
type pool struct {
	feed    feed
	reader  *bufio.Reader // over feed; empty between two messages
	buffers []any         // gorilla's write buffers; a connection has one while a message is written
	scratch []byte
	fields  []call.Field

	compressing int // writers of connections that have a compressor

	partial int // bytes of incomplete messages
	holders map[*Conn]struct{}
	held    []*Conn  // are not read until there is room for more
	spare   [][]byte // buffers for incomplete messages
	waking  bool
}

func (p *pool) init() {
	p.reader = bufio.NewReaderSize(&p.feed, readerSize)
	p.holders = map[*Conn]struct{}{}
}

// Get implements websocket.BufferPool.
func (p *pool) Get() any {
	n := len(p.buffers)
	if n == 0 {
		return nil
	}
	b := p.buffers[n-1]
	p.buffers[n-1] = nil
	p.buffers = p.buffers[:n-1]
	return b
}

// Put implements websocket.BufferPool.
func (p *pool) Put(b any) {
	if len(p.buffers) < 64 {
		p.buffers = append(p.buffers, b)
	}
}

// feed is what gorilla reads: a frame that is there as a whole, in up to two pieces.
type feed struct{ first, second []byte }

var errStarved = errors.New("websocket: a read found less than a frame")

// Read implements io.Reader.
func (f *feed) Read(b []byte) (int, error) {
	if len(f.first) == 0 {
		if len(f.second) == 0 {
			return 0, errStarved
		}
		f.first, f.second = f.second, nil
	}
	n := copy(b, f.first)
	f.first = f.first[n:]
	return n, nil
}

// load makes first and second what gorilla reads next.
func (p *pool) load(first, second []byte) {
	p.feed = feed{first, second}
	p.reader.Reset(&p.feed)
}

// unload forgets them: they are not the pool's.
func (p *pool) unload() { p.feed = feed{} }

// wire is a Conn as the net.Conn that gorilla writes to.
type wire Conn

var _ net.Conn = (*wire)(nil)

// Write implements net.Conn.
func (w *wire) Write(b []byte) (int, error) {
	if w.gorilla != nil && w.phase != gone {
		w.carrier.Commit(append(w.carrier.Buffer(), b...))
	}
	return len(b), nil
}

// Read implements net.Conn. gorilla reads from its pool's feed only.
func (w *wire) Read([]byte) (int, error) { return 0, errStarved }

// Close implements net.Conn.
func (w *wire) Close() error { return nil }

// LocalAddr implements net.Conn.
func (w *wire) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (w *wire) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn.
func (w *wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (w *wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// adopt makes gorilla's half of a connection.
func (c *Conn) adopt() {
	p := &c.config.pool
	p.unload()
	p.reader.Reset(&p.feed)
	g := websocket.NewServed((*wire)(c), p.reader, writerSize, p, c.scan.deflate)
	g.SetPingHandler(c.pinged)
	g.SetPongHandler(c.ponged)
	c.gorilla = g
}
