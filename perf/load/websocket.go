package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// runWebSocket sends messages of one size to an echo and waits for each to come back, with up to -flight of them on
// their way on each connection. With -broadcast only the first connection sends, one message at a time, and every
// connection waits for each: the app sends what it receives to all. Nothing is compressed. A call is a message that came back.
func runWebSocket(args []string) (any, error) {
	f := flag.NewFlagSet("websocket", flag.ExitOnError)
	var t target
	t.flags(f)
	connections := f.Int("connections", 64, "connections")
	size := f.Int("size", 64, "bytes of a message")
	flight := f.Int("flight", 1, "messages on their way on each connection")
	broadcast := f.Bool("broadcast", false, "the first connection sends, all receive")
	duration := f.Duration("duration", 5*time.Second, "length of the run")
	_ = f.Parse(args)
	if *connections < 1 || *flight < 1 || *size < 0 {
		return nil, fmt.Errorf("-connections, -flight and -size must be at least 1, 1 and 0")
	}
	if err := t.prepareHandshake(); err != nil {
		return nil, err
	}
	clients := make([]*socket, *connections)
	for n := range clients {
		s, err := t.upgrade(n, *size)
		if err != nil {
			return nil, fmt.Errorf("handshake %d: %w", n, err)
		}
		clients[n] = s
		defer s.Close()
	}
	sum := newTotal()
	start := time.Now()
	deadline := start.Add(*duration)
	if *broadcast {
		sum.add(runBroadcast(clients, deadline))
	} else {
		var wg sync.WaitGroup
		for _, s := range clients {
			wg.Go(func() { sum.add(s.pingPong(*flight, deadline, t.timeout)) })
		}
		wg.Wait()
	}
	report := &closedReport{
		account: sum.account, Connections: *connections, Seconds: time.Since(start).Seconds(), Call: quantilesOf(sum.calls),
	}
	return report, report.balance()
}

func (t *target) prepareHandshake() error {
	t.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", t.path, t.addr)
	parsed, err := http.NewRequest("GET", "http://"+t.addr+t.path, nil)
	t.parsed = parsed
	return err
}

// socket is one WebSocket connection; its frames in both directions are known but for their payload.
type socket struct {
	*client
	frame []byte // a masked binary message
	size  int
}

func (t *target) upgrade(n, size int) (*socket, error) {
	c, err := t.dial(n)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(t.timeout)); err != nil {
		return nil, err
	}
	if _, err := c.Write(t.request); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(c.reader, t.parsed)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != 101 {
		return nil, fmt.Errorf("status %d", answer.StatusCode)
	}
	c.reader = bufio.NewReaderSize(c.reader, 32<<10)
	return &socket{client: c, frame: maskedFrame(size), size: size}, nil
}

// maskedFrame is a final binary frame; the masking key is fixed, which costs a server as much as any.
func maskedFrame(size int) []byte {
	b := []byte{0x82}
	switch {
	case size < 126:
		b = append(b, 0x80|byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(size))
	}
	b = append(b, 1, 2, 3, 4)
	payload := bytes.Repeat([]byte{'x'}, size)
	for i := range payload {
		payload[i] ^= byte(1 + i&3)
	}
	return append(b, payload...)
}

var errMessage = errors.New("a message is not what was sent")

// receive reads one message, of any number of frames; pings are passed over.
func (s *socket) receive() error {
	total := 0
	for {
		var head [10]byte
		if _, err := io.ReadFull(s.reader, head[:2]); err != nil {
			return err
		}
		final, opcode, length := head[0]&0x80 != 0, head[0]&0xf, int(head[1]&0x7f)
		switch length {
		case 126:
			if _, err := io.ReadFull(s.reader, head[2:4]); err != nil {
				return err
			}
			length = int(binary.BigEndian.Uint16(head[2:]))
		case 127:
			if _, err := io.ReadFull(s.reader, head[2:]); err != nil {
				return err
			}
			length = int(binary.BigEndian.Uint64(head[2:]))
		}
		if _, err := s.reader.Discard(length); err != nil {
			return err
		}
		if opcode == 8 {
			return io.ErrUnexpectedEOF
		}
		if opcode > 8 {
			continue
		}
		if total += length; final {
			if total != s.size {
				return errMessage
			}
			return nil
		}
	}
}

// pingPong keeps flight messages on their way until the deadline, then waits for those that are.
func (s *socket) pingPong(flight int, deadline time.Time, timeout time.Duration) *account {
	a := newAccount()
	sent := make([]time.Time, 0, flight) // when each was sent that is on its way, oldest first
	batch := bytes.Repeat(s.frame, flight)
	_ = s.SetDeadline(deadline.Add(timeout))
	send := func(n int) bool {
		now := time.Now()
		a.Planned += n
		for range n {
			sent = append(sent, now)
		}
		if _, err := s.Write(batch[:n*len(s.frame)]); err != nil {
			a.Errors["write: "+kind(err)] += len(sent)
			return false
		}
		return true
	}
	if !send(flight) {
		return a
	}
	for len(sent) > 0 {
		came := 0
		for came == 0 || came < len(sent) && s.reader.Buffered() >= 2+s.size {
			if err := s.receive(); err != nil {
				a.Errors["read: "+kind(err)] += len(sent) - came
				now := time.Now()
				for _, at := range sent[:came] {
					a.answered(200, now.Sub(at))
				}
				return a
			}
			came++
		}
		now := time.Now()
		for _, at := range sent[:came] {
			a.answered(200, now.Sub(at))
		}
		sent = append(sent[:0], sent[came:]...)
		if now.Before(deadline) && !send(came) {
			return a
		}
	}
	return a
}

// runBroadcast sends the next message once all connections have the one before.
func runBroadcast(clients []*socket, deadline time.Time) *account {
	a := newAccount()
	type arrival struct {
		at  time.Time
		err error
	}
	arrivals := make(chan arrival, len(clients))
	for _, s := range clients {
		_ = s.SetDeadline(deadline.Add(10 * time.Second))
		go func() {
			for {
				err := s.receive()
				arrivals <- arrival{time.Now(), err}
				if err != nil {
					return
				}
			}
		}()
	}
	for time.Now().Before(deadline) {
		a.Planned += len(clients)
		sent := time.Now()
		if _, err := clients[0].Write(clients[0].frame); err != nil {
			a.Errors["write: "+kind(err)] += len(clients)
			return a
		}
		lost := false
		for range clients {
			got := <-arrivals
			if got.err != nil {
				a.failed("read", got.err)
				lost = true
				continue
			}
			a.answered(200, got.at.Sub(sent))
		}
		if lost {
			return a
		}
	}
	return a
}
