package http1

import (
	"testing"
	"unsafe"

	"spvn/gosrc/call"
)

// browserGet is a typical request of ten fields.
const browserGet = "GET /api/v1/items/42?page=3&sort=name HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: https://www.example.com/api/v1/items\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Cache-Control: no-cache\r\n" +
	"X-Request-Id: 7d4b6a4e-5a39-4f1a-8c1e-0f3a2b1c4d5e\r\n" +
	"\r\n"

// sink is a carrier and a dispatcher that keep nothing.
type sink struct {
	buffer []byte
	answer call.Answer
}

func (s *sink) Now() int64                                     { return 1e9 }
func (s *sink) Buffer() []byte                                 { return s.buffer }
func (s *sink) CommitBody(b, body []byte)                      { s.Commit(append(b, body...)) }
func (s *sink) Commit(b []byte)                                { s.buffer = b[:0] }
func (s *sink) Buffered() int                                  { return 0 }
func (s *sink) TakenAt() int64                                 { return 0 }
func (s *sink) Pause()                                         {}
func (s *sink) Resume()                                        {}
func (s *sink) Deadline(int64)                                 {}
func (s *sink) Idle(bool)                                      {}
func (s *sink) Close()                                         {}
func (s *sink) Abort()                                         {}
func (s *sink) Start(_ *call.Request, a call.Answer) call.Call { s.answer = a; return s }
func (s *sink) Body([]byte, bool)                              {}
func (s *sink) Room() int                                      { return 1 << 16 }
func (s *sink) Sent(int)                                       {}
func (s *sink) Leave()                                         {}

func newBench() (*Conn, *sink) {
	s := &sink{buffer: make([]byte, 0, 16<<10)}
	return New(DefaultConfig(), s, s, call.Addr{Host: "192.0.2.1", Port: 1}, call.Addr{Host: "192.0.2.2", Port: 80}, call.HTTP), s
}

var benchFields = []call.Field{
	field("content-type", "application/json"),
	field("content-length", "27"),
	field("x-request-id", "7d4b6a4e-5a39-4f1a-8c1e-0f3a2b1c4d5e"),
}

var benchBody = []byte(`{"message":"hello, world!"}`)

func BenchmarkHead(b *testing.B) {
	cfg, input := DefaultConfig(), []byte(browserGet)
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	for b.Loop() {
		h := cfg.Pool.head()
		if n, r := h.parse(input, cfg); n != len(input) || r != nil || h.check(cfg) != nil {
			b.Fatal(n, r)
		}
		cfg.Pool.recycleHead(h)
	}
}

func BenchmarkHeadSmall(b *testing.B) {
	cfg, input := DefaultConfig(), []byte(get)
	b.ReportAllocs()
	for b.Loop() {
		h := cfg.Pool.head()
		if n, r := h.parse(input, cfg); n != len(input) || r != nil || h.check(cfg) != nil {
			b.Fatal(n, r)
		}
		cfg.Pool.recycleHead(h)
	}
}

func BenchmarkAnswer(b *testing.B) {
	c, _ := newBench()
	c.Receive([]byte(get))
	b.ReportAllocs()
	for b.Loop() {
		c.active, c.answering = true, answerDue
		c.Respond(200, benchFields, benchBody, true, false)
	}
}

// BenchmarkExchange is a whole GET and its answer.
func BenchmarkExchange(b *testing.B) {
	c, s := newBench()
	input := []byte(browserGet)
	b.ReportAllocs()
	for b.Loop() {
		c.Receive(input)
		s.answer.Respond(200, benchFields, benchBody, true, false)
	}
}

// BenchmarkPost is a POST of 10 KB and its answer.
func BenchmarkPost(b *testing.B) {
	c, s := newBench()
	input := append([]byte("POST /echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10240\r\n\r\n"), make([]byte, 10240)...)
	b.ReportAllocs()
	for b.Loop() {
		c.Receive(input)
		s.answer.Respond(200, benchFields, benchBody, true, false)
	}
}

// BenchmarkChunked is an upload of 64 KB in chunks of 1 KB.
func BenchmarkChunked(b *testing.B) {
	c, s := newBench()
	head := []byte("POST /echo HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n")
	var body []byte
	for range 64 {
		body = append(append(append(body, "400\r\n"...), make([]byte, 1024)...), "\r\n"...)
	}
	body = append(body, "0\r\n\r\n"...)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		c.Receive(head)
		c.Receive(body)
		s.answer.Respond(200, benchFields, benchBody, true, false)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	c, s := newBench()
	input := []byte(browserGet)
	n := testing.AllocsPerRun(100, func() {
		c.Receive(input)
		s.answer.Respond(200, benchFields, benchBody, true, false)
	})
	if n != 0 {
		t.Errorf("%v allocations for a GET and its answer; want 0", n)
	}
}

func TestIdleConnIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 256 {
		t.Errorf("a Conn has %d bytes; want at most 256", n)
	}
	c, s := newBench()
	c.Receive([]byte(get[:20]))
	c.Receive([]byte(get[20:]))
	s.answer.Respond(200, nil, benchBody, true, false)
	if c.in != nil || c.head != nil || c.call != nil {
		t.Errorf("an idle Conn holds on to in %v, head %v, call %v; want nothing", c.in != nil, c.head != nil, c.call != nil)
	}
}
