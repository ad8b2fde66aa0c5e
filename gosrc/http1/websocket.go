package http1

import "spvn/gosrc/call"

var _ call.WebSocketAnswer = (*Conn)(nil)

// judge marks a request that asks for an upgrade to WebSocket, if that can be granted, and
// answers it if not (RFC 6455 4.2.1). It reports whether there is a call to start.
// HTTP/1.0 has no upgrades (RFC 9110 7.8).
func (c *Conn) judge(h *head, r *call.Request) bool {
	if h.version != 11 {
		return true
	}
	handshake, problem := c.config.WebSockets.Handshake(r, h.upgrade)
	switch {
	case problem != nil:
		c.refuseHandshake(problem)
		return false
	case handshake != nil:
		c.handshake = handshake
		r.WebSocket = true
		r.Scheme |= call.WS
	}
	return true
}

// refuseHandshake answers in the core's own words and closes the connection.
func (c *Conn) refuseHandshake(e *call.HandshakeError) {
	c.persist = false
	fields := []call.Field{{Name: []byte("content-type"), Value: []byte("text/plain; charset=utf-8")}}
	fields = append(fields, e.Fields...)
	b, _ := c.appendHead(c.carrier.Buffer(), e.Status, fields, len(e.Text), true)
	if !c.isHead {
		b = append(b, e.Text...)
	}
	c.carrier.Commit(b)
	c.close()
}

// Accept implements call.WebSocketAnswer: it writes the answer 101 and hands the connection
// over.
func (c *Conn) Accept(subprotocol []byte, fields []call.Field) call.WebSocket {
	if c.closed || !c.active || c.answering != answerDue || c.handshake == nil {
		return nil
	}
	switcher, ok := c.carrier.(call.Switcher)
	accepted, ours := c.call.(call.WebSocketCall)
	if !ok || !ours {
		c.instead("its connection cannot change its protocol", false)
		return nil
	}
	list, problem := c.handshake.Fields(subprotocol, fields)
	b := appendStatusLine(c.carrier.Buffer(), 101)
	date, server := false, false
	for i := range list {
		f := &list[i]
		if problem == "" {
			problem = invalidField(f)
		}
		date = date || equalFold(f.Name, "date")
		server = server || equalFold(f.Name, "server")
		b = appendField(b, *f)
	}
	if problem != "" {
		c.instead(problem, false)
		return nil
	}
	b = c.appendStandard(b, list, date, server)
	c.carrier.Commit(append(b, "\r\n"...))

	handshake, peerDone, draining := c.handshake, c.peerDone, c.draining
	rest := c.Detach()
	socket := handshake.Open(c.carrier, accepted)
	switcher.Switch(socket)
	if len(rest) > 0 {
		socket.Receive(rest)
	}
	if peerDone {
		socket.PeerClosed(true, 0)
	}
	if draining {
		socket.Drain()
	}
	return socket
}
