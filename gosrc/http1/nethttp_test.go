package http1

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// parsed is one request as a parser sees it.
type parsed struct {
	method, path, host, body string
	fields                   []string // sorted, names in lower case, without Host and framing
	close                    bool
	rest                     int // bytes behind it
}

// ours parses the first request of in; why is set if it is refused, and "incomplete" if
// there is too little of it.
func ours(in string) (p parsed, why string) {
	cfg := DefaultConfig()
	b := []byte(in)
	for len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		b = b[2:]
	}
	h := cfg.Pool.head()
	n, r := h.parse(b, cfg)
	if r == nil && n > 0 {
		r = h.check(cfg)
	}
	if r != nil {
		return p, r.Text
	}
	if n == 0 {
		return p, "incomplete"
	}
	h.fill(&h.request)
	p.method, p.path, p.close = string(h.method), string(h.path), !h.persistent()
	for _, f := range h.fields {
		switch name := string(f.Name); name {
		case "host":
			p.host = string(f.Value)
		case "transfer-encoding", "content-length":
		default:
			p.fields = append(p.fields, name+": "+string(f.Value))
		}
	}
	b = b[n:]
	var d body
	d.startLength(max(h.length, 0))
	if h.chunked {
		d.startChunked()
	}
	for !d.done() {
		if len(b) == 0 {
			return p, "incomplete"
		}
		used, data, r := d.next(b, cfg)
		if r != nil {
			return p, r.Text
		}
		p.body += string(data)
		b = b[used:]
	}
	p.rest = len(b)
	slices.Sort(p.fields)
	return p, ""
}

// theirs is what net/http makes of it.
func theirs(in string) (p parsed, err error) {
	r := bufio.NewReader(strings.NewReader(in))
	for {
		if b, _ := r.Peek(2); string(b) != "\r\n" {
			break
		}
		r.Discard(2)
	}
	q, err := http.ReadRequest(r)
	if err != nil {
		return p, err
	}
	b, err := io.ReadAll(q.Body)
	if err != nil {
		return p, err
	}
	p.method, p.path, p.host, p.body = q.Method, q.URL.Path, q.Host, string(b)
	if p.path == "" {
		p.path = "/"
	}
	p.close = q.Close
	for name, values := range q.Header {
		switch name {
		case "Content-Length", "Transfer-Encoding":
			continue
		}
		for _, v := range values {
			p.fields = append(p.fields, strings.ToLower(name)+": "+v)
		}
	}
	rest, _ := io.ReadAll(r)
	p.rest = len(rest)
	slices.Sort(p.fields)
	return p, nil
}

// stricter lists what we refuse and net/http's ReadRequest takes, with the reason.
var stricter = map[string]string{
	badLineEnd.Text:      "net/http takes a bare LF for a line end; RFC 9112 2.2 lets a recipient do so, and proxies differ there",
	wrongVersion.Text:    "net/http's server refuses these with 505 too, ReadRequest does not",
	badRequestLine.Text:  "net/http takes an empty target of CONNECT",
	badTarget.Text:       "net/http takes raw UTF-8, fragments, asterisks of any method and any scheme",
	badAuthority.Text:    "net/http takes user@host and an empty host (RFC 9110 4.2)",
	badHost.Text:         "net/http's server checks Host more loosely, ReadRequest not at all",
	noHost.Text:          "net/http's server refuses it, ReadRequest does not",
	badFolding.Text:      "net/http unfolds (RFC 9112 5.2 allows either)",
	badColon.Text:        "net/http's ReadRequest takes it as a part of the name",
	manyLengths.Text:     "net/http takes equal ones for one (RFC 9110 8.6 allows either)",
	lengthAndCoding.Text: "net/http drops the Content-Length (RFC 9112 6.3 allows either)",
	codingIn10.Text:      "net/http ignores Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1: faulty framing)",
	badCoding.Text:       "net/http ignores it in HTTP/1.0",
	unknownExpect.Text:   "net/http's server refuses it with 417, ReadRequest does not",
	longMethod.Text:      "net/http takes methods of any length",
	badChunkSize.Text:    "net/http takes white space behind a chunk size",
	badExtension.Text:    "net/http does not look into chunk extensions",
	badTrailer.Text:      "net/http takes bare LF and folding in trailers",
}

// TestAgainstNetHTTP parses generated requests with net/http too. What we take it must take,
// and understand in the same way; what only we refuse must be one of those listed above.
func TestAgainstNetHTTP(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(1, 2))}
	n := 30000
	if testing.Short() {
		n = 3000
	}
	taken, wrong, seen := 0, 0, map[string]int{}
	for range n {
		in := g.request()
		a, why := ours(in)
		b, err := theirs(in)
		switch {
		case why == "" && err != nil:
			wrong++
			t.Errorf("%q: taken; net/http says %v", in, err)
		case why == "":
			taken++
			if fmt.Sprint(a) != fmt.Sprint(b) {
				wrong++
				t.Errorf("%q: got\n%+v; net/http has\n%+v", in, a, b)
			}
		case err == nil:
			seen[why]++
			if stricter[why] == "" && seen[why] == 1 {
				t.Errorf("%q: refused (%s); net/http takes it as %+v", in, why, b)
			}
		}
		if wrong > 9 {
			return
		}
	}
	if taken < n/5 {
		t.Errorf("only %d of %d requests were taken; the generator makes too many mistakes", taken, n)
	}
	for why := range stricter {
		if !testing.Short() && seen[why] == 0 {
			t.Errorf("net/http refuses it too: %s; want it off the list", why)
		}
	}
}

// TestTypicalAgainstNetHTTP compares what must be taken by both.
func TestTypicalAgainstNetHTTP(t *testing.T) {
	for _, in := range []string{get, browserGet, post + "Content-Length: 2\r\n\r\nab", post + te + "\r\n2;x\r\nab\r\n0\r\nT: u\r\n\r\nrest"} {
		a, why := ours(in)
		b, err := theirs(in)
		if why != "" || err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%q: got\n%+v %s; net/http has\n%+v %v", in, a, why, b, err)
		}
	}
}
