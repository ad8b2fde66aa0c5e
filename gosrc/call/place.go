package call

// What is large goes from the client to where it has to go without a copy in between. Both sides of that are abilities
// which a Call or a Protocol may have or not; without them bytes come by Body, Message and Receive.

// Placer is a Call that has a place of its own for what comes of a request's body.
type Placer interface {
	// Place returns memory for up to n of the body's next bytes; nil: they have to come by Body. Placed follows,
	// before anything else is asked of any call of this loop.
	Place(n int) []byte
	// Placed says that the first n bytes of that memory are body now; last says that none follow. n may be 0,
	// which is no part of a body.
	Placed(n int, last bool)
}

// MessagePlacer is a WebSocketCall that has a place of its own for a message.
type MessagePlacer interface {
	// PlaceMessage returns memory for a message of n bytes, which is forwarded with what stands there when it is the
	// loop's turn to do so; nil: it has to come by Message.
	PlaceMessage(text bool, n int) []byte
}

// Lander is a Protocol whose next input may have a place of its own.
type Lander interface {
	// Target returns memory for the peer's next bytes; nil: they have to come by Receive. Landed follows, before
	// anything else is asked of any connection of this loop.
	Target() []byte
	// Landed says that n bytes of input were read to there; it may be 0.
	Landed(n int)
}
