// Package transport moves bytes: it accepts connections, reads and writes them, keeps
// their deadlines, and knows no protocol. A connection's protocol is a call.Protocol,
// which sees its connection as a call.Carrier.
//
// Rules:
//   - A connection belongs to one Loop for its whole life, and everything about it happens
//     on that loop's goroutine. What others want of a loop they Post to it.
//   - Nothing on a loop blocks but the one wait for events. Whatever may take long (a name
//     look-up, a TLS handshake) runs elsewhere and is posted back.
//   - A panic below a loop costs one connection.
//
// There are two transports behind the one seam: the poll loop (epoll, Linux) and a
// goroutine for each net.Conn (NetLoop), for every other system and stream.
package transport

import (
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/memory"
	"spvn/gosrc/observe"
)

const (
	lingerTime  = 2 * time.Second // input is discarded this long after the last answer
	lingerBytes = 1 << 20         // or this many bytes

	tightRead = 4 << 10 // what is read at once while too much of all bodies is held

	// turnsAWakeUp bounds how often a wake-up looks whether workers have said more: one that
	// always has must not keep the loop from its sockets and clocks.
	turnsAWakeUp = 16
)

// Engine is what a loop drives besides its connections: dispatch's shard.
type Engine interface {
	// Wake begins a wake-up at this time.
	Wake(now int64)
	// Turn takes and hands on what is there, and reports whether anything was.
	Turn() bool
	// Publish lets other threads see what was written for them.
	Publish()
	// Arm prepares for sleep, and whether it will be brief (link.NapMs at the most); ok is false
	// when there is something to do after all. A limit other than 0 bounds the sleep.
	Arm(briefly bool) (limit time.Duration, ok bool)
}

// Config is what all loops of a server share.
type Config struct {
	// NewProtocol makes the protocol of a connection that was just accepted.
	NewProtocol  func(loop int, c call.Carrier, peer, local call.Addr, scheme call.Scheme) call.Protocol
	WriteTimeout time.Duration // without progress, while output waits; 0: never
	// MaxConnections bounds the open connections of all loops together; 0: no bound.
	// At the bound the longest idle ones make room for new ones, which wait where none is idle.
	MaxConnections int
	// Gate bounds what one address may open. May be nil.
	Gate *Gate
	// Bodies is overdrawn while too much of all requests' bodies is held: then less is read at
	// once. May be nil.
	Bodies *memory.Budget
	// Outputs counts the bytes that clients do not take. May be nil.
	Outputs  *memory.Budget
	Counters []*observe.Shard // one for each loop
	// TurnEnds is called at the end of each wake-up of a loop, on its goroutine.
	TurnEnds func(loop int)
	Log      func(level, key, message string)
}
