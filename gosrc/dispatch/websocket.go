package dispatch

import (
	"encoding/binary"
	"errors"
	"slices"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
)

// A WebSocket is a call whose answer is a connection. It begins as every call does. Once
// the app has accepted the handshake it is answering, until either side closes in order
// (answered), the client vanishes (left), or the app or its worker fails (failed). A
// handshake that the app denies has an ordinary answer.

// Both sides of the send window count alike.
var _ = [1]struct{}{}[call.SendCost-link.WsSendCost]

// socket is what a call has more once its handshake was accepted.
type socket struct {
	conn call.WebSocket

	// Messages taken from the connection and not yet forwarded: u32 opcode, u32 length, bytes.
	pending   []byte
	pendingAt int

	bytes    int   // of messages taken and not yet received by the app, as far as the worker told
	messages int32 // how many those are
	starved  bool
	crowded  bool   // is in the port's list
	failing  bool   // the app is to be told what it will be closed with
	code     uint16 // how it was closed in order, or will be, 0: it was not
	reason   string
	port     *port // of its worker, also once the call has left it
}

var (
	_ call.WebSocketCall = (*Call)(nil)
	_ call.MessagePlacer = (*Call)(nil)
)

func (c *Call) kind() uint16 {
	if c.webSocket {
		return link.CallWebsocket
	}
	return link.CallHTTP
}

// Message implements call.WebSocketCall.
func (c *Call) Message(text bool, b []byte) {
	s := c.socket
	if s == nil || c.state.ended() {
		return
	}
	if place := c.PlaceMessage(text, len(b)); place != nil {
		copy(place, b)
		return
	}
	c.countMessage(len(b))
	if s.pending == nil {
		s.pending = c.shard.spareBuffer(8 + len(b))
	}
	s.pending = binary.LittleEndian.AppendUint32(s.pending, opcode(text))
	s.pending = binary.LittleEndian.AppendUint32(s.pending, uint32(len(b)))
	s.pending = append(s.pending, b...)
	s.port.messages += 8 + len(b)
	c.pump()
}

// dropPending forgets the messages that were not forwarded.
func (c *Call) dropPending() {
	s := c.socket
	s.port.messages -= len(s.pending)
	c.shard.keepBuffer(s.pending)
	s.pending, s.pendingAt = nil, 0
}

// dropSocket forgets what the shard has of a WebSocket that is over.
func (c *Call) dropSocket() {
	c.hold(-c.socket.bytes)
	if c.socket.pending != nil {
		c.dropPending()
	}
	if c.socket.crowded {
		p := c.socket.port
		if at, last := slices.Index(p.crowded, c), len(p.crowded)-1; at >= 0 {
			p.crowded[at], p.crowded[last] = p.crowded[last], nil
			p.crowded = p.crowded[:last]
		}
	}
}

// mostMessages is how many bytes of complete messages may wait for room in one inbox, and for the app where the budget
// is overdrawn. While there are more, no connection of that worker takes another one: each may be as large as
// --ws-max-size, and come compressed.
const mostMessages = 64 << 20

// crowds says whether so many bytes of messages wait that no more may come.
func (p *port) crowds(most int) bool {
	return p.messages > most || p.large > most && p.shard.dispatch.settings.Bodies.Over()
}

// uncrowd lets connections go on that waited because there were too many.
func (p *port) uncrowd() {
	if len(p.crowded) == 0 || p.crowds(mostMessages/2) {
		return
	}
	waiting := p.crowded
	p.crowded = nil
	for _, c := range waiting {
		c.socket.crowded = false
	}
	for _, c := range waiting {
		if k := c.socket; k != nil && k.conn != nil && !c.state.ended() { // the ones before may have ended it
			k.conn.Resume()
		}
	}
}

// PlaceMessage implements call.MessagePlacer.
func (c *Call) PlaceMessage(text bool, n int) []byte {
	s := c.socket
	if s == nil || c.state.ended() || len(s.pending) > 0 || c.port.chunk(n) < n {
		return nil
	}
	payload, ok := c.port.reserve(c, 8+n, link.WsMessage, 0, data)
	if !ok {
		return nil
	}
	c.countMessage(n)
	binary.LittleEndian.PutUint32(payload, opcode(text))
	binary.LittleEndian.PutUint32(payload[4:], uint32(n))
	return payload[8:]
}

