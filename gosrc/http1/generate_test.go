package http1

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator makes requests that are mostly right, with a mistake here and there, for the
// differential test.
type generator struct{ *rand.Rand }

func (g generator) pick(choices ...string) string { return choices[g.IntN(len(choices))] }

// rarely returns a mistake one time in n.
func (g generator) rarely(n int, right string, mistakes ...string) string {
	if g.IntN(n) == 0 {
		return g.pick(mistakes...)
	}
	return right
}

func (g generator) request() string {
	var b strings.Builder
	method := g.rarely(20, g.pick("GET", "POST", "PUT", "OPTIONS", "HEAD", "M-SEARCH"), "", "get", "G T", "G\x00T", "G(T", "CONNECT", "PRI", strings.Repeat("X", 70))
	target := g.rarely(8, g.pick("/", "/a?b=c", "/%41%20b", "*", "http://b.c:80/d?e", "//a/./b"),
		"a", "?a", "", "/a b", "/%zz", "/a#b", "/\x7f", "/ä", "http://", "http://u@b/", "https://[::1]/", "b:80", "/a|{}\"<>", "ftp://a/", "http:a", "*a")
	version := g.rarely(15, g.pick("HTTP/1.1", "HTTP/1.1", "HTTP/1.0"), "HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/1", "HTTP/11.1", "HTTP/1.10", "")
	fmt.Fprint(&b, g.rarely(10, "", "\r\n", "\n", " "), method, g.rarely(30, " ", "  ", "\t"), target, g.rarely(30, " ", "  "), version, g.end())
	length, chunked := -1, false
	if g.IntN(40) > 0 {
		fmt.Fprint(&b, "Host:", g.rarely(15, " a.example", "", " a b", " [::1]:80", " a:99999", " a/b", " ä", " u@a"), g.end())
	}
	for range g.IntN(5) {
		switch g.IntN(8) {
		case 0:
			length = g.IntN(12)
			fmt.Fprint(&b, "Content-Length", g.rarely(20, ":", " :"), g.rarely(5, fmt.Sprint(" ", length), "", " +5", " -1", " 5, 5", " 0x5", " 1_0", " 99999999999999999999", " 5 "), g.end())
		case 1:
			chunked = true
			fmt.Fprint(&b, g.pick("Transfer-Encoding", "transfer-encoding"), ": ", g.rarely(5, "chunked", "Chunked", "gzip, chunked", "chunked, gzip", "identity", "chunked,chunked", "", "xchunked", "chunked;a=b", "\x0bchunked"), g.end())
		case 2:
			fmt.Fprint(&b, "Connection: ", g.pick("close", "keep-alive", "upgrade", "a, close"), g.end())
		case 3:
			fmt.Fprint(&b, g.rarely(6, "X-A", "X A", "X-A ", "", "ä", "(", "X\x00"), ":", g.end())
		case 4:
			fmt.Fprint(&b, "X-B: ", g.rarely(6, "value", "a\x00b", "a\rb", "a\nb", "a\x01b", "a\x7fb", "\xff", " \t a \t", "a\r\n b", "a\r\n\tb"), g.end())
		case 5:
			fmt.Fprint(&b, "Expect: ", g.rarely(6, "100-continue", "x"), g.end())
		case 6:
			fmt.Fprint(&b, "X-B: 1", g.end())
		case 7:
			fmt.Fprint(&b, g.rarely(8, "X-C: d", "no colon", " folded: a", "\tfolded", "Host: b"), g.end())
		}
	}
	b.WriteString(g.end())
	switch {
	case chunked:
		for range g.IntN(4) {
			data := strings.Repeat("d", 1+g.IntN(20))
			fmt.Fprint(&b, g.rarely(10, fmt.Sprintf("%x", len(data)), "", "+1", "0x1", " 1", "g", "fffffffffffffffff", "-1"),
				g.rarely(8, "", ";a=b", " ;a", " ", "\t", ";\x00", ";a\rb", ";\"\xff\""), g.end(), data, g.end())
		}
		fmt.Fprint(&b, "0", g.rarely(10, "", ";a", " "), g.end(), g.rarely(5, "", "A: b\r\n", "A: b\n", "no colon\r\n", " a: b\r\n", "A:\x00\r\n"), g.end())
	case length > 0:
		b.WriteString(strings.Repeat("x", length))
	}
	if g.IntN(3) == 0 {
		b.WriteString("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	s := b.String()
	if g.IntN(10) == 0 && len(s) > 0 { // any byte may be any other
		i := g.IntN(len(s))
		s = s[:i] + string([]byte{byte(g.IntN(256))}) + s[i+1:]
	}
	return s
}

func (g generator) end() string { return g.rarely(150, "\r\n", "\n", "\r", "\r\r\n") }
