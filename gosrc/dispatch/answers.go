package dispatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"spvn/gosrc/call"
	"spvn/gosrc/link"
	"spvn/gosrc/observe"
)

// Sizes of records that hang on the links' geometry.
const (
	maxStart     = link.InboxSize/4 - link.RecordHeaderSize
	maxHost      = 1<<16 - 1          // a client's name, as a trusted proxy gives it, has a u16 for its length
	inboxReserve = link.InboxSize / 8 // kept for control records
	// inboxRoomy is how little must be unread before call starts are written again: then the
	// largest fits, with a pad and what is kept.
	inboxRoomy = link.InboxSize * 3 / 8
)

var (
	errRecord = errors.New("a record's payload does not fit its length")
	errSlot   = errors.New("a record of a call whose slot was overwritten")
)

// take reads what a worker wrote. It reports whether there was anything.
func (s *Shard) take(p *port) bool {
	if p.dead {
		return false
	}
	p.look()
	taken := 0
	for ; taken < recordsATurn; taken++ {
		r, ok, err := p.outbox.Next()
		if err == nil && ok {
			err = s.guarded(p, r)
		}
		if err != nil {
			p.corrupt(err)
			return true
		}
		if !ok {
			break
		}
		if p.outbox.Taken() >= outboxChunk {
			s.tighten() // what it writes into the room that it gets now, it writes knowing
			if p.outbox.Release() {
				link.Ring(p.worker.Link.Bell) // it need not wait for the end of the turn
			}
		}
	}
	if taken == 0 {
		return false
	}
	s.counters.Add(observe.LinkRecordsIn, uint64(taken))
	if p.outbox.Release() {
		link.Ring(p.worker.Link.Bell)
	}
	return true
}

// guarded is record; a panic costs the call of this record.
func (s *Shard) guarded(p *port, r link.Record) error {
	defer func() {
		if problem := recover(); problem != nil {
			s.panicked(p, r, problem)
		}
	}()
	return s.record(p, r)
}

// panicked ends the call in whose record there was a panic, for its client and in the counters,
// and gives its slot back if the record was its last.
func (s *Shard) panicked(p *port, r link.Record, problem any) {
	s.counters.Add(observe.LoopPanics, 1)
	if f := s.dispatch.settings.Log; f != nil {
		f("error", "panic", fmt.Sprintf("internal error in a call, please report it: %v\n%s", problem, debug.Stack()))
	}
	c := p.find(r.Call)
	if r.Call == 0 || c == nil {
		return
	}
	if !c.state.ended() {
		reason := observe.Failed500
		if c.state == answering {
			reason = observe.FailedCut
		}
		s.end(c, failed, reason)
	}
	if a := s.told; a != nil {
		func() {
			defer func() { _ = recover() }() // it was told; there is no more to do
			a.Fail(500, "Internal Server Error", 0)
		}()
	}
	if ends(r) {
		p.release(c)
	} else {
		p.abandon(c)
	}
}

// ends says whether a record is the last one of its call.
func ends(r link.Record) bool {
	return r.Flags&link.FlagDone != 0 || r.Type == link.CallDone || r.Type == link.CallFailed
}

// record handles one record. An error means that the worker is mad.
func (s *Shard) record(p *port, r link.Record) error {
	if r.Call == 0 {
		return s.control(p, r)
	}
	c := p.find(r.Call)
	if c == nil {
		s.counters.Add(observe.LinkStaleRecords, 1)
		return nil
	}
	if c.state == offered {
		p.settle()
		if c.state == offered {
			return errors.New("a record of a call that was not claimed")
		}
	}
	if !p.slots.Begun(c.slot, c.generation) {
		return errSlot // what else has it overwritten?
	}
	var err error
	s.told = c.answer
	if r.Type != link.BodyCredit && r.Type != link.WantBody {
		c.spoke = true
	}
	switch r.Type {
	case link.Response:
		err = s.response(c, r)
	case link.ResponseBody:
		err = s.responseBody(c, r)
	case link.Trailers:
		err = s.trailers(c, r)
	case link.Informational:
		err = s.informational(c, r)
	case link.BodyCredit:
		if len(r.Payload) < 8 || !c.credit(binary.LittleEndian.Uint64(r.Payload)) {
			err = errors.New("more body credit than was forwarded")
		}
	case link.WantBody:
		if c.answer != nil {
			c.answer.Continue()
		}
	case link.CallDone, link.CallFailed:
	default:
		err = s.socketRecord(c, r)
	}
	if err != nil {
		return err
	}
	if ends(r) {
		if !c.state.ended() {
			s.fail(c, observe.Failed500, 500, "Internal Server Error")
		}
		p.release(c)
	}
	return nil
}

func (s *Shard) control(p *port, r link.Record) error {
	message := ""
	switch r.Type {
	case link.Ready:
		if len(r.Payload) >= 4 {
			p.worker.setThreads(binary.LittleEndian.Uint32(r.Payload))
		}
		s.timers.ready()
	case link.Stopped:
		if p.worker.over.Swap(true) {
			return errors.New("a STOPPED of a worker that was over")
		}
	case link.TimerSet, link.TimerCancel, link.TimerDone:
		return s.timers.record(p, r)
	case link.StartFailed:
		if len(r.Payload) < 8 {
			return errRecord
		}
		n := binary.LittleEndian.Uint32(r.Payload)
		if uint64(n) > uint64(len(r.Payload)-8) {
			return errRecord
		}
		if p.worker.over.Swap(true) {
			return errors.New("a START_FAILED of a worker that was over")
		}
		message = string(r.Payload[8 : 8+n])
	default:
		return errors.New("an unknown control record type")
	}
	if f := s.dispatch.settings.Control; f != nil {
		f(p.worker, r.Type, message)
	}
	return nil
}

