package websocket

import (
	"encoding/binary"
	"io"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"spvn/gosrc/call"
)

// leastPlace is how many bytes of a message are worth a place of their own.
const leastPlace = 1 << 10

// step takes what is next of b, which is not empty, and returns how many bytes that was.
func (c *Conn) step(b []byte) int {
	if c.inFrame {
		return c.payload(b)
	}
	have := int(c.headHave)
	from := b
	if have > 0 {
		from = c.head[:have+copy(c.head[have:], b)]
	}
	size, v := c.scan.header(from, &c.frame)
	if v != nil {
		c.fail(v)
		return len(b)
	}
	if size == 0 { // it is shorter than head
		c.headHave = uint8(len(from))
		if have == 0 {
			copy(c.head[:], b)
		}
		return len(from) - have
	}
	c.headHave = 0
	f := &c.frame
	used := size - have
	if whole := used + f.length; have == 0 && whole <= len(b) {
		if f.control() {
			c.feedControl(b[:whole])
			return whole
		}
		if f.fin && c.scan.message == 0 {
			if f.rsv1 {
				c.deliver(f.opcode, true, f.length, b[:whole], nil)
			} else if !c.place(b[used:whole]) {
				unmask(b[used:whole], f.key, 0)
				c.forward(f.opcode, b[used:whole], 0)
			}
			return whole
		}
	}
	c.inFrame, c.at = true, 0
	if !f.control() {
		if c.scan.message == 0 {
			c.scan.message, c.compressed, c.valid = f.opcode, f.rsv1, 0
		}
		c.scan.total += f.length
	}
	if f.length == 0 {
		c.endFrame()
	}
	return used
}

// place unmasks a large message of one frame to where the call wants it, if it has a place for it. Text is looked at
// first, and comes by forward.
func (c *Conn) place(masked []byte) bool {
	f := &c.frame
	if len(masked) < leastPlace || f.opcode != opBinary || c.phase != open {
		return false
	}
	placer, ok := c.call.(call.MessagePlacer)
	if !ok {
		return false
	}
	to := placer.PlaceMessage(false, len(masked))
	if to == nil {
		return false
	}
	unmaskTo(to, masked, f.key, 0)
	c.config.Count(MessageIn)
	return true
}

// payload takes payload of a frame that does not lie in one piece with its header, or is
// not a message by itself.
func (c *Conn) payload(b []byte) int {
	f := &c.frame
	b = b[:min(len(b), f.length-c.at)]
	if f.control() {
		c.control = append(c.control, b...)
		unmask(c.control[c.at:], f.key, c.at)
	} else {
		if !c.grow(len(b)) {
			return 0
		}
		from := len(c.in)
		c.in = append(c.in, b...)
		unmask(c.in[from:], f.key, c.at)
		if c.scan.message == opText && !c.compressed && !c.checkText() {
			c.fail(notText)
			return len(b)
		}
	}
	if c.at += len(b); c.at == f.length {
		c.endFrame()
	}
	return len(b)
}

// checkText looks at what came of a text, so that one that is not UTF-8 fails early.
func (c *Conn) checkText() bool {
	b := c.in[c.valid:]
	for i := 1; i <= min(3, len(b)); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				b = b[:len(b)-i] // its end is to come
			}
			break
		}
	}
	c.valid += len(b)
	return utf8.Valid(b)
}

// endFrame is called once the payload of a frame is complete.
func (c *Conn) endFrame() {
	c.inFrame = false
	f := &c.frame
	var head [maxHeader]byte
	switch {
	case f.control():
		payload := c.control
		c.control = nil
		c.feedControl(append(bareHeader(head[:0], f.opcode, false, len(payload)), payload...))
	case f.fin:
		opcode, in := c.scan.message, c.in
		c.scan.message, c.scan.total = 0, 0
		if c.compressed || f.opcode == opContinuation {
			c.deliver(opcode, c.compressed, len(in), bareHeader(head[:0], opcode, c.compressed, len(in)), in)
		} else {
			c.forward(opcode, in, c.valid)
		}
		c.drop()
	}
}

// forward hands on an unmasked message that came as one frame, which most do: there is nothing that gorilla
// would have to put together or inflate. What is checked of it is the text behind b[:valid].
func (c *Conn) forward(opcode byte, b []byte, valid int) {
	text := opcode == opText
	if text && !utf8.Valid(b[valid:]) {
		c.fail(notText)
		return
	}
	c.config.Count(MessageIn)
	if c.phase == open && c.call != nil {
		c.call.Message(text, b)
	}
}

// bareHeader is the header of a frame whose payload is unmasked already: masked with 0.
func bareHeader(b []byte, opcode byte, compressed bool, length int) []byte {
	first := finBit | opcode
	if compressed {
		first |= rsv1Bit
	}
	switch {
	case length <= maxControl:
		b = append(b, first, maskBit|byte(length))
	case length < 1<<16:
		b = append(b, first, maskBit|126)
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	default:
		b = append(b, first, maskBit|127)
		b = binary.BigEndian.AppendUint64(b, uint64(length))
	}
	return append(b, 0, 0, 0, 0)
}

// empty is a masked binary frame without payload. It is fed behind a control frame, behind
// which gorilla goes on to read until it finds a message.
var empty = []byte{finBit | opBinary, maskBit, 0, 0, 0, 0}

// feedControl has gorilla handle a control frame: it calls pinged or ponged. A close frame
// is looked at here, as gorilla answers a bad one before the app has said its last.
func (c *Conn) feedControl(frame []byte) {
	if c.frame.opcode == opClose {
		code, reason, v := readClose(frame)
		if v != nil {
			c.fail(v)
		} else {
			c.peerCloses(code, reason)
		}
		return
	}
	p := &c.config.pool
	p.load(frame, empty)
	_, _, err := c.gorilla.NextReader()
	p.unload()
	if err != nil {
		c.fail(brokenByGorilla)
	}
}

// deliver has gorilla read a message and hands it on. first and second are its one frame,
// length that frame's payload.
func (c *Conn) deliver(opcode byte, compressed bool, length int, first, second []byte) {
	p := &c.config.pool
	p.load(first, second)
	kind, r, err := c.gorilla.NextReader()
	var b []byte
	var v *violation
	switch {
	case err != nil:
		v = brokenByGorilla
	case !compressed && length > c.config.MaxSize:
		v = tooLarge
	case compressed:
		b, v = c.inflate(r)
		c.gorilla.SkipRest()
	default:
		b = p.room(length)[:length]
		if _, err := io.ReadFull(r, b); err != nil {
			v = brokenByGorilla
		}
	}
	p.unload()
	text := kind == websocket.TextMessage
	if v == nil && text && !utf8.Valid(b) {
		v = notText
	}
	if v != nil {
		c.fail(v)
		return
	}
	c.config.Count(MessageIn)
	if c.phase == open && c.call != nil {
		c.call.Message(text, b)
	}
	if cap(p.scratch) > keepScratch {
		p.scratch = nil
	}
}

// inflate reads a compressed message, but never more than is allowed.
func (c *Conn) inflate(r io.Reader) ([]byte, *violation) {
	p := &c.config.pool
	b := p.room(4 << 10)[:0]
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		p.scratch = b[:0]
		switch {
		case len(b) > c.config.MaxSize:
			return nil, tooLarge
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, cannotInflate
		}
	}
}

// room is scratch memory for n bytes, until the next message.
func (p *pool) room(n int) []byte {
	if cap(p.scratch) < n {
		p.scratch = make([]byte, 0, max(n, 4<<10))
	}
	return p.scratch
}
