package websocket

import (
	"time"

	"spvn/gosrc/call"
)

// Defaults of Config.
const (
	DefaultMaxSize      = 16 << 20 // bytes of a message; as uvicorn and Daphne's Autobahn
	DefaultPingInterval = 20 * time.Second
	DefaultPingTimeout  = 20 * time.Second
	DefaultSendTimeout  = 20 * time.Second
	DefaultCloseTimeout = 3 * time.Second // clients answer within a round trip
	DefaultFailTimeout  = 500 * time.Millisecond
	DefaultBudget       = 64 << 20 // bytes of incomplete messages of one loop

	minCompressed = 512       // bytes; below it the deflate block costs more than it saves
	maxUnsent     = 256 << 10 // bytes of output beside which nothing more is read
	budgetHeld    = time.Second
)

// Event is something that Config.Count is told of.
type Event uint8

// Events. Opened and Closed have the meaning of a gauge between them.
const (
	Opened           Event = iota // a handshake was granted
	Closed                        // a granted connection is over, whatever the reason
	Closing                       // a close frame was sent; the peer's is due. ClosingOver follows
	ClosingOver                   //
	MessageIn                     // a whole message came
	MessageOut                    // a whole message was handed to the carrier
	PingSent                      //
	PingReceived                  //
	TimedOutPing                  // no sign of life within PingTimeout
	TimedOutSend                  // the client took nothing for SendTimeout
	TooLarge                      // 1009: a message was larger than MaxSize
	OverBudget                    // 1009: incomplete messages took too much memory, and this was the largest
	NotText                       // 1007: text that is not UTF-8, or data that cannot be inflated
	ProtocolError                 // 1002
	HandshakeRefused              // 400, 405 or 426
	NumEvents
)

// Config is what the connections of one poll loop share. Take NewConfig's and change it
// before the first connection; later nothing here may change.
type Config struct {
	// MaxSize bounds a message, before and after decompression: 1009. That size is allowed.
	MaxSize int
	// PingInterval is the time between pings. 0: none are sent.
	PingInterval time.Duration
	// PingTimeout is the time in which a ping must bring a sign of life: 1011. It stands
	// still while the core itself does not read. 0: none.
	PingTimeout time.Duration
	// SendTimeout is how long a client may take nothing of what is sent to it, before it is
	// cut. 0: for ever.
	SendTimeout time.Duration
	// CloseTimeout is the time in which a close frame must be answered by one.
	CloseTimeout time.Duration
	// FailTimeout is how long the app may take to answer what a client sent before it broke
	// the rules. Then, or once the app has heard of it, the connection is closed.
	FailTimeout time.Duration
	// Deflate grants offers of permessage-deflate (RFC 7692).
	Deflate bool
	// Budget bounds the bytes of all incomplete messages together. While it is used up
	// connections that would need more are not read; after a second of that the one that
	// holds most is closed with 1009. It is at least twice MaxSize.
	Budget int
	// Count is told what happens, for the counters.
	Count func(Event)

	pool pool
}

var _ call.WebSockets = (*Config)(nil)

// NewConfig is a Config with every default.
func NewConfig() *Config {
	c := &Config{
		MaxSize:      DefaultMaxSize,
		PingInterval: DefaultPingInterval,
		PingTimeout:  DefaultPingTimeout,
		SendTimeout:  DefaultSendTimeout,
		CloseTimeout: DefaultCloseTimeout,
		FailTimeout:  DefaultFailTimeout,
		Deflate:      true,
		Budget:       DefaultBudget,
		Count:        func(Event) {},
	}
	c.pool.init()
	return c
}

func (c *Config) budget() int { return max(c.Budget, 2*c.MaxSize) }
