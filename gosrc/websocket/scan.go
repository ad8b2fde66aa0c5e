package websocket

import (
	"crypto/subtle"
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// Opcodes (RFC 6455 5.2).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

const (
	finBit     = 0x80
	rsv1Bit    = 0x40
	rsvOthers  = 0x30
	maskBit    = 0x80
	maxHeader  = 14 // bytes: two, eight of length, four of mask
	maxControl = 125
)

// Close codes (RFC 6455 7.4.1, and IANA's registry).
const (
	codeProtocol     = 1002
	codeNoStatus     = 1005
	codeAbnormal     = 1006
	codeNotText      = 1007
	codeTooLarge     = 1009
	codeInternal     = 1011
	codeRestart      = 1012
	maxReason        = maxControl - 2
	reasonPing       = "keepalive ping timeout"
	reasonRestart    = "service restart"
	reasonInternal   = "internal error"
	reasonTooLarge   = "message too large"
	reasonOverBudget = "too much memory is held by incomplete messages"
	reasonNotText    = "text is not UTF-8"
	reasonBadReason  = "the reason of a close frame is not UTF-8"
	reasonInflate    = "data cannot be inflated"
)

// violation is why a connection is failed (RFC 6455 7.1.7).
type violation struct {
	code   int
	reason string
	event  Event
}

func protocolError(reason string) *violation {
	return &violation{codeProtocol, reason, ProtocolError}
}

var (
	badReserved     = protocolError("a reserved bit is set")
	badCompressed   = protocolError("the bit of compression is set where it must not be")
	badOpcode       = protocolError("an opcode is reserved")
	notMasked       = protocolError("a frame of a client is not masked")
	longControl     = protocolError("a control frame has more than 125 bytes")
	splitControl    = protocolError("a control frame is fragmented")
	shortClose      = protocolError("a close frame has one byte")
	badCloseCode    = protocolError("a close frame has a code that must not be sent")
	noMessage       = protocolError("a continuation frame continues nothing")
	insideMessage   = protocolError("a message begins inside another")
	notMinimal      = protocolError("a length is not encoded in the fewest bytes")
	badLength       = protocolError("a length has its highest bit set")
	tooLarge        = &violation{codeTooLarge, reasonTooLarge, TooLarge}
	notText         = &violation{codeNotText, reasonNotText, NotText}
	badCloseReason  = &violation{codeNotText, reasonBadReason, NotText}
	cannotInflate   = &violation{codeNotText, reasonInflate, NotText}
	overBudget      = &violation{codeTooLarge, reasonOverBudget, OverBudget}
	brokenByGorilla = protocolError("a frame cannot be read")
)

// frame is a frame header.
type frame struct {
	opcode byte
	fin    bool
	rsv1   bool
	key    [4]byte
	length int
}

func (f *frame) control() bool { return f.opcode >= opClose }

// mostGrown is how much longer deflate may make n bytes that it cannot make shorter: five for each block (RFC 1951 3.2.4),
// of which no compressor makes thousands.
func mostGrown(n int) int { return n>>8 + 64 }

// scanner is what it takes to judge the next frame header.
type scanner struct {
	maxSize int
	deflate bool // RSV1 on the first frame of a message says that it is compressed
	message byte // opcode of the incomplete message, 0 for none
	total   int  // its bytes so far, and those that the header of its last frame announced
}

// header reads the header at the front of b. size 0 without a violation: it is not complete.
func (s *scanner) header(b []byte, f *frame) (size int, v *violation) {
	if len(b) < 2 {
		return 0, nil
	}
	f.opcode, f.fin, f.rsv1 = b[0]&0xf, b[0]&finBit != 0, b[0]&rsv1Bit != 0
	short := b[1] &^ maskBit
	switch {
	case b[0]&rsvOthers != 0:
		return 0, badReserved
	case b[1]&maskBit == 0:
		return 0, notMasked
	case f.opcode > opPong || f.opcode > opBinary && f.opcode < opClose:
		return 0, badOpcode
	case f.rsv1 && !s.deflate:
		return 0, badReserved
	case f.rsv1 && f.opcode != opText && f.opcode != opBinary:
		return 0, badCompressed // RFC 7692 6
	case f.control():
		switch {
		case !f.fin:
			return 0, splitControl
		case short > maxControl:
			return 0, longControl
		case f.opcode == opClose && short == 1:
			return 0, shortClose
		}
	case f.opcode == opContinuation && s.message == 0:
		return 0, noMessage
	case f.opcode != opContinuation && s.message != 0:
		return 0, insideMessage
	}
	most := s.maxSize
	if f.rsv1 || s.deflate && f.opcode == opContinuation {
		most += min(mostGrown(most), math.MaxInt-most)
	}
	size = 2
	f.length = int(short)
	switch short {
	case 126:
		if size += 2; len(b) < size {
			return 0, nil
		}
		f.length = int(binary.BigEndian.Uint16(b[2:]))
		if f.length < 126 {
			return 0, notMinimal
		}
	case 127:
		if size += 8; len(b) < size {
			return 0, nil
		}
		n := binary.BigEndian.Uint64(b[2:])
		switch {
		case n>>63 != 0:
			return 0, badLength
		case n < 1<<16:
			return 0, notMinimal
		case n > uint64(most):
			return 0, tooLarge
		}
		f.length = int(n)
	}
	if !f.control() && f.length > most-s.total {
		return 0, tooLarge
	}
	if len(b) < size+4 {
		return 0, nil
	}
	copy(f.key[:], b[size:])
	return size + 4, nil
}

// readClose reads a whole close frame, whose payload is not one byte (RFC 6455 5.5.1, 7.4).
func readClose(frame []byte) (code int, reason []byte, v *violation) {
	const header = 6 // bytes of a control frame's
	if len(frame) < header+2 {
		return codeNoStatus, nil, nil
	}
	var b [maxControl]byte
	payload := b[:copy(b[:], frame[header:])]
	unmask(payload, [4]byte(frame[2:header]), 0)
	code, reason = int(binary.BigEndian.Uint16(payload)), payload[2:]
	switch {
	case !sendable(code):
		return 0, nil, badCloseCode
	case !utf8.Valid(reason):
		return 0, nil, badCloseReason
	}
	return code, reason, nil
}

// unmask applies the masking key, from byte at of the frame's payload on (RFC 6455 5.3).
func unmask(b []byte, key [4]byte, at int) { unmaskTo(b, b, key, at) }

// maskBlock is how far the key is repeated for a long payload: the standard library's vector loop wants two operands of
// one length.
const maskBlock = 256

// unmaskTo is unmask with a result of its own: to is as long as b, and either b itself or apart from it.
func unmaskTo(to, b []byte, key [4]byte, at int) {
	var twice [8]byte
	for i := range twice {
		twice[i] = key[(at+i)&3]
	}
	if len(b) >= 2*maskBlock {
		var block [maskBlock]byte
		for n := copy(block[:], twice[:]); n < len(block); n *= 2 {
			copy(block[n:], block[:n])
		}
		for len(b) >= len(block) {
			subtle.XORBytes(to, b[:len(block)], block[:])
			b, to = b[len(block):], to[len(block):]
		}
	}
	word := binary.LittleEndian.Uint64(twice[:])
	for len(b) >= 8 && len(to) >= 8 {
		binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(b)^word)
		b, to = b[8:], to[8:]
	}
	for i := range b {
		to[i] = b[i] ^ twice[i]
	}
}
