package websocket

import (
	"github.com/gorilla/websocket"

	"spvn/gosrc/call"
)

// pinged is gorilla's handler of pings.
func (c *Conn) pinged(payload string) error {
	c.config.Count(PingReceived)
	if c.phase == open {
		c.writeControl(websocket.PongMessage, []byte(payload))
	}
	return nil
}

// ponged is gorilla's handler of pongs. Whatever came counts as a sign of life; see Timeout.
func (c *Conn) ponged(string) error { return nil }

// arm asks the carrier for the next deadline.
func (c *Conn) arm() {
	at := int64(0)
	sooner := func(t int64) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	if c.stallBy != 0 {
		sooner(c.nextLook())
	}
	sooner(c.closeBy)
	if c.phase == open {
		sooner(c.pingAt)
		if c.pingedAt != 0 && c.config.PingTimeout > 0 {
			sooner(c.pingedAt + int64(c.config.PingTimeout))
		}
	}
	if c.heldUp {
		sooner(c.heldBy)
	}
	if at != c.armed {
		c.armed = at
		c.carrier.Deadline(at)
	}
}

// nextLook is when to find out whether the peer takes what waits. What it took is as old as the look that found it, so
// it is looked a few times within SendTimeout.
func (c *Conn) nextLook() int64 {
	const looks = 4
	return min(c.stallBy, c.carrier.Now()+int64(c.config.SendTimeout)/looks)
}

// Timeout implements call.Protocol.
func (c *Conn) Timeout() {
	if c.phase == gone {
		return
	}
	c.armed = 0
	now := c.carrier.Now()
	if c.stallBy != 0 {
		if c.carrier.Buffered() == 0 {
			c.stallBy = 0
		} else if c.stallBy = max(c.stallBy, c.carrier.TakenAt()+int64(c.config.SendTimeout)); c.stallBy <= now {
			c.config.Count(TimedOutSend)
			c.cut()
			return
		}
	}
	switch {
	case c.closeBy == 0 || now < c.closeBy:
	case c.phase == failing:
		c.conclude()
		return
	case c.stallBy != 0:
		c.closeBy = now + int64(c.config.CloseTimeout) // the close frame has not left: there is nothing to answer yet
	default:
		c.finish()
		return
	}
	if c.heldUp && now >= c.heldBy {
		c.heldBy = now + int64(budgetHeld)
		c.config.relieve()
		if c.phase == gone {
			return
		}
	}
	if c.phase == open && !c.keepAlive(now) {
		return
	}
	c.arm()
}

// keepAlive sends a ping when one is due. It reports false once it has closed the
// connection of a peer that gave no sign of life since the last one. Any byte is one: a
// peer may be in the middle of a long frame. So is taking what was sent before the ping. While
// nothing is read nobody can give one.
func (c *Conn) keepAlive(now int64) bool {
	if c.pingedAt != 0 {
		switch {
		case c.heardAt > c.pingedAt:
			c.pingedAt = 0
		case c.paused:
			c.pingedAt = now
		case c.config.PingTimeout > 0 && now-c.pingedAt >= int64(c.config.PingTimeout):
			if at := c.carrier.TakenAt(); at > c.pingedAt {
				c.pingedAt = at // it reads, and has not come to the ping yet
				break
			}
			c.config.Count(TimedOutPing)
			c.writeClose(codeInternal, []byte(reasonPing))
			c.vanish()
			return false
		}
	}
	if c.pingAt != 0 && now >= c.pingAt {
		c.pingAt = now + int64(c.config.PingInterval)
		c.config.Count(PingSent)
		c.writeControl(websocket.PingMessage, nil)
		c.carrier.TakenAt() // what the peer has to take before the ping counts from here
		if c.pingedAt == 0 {
			c.pingedAt = now
		}
	}
	return true
}

var _ call.Protocol = (*Conn)(nil)
