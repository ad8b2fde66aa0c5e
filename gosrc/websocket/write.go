package websocket

import (
	"encoding/binary"
	"time"

	"github.com/gorilla/websocket"

	"spvn/gosrc/call"
)

// Send implements call.WebSocket. A message that comes in parts leaves in fragments, so
// that no message of the app has to fit into memory here.
func (c *Conn) Send(text bool, b []byte, more bool) {
	if c.phase > failing {
		return
	}
	kind := websocket.BinaryMessage
	if text {
		kind = websocket.TextMessage
	}
	switch {
	case c.writer == nil && !more && !(c.scan.deflate && len(b) >= minCompressed):
		c.sendFrame(byte(kind), b)
	case c.writer == nil && !more:
		c.gorilla.EnableWriteCompression(true)
		c.gorilla.WriteMessage(kind, b) // fails only behind a close frame
	case c.writer == nil:
		// Its compressor is kept until the last part has come, however slowly the client takes them.
		c.compressing = c.scan.deflate && c.config.pool.compressing < maxCompressing
		if c.compressing {
			c.config.pool.compressing++
		}
		c.gorilla.EnableWriteCompression(c.compressing)
		if w, err := c.gorilla.NextWriter(kind); err == nil {
			c.writer = w
			c.writer.Write(b)
		}
	default:
		c.writer.Write(b)
		if !more {
			c.writer.Close()
			c.dropWriter()
		}
	}
	if !more {
		c.config.Count(MessageOut)
	}
	c.unsent += int32(len(b) + call.SendCost)
	if more {
		// The compressor may keep it all, and then nothing leaves that would bring a Sent.
		c.report(c.carrier.Buffered())
	}
	c.watchOutput()
}

// dropWriter forgets the message whose parts are being sent.
func (c *Conn) dropWriter() {
	c.writer = nil
	if c.compressing {
		c.compressing = false
		c.config.pool.compressing--
	}
}

// sendFrame writes a whole message as one frame, straight into the output or, if it is large, from where it lies to
// the kernel. gorilla is not asked: it would copy the payload through a buffer of its own.
func (c *Conn) sendFrame(opcode byte, b []byte) {
	out := c.carrier.Buffer()
	switch n := len(b); {
	case n <= maxControl:
		out = append(out, finBit|opcode, byte(n))
	case n < 1<<16:
		out = append(out, finBit|opcode, 126, byte(n>>8), byte(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, finBit|opcode, 127), uint64(n))
	}
	c.carrier.CommitBody(out, b)
}

// report tells the call what is out, as the app counts it: compressed bytes leave for more
// than themselves, and all is reported once nothing waits.
func (c *Conn) report(buffered int) {
	if n := int(c.unsent) - buffered; c.call != nil && n > 0 {
		c.unsent = int32(buffered)
		c.call.Sent(n)
	}
}

// Sent implements call.Protocol.
func (c *Conn) Sent(int) {
	if c.phase == gone {
		return
	}
	buffered := c.carrier.Buffered()
	c.report(buffered)
	c.stallBy = 0
	if buffered > 0 {
		c.watchOutput()
	} else if c.phase == closing {
		c.closeBy = c.carrier.Now() + int64(c.config.CloseTimeout) // the peer can answer from here on
		c.arm()
	}
	if c.paused && buffered <= maxUnsent/2 {
		c.proceed()
	}
}

// watchOutput sees to it that a client that takes nothing is noticed.
func (c *Conn) watchOutput() {
	if c.stallBy == 0 && c.config.SendTimeout > 0 {
		c.stallBy = c.carrier.Now() + int64(c.config.SendTimeout)
		if c.armed == 0 || c.nextLook() < c.armed {
			c.arm()
		}
	}
}

// writeControl writes a control frame. It fails only behind a close frame.
func (c *Conn) writeControl(kind int, payload []byte) {
	c.gorilla.WriteControl(kind, payload, time.Time{})
	c.watchOutput()
}

// Respond implements call.Answer; a connection that was accepted gets no such answer.
func (c *Conn) Respond(int, []call.Field, []byte, bool, bool) {}

// RespondBody implements call.Answer; see Respond.
func (c *Conn) RespondBody([]byte, bool) {}

// RespondTrailers implements call.Answer; see Respond.
func (c *Conn) RespondTrailers([]call.Field, bool) {}

// Informational implements call.Answer; see Respond.
func (c *Conn) Informational(int, []call.Field) {}

// Continue implements call.Answer; see Respond.
func (c *Conn) Continue() {}
