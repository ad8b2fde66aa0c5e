package http1

// Kind says what sort of refusal it was, for the counters.
type Kind uint8

// Kinds of refusals.
const (
	// Malformed: a head or body that breaks a rule or a limit.
	Malformed Kind = iota
	// WrongProtocol: a TLS hello or an HTTP/2 preface.
	WrongProtocol
	// HeaderTimeout: --timeout-header passed.
	HeaderTimeout
	// BodyTimeout: --timeout-body passed.
	BodyTimeout
	// BodyRate: the body came slower than --min-body-rate.
	BodyRate
)

// Refusal is an answer that the core gives by itself, with the app untouched, before it
// closes the connection.
type Refusal struct {
	Status int
	Kind   Kind
	Text   string // one sentence for the person at the other end
}

// What is refused, and why, in the words that the client reads.
var (
	badStart        = &Refusal{400, Malformed, "The request does not start with a method."}
	badBlank        = &Refusal{400, Malformed, "Too many empty lines before the request."}
	badMethod       = &Refusal{400, Malformed, "The method has a character that is not allowed in a token, or is not followed by one space."}
	badRequestLine  = &Refusal{400, Malformed, "The request line is not METHOD SP TARGET SP HTTP/1.1."}
	badVersion      = &Refusal{400, Malformed, "The request line does not end in an HTTP version."}
	badTarget       = &Refusal{400, Malformed, "The request-target has a form or character that is not allowed."}
	badPercent      = &Refusal{400, Malformed, "The path has a percent sign without two hexadecimal digits."}
	badAuthority    = &Refusal{400, Malformed, "The host in the request-target is not valid."}
	badLineEnd      = &Refusal{400, Malformed, "A line does not end in CRLF."}
	badControl      = &Refusal{400, Malformed, "The head has a control character."}
	badFolding      = &Refusal{400, Malformed, "A field line starts with white space (line folding is obsolete)."}
	badName         = &Refusal{400, Malformed, "A field name is empty or has a character that is not allowed."}
	badColon        = &Refusal{400, Malformed, "There is white space between a field name and its colon."}
	badHost         = &Refusal{400, Malformed, "The Host field is not a valid host."}
	noHost          = &Refusal{400, Malformed, "An HTTP/1.1 request needs a Host field."}
	manyHosts       = &Refusal{400, Malformed, "There is more than one Host field."}
	badLength       = &Refusal{400, Malformed, "The Content-Length is not a number of bytes."}
	manyLengths     = &Refusal{400, Malformed, "There is more than one Content-Length."}
	lengthAndCoding = &Refusal{400, Malformed, "Content-Length and Transfer-Encoding exclude each other."}
	codingIn10      = &Refusal{400, Malformed, "HTTP/1.0 has no Transfer-Encoding."}
	badCoding       = &Refusal{400, Malformed, "The Transfer-Encoding does not end in chunked, or has it twice."}
	unknownCoding   = &Refusal{501, Malformed, "The only transfer coding understood here is chunked."}
	unknownExpect   = &Refusal{417, Malformed, "The only expectation understood here is 100-continue."}
	longMethod      = &Refusal{501, Malformed, "The method is longer than any that is known here."}
	isConnect       = &Refusal{501, Malformed, "CONNECT is not for this server: it is not a proxy."}
	wrongVersion    = &Refusal{505, Malformed, "This server speaks HTTP/1.1 and HTTP/1.0."}
	longRequestLine = &Refusal{414, Malformed, "The request line is too long."}
	largeFields     = &Refusal{431, Malformed, "The fields of the head are too large."}
	manyFields      = &Refusal{431, Malformed, "The head has too many fields."}
	largeBody       = &Refusal{413, Malformed, "The body is larger than this server accepts."}

	isTLS   = &Refusal{400, WrongProtocol, "This port speaks plain HTTP, and the client began with a TLS handshake. Use http:// here."}
	isHTTP2 = &Refusal{505, WrongProtocol, "This port speaks HTTP/1.1, and the client began with HTTP/2. Use HTTP/1.1 here."}

	slowHead = &Refusal{408, HeaderTimeout, "The head of the request did not arrive in time."}
	slowBody = &Refusal{408, BodyTimeout, "The body of the request did not arrive in time."}
	slowRate = &Refusal{408, BodyRate, "The body of the request came too slowly."}

	badChunkSize   = &Refusal{400, Malformed, "A chunk does not start with its size in hexadecimal digits."}
	largeChunk     = &Refusal{400, Malformed, "A chunk size has too many digits."}
	badExtension   = &Refusal{400, Malformed, "A chunk extension has a character that is not allowed."}
	largeExtension = &Refusal{400, Malformed, "The chunk extensions are too large."}
	badChunkEnd    = &Refusal{400, Malformed, "A chunk is not followed by CRLF."}
	badTrailer     = &Refusal{400, Malformed, "A trailer field is not NAME: VALUE CRLF."}
	largeTrailers  = &Refusal{431, Malformed, "The trailer fields are too large."}
	tooMuchBody    = &Refusal{413, Malformed, "The body is larger than this server accepts."}
)

// refuse answers in the core's own words and closes the connection. A call that had begun
// is left; if its answer had begun too, the connection is cut instead.
func (c *Conn) refuse(r *Refusal) {
	inCall := c.call != nil
	if f := c.config.Refused; f != nil {
		f(r, c.peer, inCall)
	}
	if c.answering >= answerStarted {
		c.cut()
		return
	}
	left := c.call
	c.call = nil
	c.respondText(r.Status, r.Text, 0, true)
	c.close()
	if left != nil {
		left.Leave()
	}
}
