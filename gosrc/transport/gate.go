package transport

import (
	"sync"
	"time"

	"spvn/gosrc/observe"
)

// Gate bounds what one address may open: connections at a time, and new ones a second. Both
// are off unless asked for, since behind a proxy everybody has one address. The loops of a
// server share it; its methods may be called concurrently.
type Gate struct {
	most int     // connections at a time; 0: no bound
	rate float64 // new ones a second, and as many at once; 0: no bound

	mu        sync.Mutex
	addresses map[string]*origin // guarded by mu
	sweepAt   int                // when the map has grown to this many, it is swept; guarded by mu
}

// origin is one address that has connections, or had some a moment ago.
type origin struct {
	open  int
	spent float64 // new connections that the rate has not made up for
	at    int64   // when spent was right
}

const gateSweep = 1024 // addresses, before the first sweep

// NewGate makes a gate; nil where nothing is bounded. most is connections at a time, rate
// new ones a second; 0 is no bound.
func NewGate(most int, rate float64) *Gate {
	if most <= 0 && rate <= 0 {
		return nil
	}
	return &Gate{most: most, rate: rate, addresses: map[string]*origin{}, sweepAt: gateSweep}
}

// enter asks for one more connection from an address. If it may not be, reason is the
// counter of that.
func (g *Gate) enter(address string, now int64) (ok bool, reason observe.Counter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.addresses[address]
	if o == nil {
		g.sweep(now)
		o = &origin{at: now}
		g.addresses[address] = o
	}
	if g.most > 0 && o.open >= g.most {
		return false, observe.ConnectionsOverAddress
	}
	if g.rate > 0 {
		o.fade(g.rate, now)
		if o.spent+1 > max(g.rate, 1) {
			return false, observe.ConnectionsOverRate
		}
		o.spent++
	}
	o.open++
	return true, 0
}

// leave says that a connection from an address has closed.
func (g *Gate) leave(address string, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.addresses[address]; o != nil {
		o.open--
		if o.done(g.rate, now) {
			delete(g.addresses, address)
		}
	}
}

func (o *origin) fade(rate float64, now int64) {
	o.spent = max(0, o.spent-rate*float64(now-o.at)/float64(time.Second))
	o.at = now
}

// done says that nothing has to be remembered.
func (o *origin) done(rate float64, now int64) bool {
	o.fade(rate, now)
	return o.open <= 0 && o.spent == 0
}

// sweep forgets the addresses of which nothing has to be remembered, whenever their number
// has doubled.
func (g *Gate) sweep(now int64) {
	if len(g.addresses) < g.sweepAt {
		return
	}
	for address, o := range g.addresses {
		if o.done(g.rate, now) {
			delete(g.addresses, address)
		}
	}
	g.sweepAt = max(gateSweep, 2*len(g.addresses))
}
