package http1

// body takes the body of a request apart (RFC 9112 6.3, 7.1). It keeps a position, not
// bytes, so input may be cut anywhere.
type body struct {
	left   int64 // bytes that follow: of the body, or of the chunk (its size, while that is read)
	total  int64 // bytes of body so far; of a chunked one
	wasted int32 // bytes of chunk extensions, or of trailers
	digits uint8
	state  bodyState
}

type bodyState uint8

const (
	bodyDone       bodyState = iota // nothing follows
	bodyLength                      // left bytes follow
	chunkSize                       // hexadecimal digits
	chunkExtension                  //
	chunkSizeLF                     // the LF of the size's line
	chunkData                       // left bytes follow
	chunkCR                         // the CRLF behind them
	chunkLF                         //
	trailerStart                    // a trailer field line, or the last CRLF
	trailerName                     //
	trailerValue                    //
	trailerLF                       // the LF of a trailer field line
	trailerEnd                      // the last LF
)

func (d *body) startLength(n int64) {
	*d = body{left: n, state: bodyLength}
	if n == 0 {
		d.state = bodyDone
	}
}

func (d *body) startChunked() { *d = body{state: chunkSize} }

func (d *body) done() bool { return d.state == bodyDone }

// known returns how many bytes of body follow, or -1 when only the client knows.
func (d *body) known() int64 {
	switch d.state {
	case bodyDone:
		return 0
	case bodyLength:
		return d.left
	}
	return -1
}

// next returns the next bytes of body in b, and how many bytes of b that took. It stops
// behind a piece of body or at the body's end; nothing taken means that it needs more.
func (d *body) next(b []byte, cfg *Config) (used int, data []byte, r *Refusal) {
	for used < len(b) {
		switch d.state {
		case bodyDone:
			return used, nil, nil
		case bodyLength, chunkData:
			n := int(min(d.left, int64(len(b)-used)))
			data = b[used : used+n]
			d.left -= int64(n)
			if d.left == 0 {
				if d.state == chunkData {
					d.state = chunkCR
				} else {
					d.state = bodyDone
				}
			}
			return used + n, data, nil
		}
		if r := d.frame(b[used], cfg); r != nil {
			return used, nil, r
		}
		used++
	}
	return used, nil, nil
}

// frame takes one byte of chunked framing.
func (d *body) frame(c byte, cfg *Config) *Refusal {
	switch d.state {
	case chunkSize:
		if v := hexValue[c]; v != 0xff {
			if d.digits++; d.digits > maxHex {
				return largeChunk
			}
			d.left = d.left<<4 | int64(v)
			return nil
		}
		if d.digits == 0 {
			return badChunkSize
		}
		return d.sizeEnd(c, cfg)
	case chunkExtension:
		if c == '\r' {
			return d.sizeEnd(c, cfg)
		}
		if c < 0x20 && c != '\t' || c == 0x7f {
			return badExtension
		}
		return d.waste(cfg.LimitChunkExtensions, largeExtension)
	case chunkSizeLF:
		if c != '\n' {
			return badChunkSize
		}
		d.digits = 0
		if d.left == 0 {
			d.wasted = 0
			d.state = trailerStart
			return nil
		}
		// Body pays for extensions, or long uploads with them would fail; as net/http does.
		d.wasted = max(0, d.wasted-16-int32(min(d.left, 1<<20))*2)
		d.state = chunkData
	case chunkCR:
		if c != '\r' {
			return badChunkEnd
		}
		d.state = chunkLF
	case chunkLF:
		if c != '\n' {
			return badChunkEnd
		}
		d.state = chunkSize
	default:
		return d.trailer(c, cfg)
	}
	return nil
}

// sizeEnd takes the byte behind a chunk size or its extensions.
func (d *body) sizeEnd(c byte, cfg *Config) *Refusal {
	switch c {
	case '\r':
		d.total += d.left
		if cfg.LimitBody > 0 && d.total > cfg.LimitBody {
			return tooMuchBody
		}
		d.state = chunkSizeLF
		return nil
	case ';':
		// RFC 9112 7.1.1 lets white space stand before it; nobody sends that, and neither
		// net/http nor h11 takes it.
		d.state = chunkExtension
	default:
		return badChunkSize
	}
	return d.waste(cfg.LimitChunkExtensions, largeExtension)
}

// trailer takes one byte of the trailer section (RFC 9112 7.1.2). The fields are checked
// and dropped: ASGI has no place for them.
func (d *body) trailer(c byte, cfg *Config) *Refusal {
	switch d.state {
	case trailerStart:
		if c == '\r' {
			d.state = trailerEnd
			return nil
		}
		if tokenLower[c] == 0 {
			return badTrailer
		}
		d.state = trailerName
	case trailerName:
		if c == ':' {
			d.state = trailerValue
		} else if tokenLower[c] == 0 {
			return badTrailer
		}
	case trailerValue:
		if c == '\r' {
			d.state = trailerLF
		} else if c < 0x20 && c != '\t' || c == 0x7f {
			return badTrailer
		}
	case trailerLF:
		if c != '\n' {
			return badTrailer
		}
		d.state = trailerStart
	case trailerEnd:
		if c != '\n' {
			return badTrailer
		}
		d.state = bodyDone
		return nil
	}
	return d.waste(cfg.LimitTrailers, largeTrailers)
}

func (d *body) waste(limit int, r *Refusal) *Refusal {
	if d.wasted++; int(d.wasted) > limit {
		return r
	}
	return nil
}
