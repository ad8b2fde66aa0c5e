package call

// WebSockets judges WebSocket handshakes and makes connections of them. One is bound to
// each poll loop, and what it makes belongs to that loop too.
type WebSockets interface {
	// Handshake judges a request whose Upgrade field asks for WebSocket (RFC 6455 4.2.1).
	// upgrade says that its Connection field has the option "upgrade" too. It returns the
	// handshake, or what to answer in the app's place; neither means that it is an ordinary
	// request. Nothing of r is kept.
	Handshake(r *Request, upgrade bool) (Handshake, *HandshakeError)
}

// HandshakeError is the answer to a handshake that cannot be granted.
type HandshakeError struct {
	Status int
	Text   string  // one sentence for the person at the other end
	Fields []Field // more fields
}

// Handshake is one that may be granted, while the app makes up its mind.
type Handshake interface {
	// Fields appends what the answer 101 must say, ahead of the app's own fields.
	// subprotocol is empty if the app chose none. The result is valid until the next call
	// of any handshake of this poll loop. A problem says why there is no such answer.
	Fields(subprotocol []byte, fields []Field) (list []Field, problem string)
	// Open makes the connection, once that answer was written. carrier may be any stream of
	// bytes: a connection after the answer 101, or an HTTP/2 stream (RFC 8441).
	Open(carrier Carrier, c WebSocketCall) WebSocketProtocol
}

// WebSocketProtocol is a WebSocket connection, seen by its carrier and by dispatch.
type WebSocketProtocol interface {
	Protocol
	WebSocket
}

// Switcher is a Carrier that can change its protocol, which an answer 101 needs.
type Switcher interface {
	// Switch gives the bytes that come from now on, and all that is told of the connection,
	// to p.
	Switch(p Protocol)
}

// WebSocketAnswer is the Answer to a call with Request.WebSocket.
type WebSocketAnswer interface {
	Answer
	// Accept grants the handshake, and returns what the call's further answers go to. It is
	// nil where the handshake could not be granted; the call was left then. Messages of the
	// client, and its end, may come before Accept returns.
	Accept(subprotocol []byte, fields []Field) WebSocket
}

// WebSocket is an open connection as dispatch sees it. Of an Answer's methods only Resume
// and Fail are called: room for messages is there again; the app failed or its worker
// ended, and the client is told so by a close frame.
type WebSocket interface {
	Answer
	// Send sends a message, or with more a part of one: the rest follows in the next calls.
	Send(text bool, b []byte, more bool)
	// CloseWith begins the closing handshake on the app's behalf (RFC 6455 7.1.2). The call
	// has ended with it.
	CloseWith(code int, reason []byte)
	// Restart closes the connection with 1012 because its worker goes away. The call is told
	// by WebSocketCall.Closed.
	Restart()
}

// SendCost is what each call of WebSocket.Send weighs in Call.Sent besides its bytes, so that
// empty messages count too. The link's schema has the same number.
const SendCost = 8

// WebSocketCall is a Call whose handshake the app accepted, as its connection sees it. It
// ends by Leave if the client vanished, else by Closed or by WebSocket.CloseWith or Fail.
type WebSocketCall interface {
	Call
	// Message forwards a whole message. All of b is taken; a connection stops reading from
	// its client while Ready is false.
	Message(text bool, b []byte)
	// Ready says whether another message may be forwarded; if not: pause reading until
	// WebSocket.Resume.
	Ready() bool
	// Failing says that the client broke the rules, and why the connection will be closed
	// for it. The app hears so behind the messages that came before; what it sends until
	// then is still sent. WebSocket.CloseWith follows once it has heard.
	Failing(code int, reason []byte)
	// Closed says that the connection was closed in order, and what the app is to hear of it
	// (RFC 6455 7.1.5, 7.1.6).
	Closed(code int, reason []byte)
}
