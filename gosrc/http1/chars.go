package http1

import (
	"encoding/binary"
	"math/bits"
)

// Character classes, one table look-up each. Everything not listed is refused.
var (
	// tokenLower has the lower-case form of every tchar (RFC 9110 5.6.2), 0 for the rest.
	tokenLower = tokens()
	// targetClass sorts the bytes of a request-target: any visible ASCII character but
	// "#", which no form of it has (RFC 9112 3.2). RFC 3986 allows fewer ("|", "{" and
	// others have to be percent-encoded), but browsers send them as they are.
	targetClass = targets()
	// hostChar marks what a reg-name or IPv4address is made of (RFC 3986 3.2.2), but for
	// percent-encoding.
	hostChar = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=")
	// literalChar marks what an IPv6address is made of. There is no IPvFuture, and zones
	// have no meaning to anybody but the client (RFC 9844).
	literalChar = set("abcdefABCDEF0123456789:.")
	// hexValue has the value of a hexadecimal digit, 0xff for the rest.
	hexValue = hexDigits()
)

// Classes of targetClass.
const (
	targetBad = iota
	targetPlain
	targetPercent
	targetQuestion
)

func set(chars string) (t [256]bool) {
	for i := range len(chars) {
		t[chars[i]] = true
	}
	return t
}

func tokens() (t [256]byte) {
	const chars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
	for i := range len(chars) {
		t[chars[i]] = chars[i]
	}
	for c := 'A'; c <= 'Z'; c++ {
		t[c] = byte(c) + 'a' - 'A'
	}
	return t
}

func targets() (t [256]byte) {
	for c := 0x21; c <= 0x7e; c++ {
		t[c] = targetPlain
	}
	t['#'] = targetBad
	t['%'] = targetPercent
	t['?'] = targetQuestion
	return t
}

func hexDigits() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	const digits = "0123456789abcdef"
	for i := range len(digits) {
		t[digits[i]] = byte(i)
	}
	for c := 'A'; c <= 'F'; c++ {
		t[c] = byte(c-'A') + 10
	}
	return t
}

const (
	everyByte = 0x0101010101010101
	highBits  = 0x80 * everyByte
)

// control finds the first control character (below 0x20, or DEL) in b at or behind i, and
// returns len(b) when there is none. It looks at eight bytes at a time; a borrow can only
// mark bytes above the first one marked, so the lowest mark is always right.
func control(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ 0x7f*everyByte
		m := ((x - 0x20*everyByte) & ^x & highBits) | ((del - everyByte) & ^del & highBits)
		if m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] < 0x20 || b[i] == 0x7f {
			return i
		}
	}
	return i
}

// validToken reports whether b is a token (RFC 9110 5.6.2).
func validToken(b []byte) bool {
	for _, c := range b {
		if tokenLower[c] == 0 {
			return false
		}
	}
	return len(b) > 0
}

// trim takes spaces and tabs off both ends (OWS, RFC 9110 5.6.3).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold reports whether b is s, which is in lower case, in any case of letters.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// eachElement calls f for every element of a comma-separated list, without the white space
// around it; empty elements are passed over (RFC 9110 5.6.1.2). It stops when f returns
// false.
func eachElement(list []byte, f func(element []byte) bool) {
	for len(list) > 0 {
		element := list
		list = nil
		for i, c := range element {
			if c == ',' {
				element, list = element[:i], element[i+1:]
				break
			}
		}
		if element = trim(element); len(element) > 0 && !f(element) {
			return
		}
	}
}

// hasElement reports whether a list has this element, in any case.
func hasElement(list []byte, element string) bool {
	found := false
	eachElement(list, func(e []byte) bool {
		found = equalFold(e, element)
		return !found
	})
	return found
}

// decimal reads 1*DIGIT, as Content-Length has it. ok is false for anything else, and for
// more than an int64 holds.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return leadingZeros(b)
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// leadingZeros is decimal for what is longer than 18 digits.
func leadingZeros(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	for len(b) > 18 {
		if b[0] != '0' {
			return 0, false
		}
		b = b[1:]
	}
	return decimal(b)
}
