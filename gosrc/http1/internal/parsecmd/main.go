// Command parsecmd shows what an HTTP/1.1 connection makes of given bytes, for tests in
// other languages. Standard input is a sequence of inputs, each a big-endian u32 length and
// so many bytes. Each is fed to a connection of its own whose app answers every call with
// 200 once the request is complete, and one line of JSON for it goes to standard output.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"spvn/gosrc/call"
	"spvn/gosrc/http1"
)

// result is one line of output. Bytes are base64, as encoding/json has them.
type result struct {
	Requests []*request `json:"requests"`
	Refused  int        `json:"refused"` // a status; 0: nothing was
	Reason   string     `json:"reason"`
	Closed   bool       `json:"closed"` // by the server
}

type request struct {
	Method   []byte      `json:"method"`
	Target   []byte      `json:"target"` // path as sent, and query
	Version  uint8       `json:"version"`
	Fields   [][2][]byte `json:"fields"`
	Content  []byte      `json:"body"`
	Complete bool        `json:"complete"`

	answer call.Answer
}

// peer is both ends of the connection: its carrier, its dispatcher and the app's calls.
type peer struct {
	result result
	out    []byte
}

func (p *peer) Now() int64                { return 1 }
func (p *peer) Buffer() []byte            { return p.out[:0] }
func (p *peer) Commit(b []byte)           { p.out = b }
func (p *peer) CommitBody(b, body []byte) { p.out = append(b, body...) }
func (p *peer) Buffered() int             { return 0 }
func (p *peer) TakenAt() int64            { return 0 }
func (p *peer) Pause()                    {}
func (p *peer) Resume()                   {}
func (p *peer) Deadline(int64)            {}
func (p *peer) Idle(bool)                 {}
func (p *peer) Close()                    { p.result.Closed = true }
func (p *peer) Abort()                    { p.result.Closed = true }

// Start implements call.Dispatcher.
func (p *peer) Start(r *call.Request, a call.Answer) call.Call {
	target := r.RawPath
	if target == nil {
		target = r.Path
	}
	target = bytes.Clone(target)
	if len(r.Query) > 0 {
		target = append(append(target, '?'), r.Query...)
	}
	q := &request{Method: bytes.Clone(r.Method), Target: target, Version: r.Version, Fields: [][2][]byte{}, Content: []byte{}, answer: a}
	for _, f := range r.Fields {
		q.Fields = append(q.Fields, [2][]byte{bytes.Clone(f.Name), bytes.Clone(f.Value)})
	}
	p.result.Requests = append(p.result.Requests, q)
	q.Body(r.Body, r.BodyLast)
	if r.BodyLast {
		return nil
	}
	return q
}

// Body implements call.Call.
func (q *request) Body(b []byte, last bool) {
	q.Content = append(q.Content, b...)
	if q.Complete = last; last {
		q.answer.Respond(200, nil, nil, true, false)
	}
}

// Room implements call.Call.
func (q *request) Room() int { return 1 << 30 }

// Sent implements call.Call.
func (q *request) Sent(int) {}

// Leave implements call.Call.
func (q *request) Leave() {}

func run(in io.Reader, out io.Writer) error {
	r, w := bufio.NewReader(in), bufio.NewWriter(out)
	encoder := json.NewEncoder(w)
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); errors.Is(err, io.EOF) {
			return w.Flush()
		} else if err != nil {
			return fmt.Errorf("reading a length: %w", err)
		}
		input := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(r, input); err != nil {
			return fmt.Errorf("reading %d bytes: %w", len(input), err)
		}
		p := &peer{result: result{Requests: []*request{}}}
		cfg := http1.DefaultConfig()
		cfg.Refused = func(r *http1.Refusal, _ call.Addr, _ bool) { p.result.Refused, p.result.Reason = r.Status, r.Text }
		http1.New(cfg, p, p, call.Addr{}, call.Addr{}, call.HTTP).Receive(input)
		if err := encoder.Encode(&p.result); err != nil {
			return err
		}
	}
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "parsecmd:", err)
		os.Exit(1)
	}
}
