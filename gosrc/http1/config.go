package http1

import (
	"time"

	"spvn/gosrc/call"
)

// Defaults of Config.
const (
	DefaultRequestLine     = 16 << 10 // bytes; nginx and Apache take 8 KiB, h11 16 KiB for the head
	DefaultHeaderBytes     = 64 << 10 // bytes; uvicorn's h11 takes 64 KiB, nginx 32 KiB
	DefaultHeaderCount     = 128      // Apache and gunicorn take 100
	DefaultChunkExtensions = 16 << 10 // bytes; Go's net/http forgives as much
	DefaultTrailers        = 8 << 10  // bytes
	DefaultDiscard         = 256 << 10

	DefaultHeaderTimeout    = 10 * time.Second
	DefaultBodyTimeout      = 30 * time.Second
	DefaultKeepAliveTimeout = 75 * time.Second // above the 60 s of the usual proxies

	// maxUnsent is how much output a client may leave unread and still have the next of its
	// pipelined requests begun: without a bound it could have any number of answers kept
	// for it. 64 KiB is the high-water mark of a single answer too.
	maxUnsent = 64 << 10

	maxMethod = 64 // bytes; the longest registered method has 17
	maxBlank  = 8  // bytes of empty lines before a request (RFC 9112 2.2)
	maxHex    = 15 // digits of a chunk size
)

// Config is what the connections of one poll loop share. Take DefaultConfig's and change it
// before the first connection; later nothing here may change.
type Config struct {
	// Pool has the buffers; one for each poll loop.
	Pool *Pool

	// LimitRequestLine bounds the request line, its CRLF left out: 414.
	LimitRequestLine int
	// LimitHeaderBytes bounds the bytes of all field lines: 431.
	LimitHeaderBytes int
	// LimitHeaderCount bounds how many there are: 431.
	LimitHeaderCount int
	// LimitBody bounds the body of a request: 413. 0: no bound.
	LimitBody int64
	// LimitChunkExtensions bounds what a chunked body wastes on chunk extensions: 400.
	LimitChunkExtensions int
	// LimitTrailers bounds the bytes of the trailer section: 431.
	LimitTrailers int
	// LimitDiscard is how much of a body that the app did not want is read and dropped so
	// that the connection can go on; where more is left the connection is closed.
	LimitDiscard int64
	// LimitRequests closes a connection after so many requests. 0: no bound.
	LimitRequests int

	// TimeoutHeader is the time in which a head has to arrive, from its first byte: 408.
	// A new connection has it too, and is closed without a word. 0: none.
	TimeoutHeader time.Duration
	// TimeoutBody is the time in which more of a body has to arrive: 408. It stands still
	// while the core itself has paused reading or the client waits for 100 (Continue).
	// 0: none.
	TimeoutBody time.Duration
	// MinBodyRate is how many bytes a second of a body have to arrive, judged over every 2 s in
	// which the connection was read: 408. Time in which the app, and not the client, is waited
	// for does not count. 0: none.
	MinBodyRate int
	// TimeoutKeepAlive is how long a connection may wait for its next request. 0: for ever.
	TimeoutKeepAlive time.Duration

	// Server is the value of the Server field; empty: no such field.
	Server string
	// Date adds a Date field.
	Date bool
	// Headers are added to every answer of the app that has not a field of that name. They
	// are valid. A Date or Server here replaces the one above.
	Headers []call.Field

	// WebSockets judges handshakes (RFC 6455 4.2.1); if it is nil they are ordinary requests,
	// and an app that ignores the Upgrade field answers them (RFC 9110 7.8).
	WebSockets call.WebSockets

	// Proxies are the peers whose X-Forwarded-Proto and X-Forwarded-For are believed; nil:
	// nobody's.
	Proxies *Trusted

	// Draining says that the server stops: every answer closes its connection. May be nil.
	Draining func() bool
	// Clock is the wall clock, for the Date; nil: time.Now.
	Clock func() time.Time
	// Refused is told of every answer that the core gave by itself, and to whom. inCall says
	// that it ended a call that had begun. May be nil.
	Refused func(r *Refusal, peer call.Addr, inCall bool)
	// SilenceExpired is told of connections closed without a word: used ones by
	// TimeoutKeepAlive, those that never began a request by TimeoutHeader. May be nil.
	SilenceExpired func(used bool)
	// Log takes a line about an answer that could not be sent as the app wanted it. May be
	// nil.
	Log func(level, message string)

	standard standardFields
}

// DefaultConfig is a Config with every default, and its own Pool.
func DefaultConfig() *Config {
	return &Config{
		Pool:                 NewPool(),
		LimitRequestLine:     DefaultRequestLine,
		LimitHeaderBytes:     DefaultHeaderBytes,
		LimitHeaderCount:     DefaultHeaderCount,
		LimitChunkExtensions: DefaultChunkExtensions,
		LimitTrailers:        DefaultTrailers,
		LimitDiscard:         DefaultDiscard,
		TimeoutHeader:        DefaultHeaderTimeout,
		TimeoutBody:          DefaultBodyTimeout,
		TimeoutKeepAlive:     DefaultKeepAliveTimeout,
		Server:               "spvn",
		Date:                 true,
	}
}

// standardFields are the fields that every answer gets, ready to be copied: Date first,
// then Server, then the rest.
type standardFields struct {
	block   []byte
	date    int   // end of the Date field line
	server  int   // end of the Server field line
	validTo int64 // carrier's time at which the Date is a new one; 0: build
}

const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT" // IMF-fixdate (RFC 9110 5.6.7)

// fields returns the standard fields for an answer at this time of the carrier.
func (c *Config) fields(now int64) *standardFields {
	s := &c.standard
	if now >= s.validTo {
		c.build(now)
	}
	return s
}

func (c *Config) build(now int64) {
	s := &c.standard
	clock := c.Clock
	if clock == nil {
		clock = time.Now
	}
	wall := clock()
	s.validTo = now + int64(time.Second) - int64(wall.Nanosecond())
	own := func(name string) bool {
		for _, f := range c.Headers {
			if equalFold(f.Name, name) {
				return true
			}
		}
		return false
	}
	b := s.block[:0]
	if c.Date && !own("date") {
		b = append(b, "date: "...)
		b = wall.UTC().AppendFormat(b, dateFormat)
		b = append(b, "\r\n"...)
	}
	s.date = len(b)
	if c.Server != "" && !own("server") {
		b = append(append(append(b, "server: "...), c.Server...), "\r\n"...)
	}
	s.server = len(b)
	for _, f := range c.Headers {
		b = appendField(b, f)
	}
	s.block = b
}

func (c *Config) log(level, message string) {
	if c.Log != nil {
		c.Log(level, message)
	}
}