func opcode(text bool) uint32 {
	if text {
		return 1
	}
	return 2
}

// countMessage takes note of a message that was taken from the connection.
func (c *Call) countMessage(n int) {
	c.received += int64(n)
	c.socket.messages++
	c.hold(n)
}

// hold takes note that the app has n bytes more to receive, or -n fewer. What each connection may have in any case
// is in no budget: the worker tells of so little only together with more, however long ago the app received it.
func (c *Call) hold(n int) {
	s := c.socket
	before := max(s.bytes-tightBody, 0)
	s.bytes += n
	more := max(s.bytes-tightBody, 0) - before
	s.port.large += more
	c.charge(more)
}

// Ready implements call.WebSocketCall. The app may have received a few more messages than
// the worker has told of.
func (c *Call) Ready() bool {
	s := c.socket
	if s == nil || c.state.ended() {
		return true
	}
	if s.port.crowds(mostMessages) {
		if !s.crowded {
			s.crowded = true
			s.port.crowded = append(s.port.crowded, c)
		}
		return false
	}
	window := c.shard.messageWindow()
	if int(s.messages) < c.shard.dispatch.settings.WebSocketQueue+link.WsCreditMessages-1 && s.bytes < window {
		return true
	}
	s.starved = true
	if window < link.WsWindow {
		c.shard.squeeze(c)
	}
	return false
}

// Failing implements call.WebSocketCall.
func (c *Call) Failing(code int, reason []byte) {
	s := c.socket
	if s == nil || c.state.ended() {
		return
	}
	s.code, s.reason, s.failing = uint16(code), string(reason), true
	c.pump()
}

// Closed implements call.WebSocketCall.
func (c *Call) Closed(code int, reason []byte) {
	s := c.socket
	if s == nil || c.state.ended() {
		return
	}
	s.code, s.reason = uint16(code), string(reason)
	c.shard.complete(c)
	c.pump()
}

// pumpSocket is pump for a call whose handshake was accepted.
func (c *Call) pumpSocket() {
	p, s := c.port, c.socket
	if c.acked >= link.SendWindowStream/4 && !c.finished && !c.state.ended() && !c.withhold() {
		payload, ok := p.reserve(c, 8, link.SendWindow, 0, control)
		if !ok {
			return
		}
		putUint64(payload, uint64(c.acked))
		c.acked = 0
	}
	for s.pendingAt < len(s.pending) {
		head := s.pending[s.pendingAt:]
		opcode, left := binary.LittleEndian.Uint32(head), int(binary.LittleEndian.Uint32(head[4:]))
		n, flags := left, uint16(0)
		if n > sureChunk {
			n, flags = sureChunk, link.FlagMore
		}
		payload, ok := p.reserve(c, 8+n, link.WsMessage, flags, data)
		if !ok {
			return
		}
		binary.LittleEndian.PutUint32(payload, opcode)
		binary.LittleEndian.PutUint32(payload[4:], uint32(n))
		copy(payload[8:], head[8:8+n])
		if n == left {
			s.pendingAt += 8 + n
			continue
		}
		// What is left gets a head in place of the end of what was forwarded.
		s.pendingAt += n
		head = s.pending[s.pendingAt:]
		binary.LittleEndian.PutUint32(head, opcode)
		binary.LittleEndian.PutUint32(head[4:], uint32(left-n))
	}
	if s.pending != nil {
		c.dropPending()
	}
	ended := c.state.ended()
	if !ended && !s.failing || c.told {
		return
	}
	if s.code == 0 {
		_, c.told = p.reserve(c, 0, link.Disconnect, 0, control)
		return
	}
	flags := uint16(0)
	if !ended {
		flags = link.FlagMore
	}
	payload, ok := p.reserve(c, 8+len(s.reason), link.WsClosed, flags, control)
	if !ok {
		return
	}
	s.failing = false
	binary.LittleEndian.PutUint16(payload, s.code)
	binary.LittleEndian.PutUint16(payload[2:], uint16(len(s.reason)))
	binary.LittleEndian.PutUint32(payload[4:], 0)
	copy(payload[8:], s.reason)
	c.told = ended
}

var errNoSocket = errors.New("a record of a WebSocket whose handshake was not accepted")

