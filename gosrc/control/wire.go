package control

import (
	"fmt"

	"spvn/gosrc/call"
	"spvn/gosrc/http1"
	"spvn/gosrc/observe"
	"spvn/gosrc/transport"
)

// loop is what a server does with one of its loops, whichever transport it is of. Listen
// and Drain are for functions that were posted to it.
type loop interface {
	Start()
	Stop()
	Done() <-chan struct{}
	Post(f func())
	Listen(fd int, local call.Addr, wildcard, unixSocket bool) error
	Drain()
}

var (
	_ loop = (*transport.Loop)(nil)
	_ loop = (*transport.NetLoop)(nil)
)

// newLoop makes loop i of the transport that the configuration names.
func (s *server) newLoop(i, bell int, config *transport.Config) (loop, error) {
	switch s.config.Transport {
	case "", "poll":
		return transport.NewLoop(i, bell, config, &s.shared, s.dispatch.Shard(i))
	case "goroutines":
		return transport.NewNetLoop(i, bell, config, &s.shared, s.dispatch.Shard(i))
	}
	return nil, fmt.Errorf("there is no transport %q; SPVN_TRANSPORT is poll or goroutines", s.config.Transport)
}

// transportConfig is what all loops of the server share; it also chooses the protocol of
// a connection.
func (s *server) transportConfig() *transport.Config {
	protocols := make([]*http1.Config, len(s.counters))
	for i := range protocols {
		protocols[i] = s.http1Config(s.counters[i])
	}
	return &transport.Config{
		NewProtocol: func(loop int, c call.Carrier, peer, local call.Addr, scheme call.Scheme) call.Protocol {
			return http1.New(protocols[loop], c, s.dispatch.Shard(loop), peer, local, scheme)
		},
		WriteTimeout:   seconds(s.config.TimeoutWrite),
		MaxConnections: s.connectionLimit(),
		Gate:           s.gate(),
		Bodies:         s.bodies,
		Outputs:        s.outputs,
		Counters:       s.counters,
		TurnEnds:       s.flushAccess,
		Log:            s.logLine,
	}
}

// http1Config is what the HTTP/1.1 connections of one loop share.
func (s *server) http1Config(counters *observe.Shard) *http1.Config {
	c := s.config
	h := http1.DefaultConfig()
	h.LimitRequestLine = c.LimitRequestLine
	h.LimitHeaderBytes = c.LimitHeaderBytes
	h.LimitHeaderCount = c.LimitHeaderCount
	h.LimitBody = int64(orZero(c.LimitBody))
	h.LimitRequests = orZero(c.LimitConnectionRequests)
	h.MinBodyRate = orZero(c.MinBodyRate)
	h.TimeoutHeader = seconds(c.TimeoutHeader)
	h.TimeoutBody = seconds(c.TimeoutBody)
	h.TimeoutKeepAlive = seconds(c.TimeoutKeepAlive)
	h.Date = c.DateHeader
	if !c.ServerHeader {
		h.Server = ""
	}
	for _, f := range c.Headers {
		h.Headers = append(h.Headers, call.Field{Name: latin1(f[0]), Value: latin1(f[1])})
	}
	if c.ProxyHeaders {
		h.Proxies = http1.NewTrusted(c.ForwardedAllowIPs)
	}
	h.WebSockets = s.webSockets(counters)
	h.Draining = s.dispatch.Draining
	h.Refused = func(r *http1.Refusal, peer call.Addr, inCall bool) {
		refused(counters, r, inCall)
		from := peer.Host
		if from == "" {
			from = "a local client" // on a unix socket
		}
		s.logLine("info", "refused "+r.Text, fmt.Sprintf("A request of %s was refused with %d: %s", from, r.Status, r.Text))
	}
	h.SilenceExpired = func(used bool) {
		if used {
			counters.Inc(observe.TimedOutKeepAlive)
		} else {
			counters.Inc(observe.TimedOutHeader)
		}
	}
	h.Log = func(level, message string) { s.logLine(level, "http1 "+message, message) }
	return h
}

// refused counts an answer that the protocol gave by itself.
func refused(counters *observe.Shard, r *http1.Refusal, inCall bool) {
	switch r.Kind {
	case http1.WrongProtocol:
		counters.Inc(observe.RejectedWrongProtocol)
		return
	case http1.HeaderTimeout:
		counters.Inc(observe.TimedOutHeader)
	case http1.BodyTimeout:
		counters.Inc(observe.TimedOutBody)
	case http1.BodyRate:
		counters.Inc(observe.TimedOutBodyRate)
	}
	if inCall {
		counters.Inc(observe.RejectedInBody)
	} else {
		counters.Inc(observe.Rejected(r.Status))
	}
}

// latin1 is a field's text as bytes (RFC 9110 5.5); Python has checked that it has no
// character above 255.
func latin1(text string) []byte {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		b = append(b, byte(r))
	}
	return b
}

// gate bounds what one address may open; nil where nothing is bounded.
func (s *server) gate() *transport.Gate {
	rate := 0.0
	if r := s.config.LimitConnectionRate; r != nil {
		rate = *r
	}
	return transport.NewGate(orZero(s.config.LimitConnectionsPerAddress), rate)
}