// decodeFields reads a private copy of a field list.
func (s *Shard) decodeFields(b []byte, count uint32) ([]call.Field, error) {
	fields := s.fields[:0]
	for range count {
		if len(b) < 8 {
			return nil, errRecord
		}
		n, v := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		if n+v > uint64(len(b)-8) {
			return nil, errRecord
		}
		fields = append(fields, call.Field{Name: b[8 : 8+n : 8+n], Value: b[8+n : 8+n+v : 8+n+v]})
		b = b[8+n+v:]
	}
	if len(b) != 0 {
		return nil, errRecord
	}
	s.fields = fields
	return fields, nil
}

// responseHead copies the head of an answer out of shared memory and checks it. body
// lies in shared memory still; only its length is settled.
func (s *Shard) responseHead(r link.Record) (status int, fields []call.Field, body []byte, err error) {
	if len(r.Payload) < link.ResponseFixedSize {
		return 0, nil, nil, errRecord
	}
	var fixed [link.ResponseFixedSize]byte
	copy(fixed[:], r.Payload)
	status = int(binary.LittleEndian.Uint32(fixed[link.ResponseStatus:]))
	count := binary.LittleEndian.Uint32(fixed[link.ResponseFieldCount:])
	fieldBytes := uint64(binary.LittleEndian.Uint32(fixed[link.ResponseFieldBytes:]))
	bodyBytes := uint64(binary.LittleEndian.Uint32(fixed[link.ResponseBodyLength:]))
	if fieldBytes+bodyBytes > uint64(len(r.Payload)-link.ResponseFixedSize) || status < 100 || status > 999 {
		return 0, nil, nil, errRecord
	}
	at := link.ResponseFixedSize + fieldBytes
	s.head = append(s.head[:0], r.Payload[link.ResponseFixedSize:at]...)
	fields, err = s.decodeFields(s.head, count)
	return status, fields, r.Payload[at : at+bodyBytes], err
}

func (s *Shard) response(c *Call, r link.Record) error {
	status, fields, body, err := s.responseHead(r)
	if err != nil {
		return err
	}
	if c.state.ended() {
		return nil
	}
	if c.state != claimed {
		return errors.New("a second RESPONSE")
	}
	s.move(c, answering)
	s.access(c, status)
	a := c.answer
	last := r.Flags&link.FlagLast != 0
	c.sent += int64(len(body))
	if last {
		s.complete(c)
	}
	c.inCore = len(body)
	a.Respond(status, fields, body, last, r.Flags&link.FlagTrailers != 0)
	return nil
}

// complete ends a call whose answer is complete; the app may go on.
func (s *Shard) complete(c *Call) {
	c.finished = true
	c.port.done(c)
	s.end(c, answered, observe.CallsAnswered)
}

func (s *Shard) responseBody(c *Call, r link.Record) error {
	if len(r.Payload) < link.BodyFixedSize {
		return errRecord
	}
	n := uint64(binary.LittleEndian.Uint32(r.Payload[link.BodyLength:]))
	if n > uint64(len(r.Payload)-link.BodyFixedSize) {
		return errRecord
	}
	if c.state.ended() {
		return nil
	}
	if c.state != answering || c.socket != nil {
		return errors.New("a RESPONSE_BODY before its RESPONSE, or of a WebSocket")
	}
	a := c.answer
	last := r.Flags&link.FlagLast != 0
	c.sent += int64(n)
	if last {
		s.complete(c)
	}
	c.inCore += int(n)
	a.RespondBody(r.Payload[link.BodyBytes:link.BodyBytes+n], last)
	return nil
}

func (s *Shard) trailers(c *Call, r link.Record) error {
	if len(r.Payload) < 8 {
		return errRecord
	}
	count := binary.LittleEndian.Uint32(r.Payload)
	n := uint64(binary.LittleEndian.Uint32(r.Payload[4:]))
	if n > uint64(len(r.Payload)-8) {
		return errRecord
	}
	s.head = append(s.head[:0], r.Payload[8:8+n]...)
	fields, err := s.decodeFields(s.head, count)
	if err != nil || c.state.ended() {
		return err
	}
	if c.state != answering || c.socket != nil {
		return errors.New("TRAILERS before the RESPONSE, or of a WebSocket")
	}
	a := c.answer
	last := r.Flags&link.FlagLast != 0
	if last {
		s.complete(c)
	}
	a.RespondTrailers(fields, last)
	return nil
}

func (s *Shard) informational(c *Call, r link.Record) error {
	status, fields, _, err := s.responseHead(r)
	if err != nil || c.state.ended() {
		return err
	}
	if c.state != claimed || status > 199 {
		return errors.New("an interim answer that is none, or too late")
	}
	c.answer.Informational(status, fields)
	return nil
}
