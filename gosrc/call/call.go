// Package call holds the types that cross the borders of the core: what a protocol
// hands to dispatch, what dispatch hands back, and what a protocol asks of whoever
// carries its bytes.
//
// Rules:
//   - Nothing here does anything: types and interfaces only, and no import of another
//     package of the core, so that every protocol can be read, tested and fuzzed alone.
//   - Everything that belongs to one connection is touched by one goroutine only: its
//     poll loop (or the goroutine that stands in for it). No method here may block.
//   - A byte slice passed to a method belongs to the caller and is valid until the
//     method returns; who wants to keep it copies it.
package call

// Scheme is the URL scheme of a request as the client sees it.
type Scheme uint8

// Schemes, numbered as in the link's records.
const (
	HTTP Scheme = iota
	HTTPS
	WS
	WSS
)

// String is the scheme's name as an ASGI scope has it.
func (s Scheme) String() string {
	return [...]string{"http", "https", "ws", "wss"}[s&3]
}

// Field is one header or trailer field (RFC 9110 5). In a request the name is in lower
// case and the value has no white space around it.
type Field struct {
	Name, Value []byte
}

// Addr is one end of a connection. An empty Host means unknown; Port is -1 where there
// is none (a unix socket, whose Host is its path).
type Addr struct {
	Host string
	Port int32
}

// Request is the head of a call, with as much of the body as came with it.
type Request struct {
	Method  []byte
	Scheme  Scheme
	Version uint8 // 10, 11 or 20
	// WebSocket marks a handshake (RFC 6455 4, RFC 8441): Scheme is WS or WSS.
	WebSocket bool
	// Continue says that the client waits for 100 (Continue) before it sends the body.
	Continue bool

	Path    []byte // percent-decoded
	RawPath []byte // as it was sent, without the query; nil when it equals Path
	Query   []byte // without the question mark
	Fields  []Field
	Client  Addr
	Server  Addr

	Body     []byte
	BodyLast bool // Body is the whole body
}

// Call is a call in dispatch's hands, as the protocol that brought it sees it. After
// Leave, and after the answer's end, the protocol must not use it again.
type Call interface {
	// Body forwards the next bytes of the request's body; last says that none follow.
	// All of b is taken; a protocol stops reading from its client while Room is 0.
	Body(b []byte, last bool)
	// Room is how many bytes of body may be forwarded now; 0 or less means: pause
	// reading until Answer.Resume.
	Room() int
	// Sent says that the kernel took n more bytes of the answer's body, or that they
	// were dropped because nobody wants them (the answer to HEAD).
	Sent(n int)
	// Leave says that the client went away. Nothing is answered to this call any more.
	Leave()
}

// Dispatcher takes calls. One is bound to each poll loop.
type Dispatcher interface {
	// Start begins the life of a call. a gets its answer, perhaps before Start returns
	// (a refusal), in which case Start returns nil. r is copied.
	Start(r *Request, a Answer) Call
}

// Answer is where the answer to a call goes: the connection (HTTP/1.1) or stream
// (HTTP/2) that it came from. Dispatch calls it from the connection's own goroutine, in
// the order in which the app sent.
type Answer interface {
	// Respond starts the answer. body is its first part; last says that it is all.
	// trailers says that the app announced trailers: RespondTrailers will end the answer.
	Respond(status int, fields []Field, body []byte, last, trailers bool)
	// RespondBody goes on with the answer.
	RespondBody(body []byte, last bool)
	// RespondTrailers ends an answer that announced trailers when last is set.
	RespondTrailers(fields []Field, last bool)
	// Informational sends an interim answer (RFC 9110 15.2), 103 Early Hints for one.
	Informational(status int, fields []Field)
	// Continue says that the app asked for the body: a client that waits for 100
	// (Continue) gets it.
	Continue()
	// Resume says that Room is above 0 again.
	Resume()
	// Fail answers in the app's place: status with a short text when nothing was sent
	// yet, else the connection is cut, which is how HTTP says "incomplete".
	// retryAfter is in seconds; 0 leaves the field out.
	Fail(status int, text string, retryAfter int)
}

// Carrier is what carries a connection's bytes, as its protocol sees it.
type Carrier interface {
	// Now is the loop's monotonic time in nanoseconds, read once for each wake-up.
	Now() int64
	// Buffer is the output not yet handed to the kernel: append to it and give the
	// result back with Commit. What is committed leaves at the end of the wake-up.
	Buffer() []byte
	Commit(b []byte)
	// CommitBody is Commit of b with body behind it. A large body may be handed to the
	// kernel right here, without a copy.
	CommitBody(b, body []byte)
	// Buffered is how many bytes of output the kernel has not taken.
	Buffered() int
	// TakenAt is when (as Now) the peer was last seen to take output that the kernel had, 0 where that
	// is not known. It is asked when somebody is about to lose patience: with one that reads slowly it may
	// be long until the kernel takes more.
	TakenAt() int64
	// Pause stops reading from the peer; Resume goes on.
	Pause()
	Resume()
	// Deadline asks for Protocol.Timeout at this time (as Now); 0 asks for none. A new
	// one replaces the one before. It may come up to a quarter of a second late.
	Deadline(at int64)
	// Idle says whether the connection has no call in flight: then it may be closed when
	// descriptors run short, and it is closed at once when the server drains.
	Idle(idle bool)
	// Close ends the connection once the output has left: the write side is shut, input
	// is discarded for a while so that the peer reads the last answer, then it closes.
	Close()
	// Abort cuts the connection at once; output that the kernel does not take is lost.
	Abort()
}

// Protocol is one connection's sans-IO state machine, as its carrier sees it. After
// Lost, Carrier.Abort or the end of Carrier.Close nothing is called again.
type Protocol interface {
	// Receive takes bytes from the peer, and may change them. It takes all of them: a protocol that wants no
	// more calls Carrier.Pause, and is not called until it resumed.
	Receive(b []byte)
	// PeerClosed says that the peer will send no more (FIN). together: the FIN came in
	// the same wake-up as the last bytes given to Receive. unread: bytes that the kernel
	// still holds before the FIN, because reading is paused.
	PeerClosed(together bool, unread int)
	// Sent says that the kernel took n bytes of output, head and body alike.
	Sent(n int)
	// Timeout says that the time given to Carrier.Deadline has come.
	Timeout()
	// Drain says that the server stops: finish the call in flight, say "Connection:
	// close", then close. An idle connection closes at once.
	Drain()
	// Lost says that the connection is gone (reset, write deadline, shed).
	Lost()
}