// socketRecord handles a record that only WebSockets have.
func (s *Shard) socketRecord(c *Call, r link.Record) error {
	switch r.Type {
	case link.WsAccept:
		return s.socketAccept(c, r)
	case link.WsSend:
		return s.socketSend(c, r)
	case link.WsClose:
		return s.socketClose(c, r)
	case link.WsCredit:
		return s.socketCredit(c, r)
	}
	return errors.New("an unknown record type")
}

func (s *Shard) socketAccept(c *Call, r link.Record) error {
	const fixed = 16
	if len(r.Payload) < fixed {
		return errRecord
	}
	length := uint64(binary.LittleEndian.Uint32(r.Payload))
	count := binary.LittleEndian.Uint32(r.Payload[4:])
	fieldBytes := uint64(binary.LittleEndian.Uint32(r.Payload[8:]))
	if length+fieldBytes > uint64(len(r.Payload)-fixed) {
		return errRecord
	}
	s.head = append(s.head[:0], r.Payload[fixed:fixed+length+fieldBytes]...)
	fields, err := s.decodeFields(s.head[length:], count)
	if err != nil || c.state.ended() {
		return err
	}
	a, ok := c.answer.(call.WebSocketAnswer)
	if c.state != claimed || !c.webSocket || !ok {
		return errors.New("a WS_ACCEPT of what is no handshake, or a second one")
	}
	s.move(c, answering)
	c.socket = &socket{port: c.port}
	c.start = append([]byte(nil), c.start...) // no larger than it must be, for as long as this call may live
	conn := a.Accept(s.head[:length], fields)
	if c.state == left && conn == nil {
		s.access(c, 500) // the app's answer could not be sent
	} else {
		s.access(c, 101)
	}
	if conn == nil || c.state.ended() {
		return nil
	}
	c.socket.conn, c.answer = conn, conn
	if c.port.worker.State() == WorkerDraining {
		conn.Restart()
	}
	return nil
}

func (s *Shard) socketSend(c *Call, r link.Record) error {
	if len(r.Payload) < 8 {
		return errRecord
	}
	opcode, n := binary.LittleEndian.Uint32(r.Payload), uint64(binary.LittleEndian.Uint32(r.Payload[4:]))
	if n > uint64(len(r.Payload)-8) {
		return errRecord
	}
	if c.state.ended() {
		return nil
	}
	if c.socket == nil || c.socket.conn == nil {
		return errNoSocket
	}
	c.sent += int64(n)
	c.inCore += int(n) + call.SendCost
	c.socket.conn.Send(opcode == 1, r.Payload[8:8+n], r.Flags&link.FlagMore != 0)
	return nil
}

func (s *Shard) socketClose(c *Call, r link.Record) error {
	if len(r.Payload) < 8 {
		return errRecord
	}
	code, n := binary.LittleEndian.Uint16(r.Payload), int(binary.LittleEndian.Uint16(r.Payload[2:]))
	if n > len(r.Payload)-8 {
		return errRecord
	}
	if c.state.ended() {
		return nil
	}
	if c.socket == nil || c.socket.conn == nil {
		return errNoSocket
	}
	s.head = append(s.head[:0], r.Payload[8:8+n]...)
	c.told = true // the app knows
	s.complete(c)
	c.socket.conn.CloseWith(int(code), s.head)
	return nil
}

// socketCredit takes note of what the app received.
func (s *Shard) socketCredit(c *Call, r link.Record) error {
	if len(r.Payload) < 8 {
		return errRecord
	}
	if c.state.ended() && c.socket == nil {
		return nil // before the handshake was accepted
	}
	if c.socket == nil || c.socket.conn == nil && !c.state.ended() {
		return errNoSocket
	}
	messages, bytes := uint64(binary.LittleEndian.Uint32(r.Payload)), uint64(binary.LittleEndian.Uint32(r.Payload[4:]))
	k := c.socket
	if messages > uint64(k.messages) || bytes > uint64(k.bytes) {
		return errors.New("more credit for messages than were forwarded")
	}
	k.messages -= int32(messages)
	c.hold(-int(bytes))
	c.feed()
	return nil
}

// restartSockets closes the WebSockets of a worker that goes away, with 1012, and tells the
// app so.
func (s *Shard) restartSockets(p *port) {
	for _, c := range p.calls {
		if c != nil && c.socket != nil && c.socket.conn != nil && !c.state.ended() {
			c.socket.conn.Restart()
		}
	}
}
