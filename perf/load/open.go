package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runOpen is the open loop of the fault works: like runRate, but the calls go round all connections in turn, as those of many
// clients do. (Go's HTTP client asks again on the connection that was free last, so at a modest rate it uses a
// handful, and a worker that dies with the others is not noticed.) It retries nothing, but a connection whose end had arrived before
// the next call is replaced, as every client does, and counted apart.
func runOpen(args []string) (any, error) {
	f := flag.NewFlagSet("open", flag.ExitOnError)
	var t target
	t.flags(f)
	rate := f.Int("rate", 1000, "calls a second")
	duration := f.Duration("duration", 10*time.Second, "length of the run")
	connections := f.Int("connections", 100, "connections opened before the run")
	most := f.Int("max-connections", 0, "more are opened when all are busy, up to this many (default: -connections)")
	_ = f.Parse(args)
	if *rate < 1 || *connections < 1 {
		return nil, fmt.Errorf("-rate %d, -connections %d: each must be 1 or more", *rate, *connections)
	}
	if err := t.prepare(); err != nil {
		return nil, err
	}
	p := newPool(&t, max(*most, *connections))
	if err := p.fill(*connections); err != nil {
		return nil, err
	}
	planned := max(int(duration.Seconds()*float64(*rate)), 1)
	report := &rateReport{account: *newAccount(), Rate: *rate, Connections: *connections, Series: newSeries(*duration)}
	report.Planned = planned
	late := make([]time.Duration, 0, planned)
	var mu sync.Mutex // guards report
	var wg sync.WaitGroup
	start := time.Now()
	for n := range planned {
		due := time.Duration(n) * time.Second / time.Duration(*rate)
		sleepUntil(start.Add(due))
		sent := time.Now()
		late = append(late, sent.Sub(start)-due)
		wg.Go(func() {
			code, stage, err := p.call(sent.Add(t.timeout))
			end := time.Now()
			took := end.Sub(sent)
			mu.Lock()
			defer mu.Unlock()
			point := report.Series.at(due)
			if err != nil {
				report.failed(stage, err)
				point.Lost++
				return
			}
			report.answered(code, took)
			point.answered(code, took)
			if code == 200 {
				report.Series.came(end.Sub(start))
			}
		})
	}
	wg.Wait()
	report.Seconds = time.Since(start).Seconds()
	report.Ended = int(p.ended.Load())
	report.Late, report.Call = quantilesOf(late), quantilesOf(report.calls)
	report.Series.finish()
	return report, report.balance()
}

// sleepUntil is more exact than time.Sleep, whose wake-ups come in steps of a millisecond when nothing else happens.
func sleepUntil(moment time.Time) {
	if wait := time.Until(moment); wait > 0 {
		spec := unix.NsecToTimespec(wait.Nanoseconds())
		_ = unix.Nanosleep(&spec, nil) // a signal only makes this call early
	}
}

// pool holds the idle connections, the one that was idle longest first. Several goroutines use it.
type pool struct {
	target *target
	idle   chan *client
	room   chan struct{} // a token for each connection that may still be opened
	dialed atomic.Int64
	ended  atomic.Int64 // idle connections that the server closed
}

func newPool(t *target, most int) *pool {
	p := &pool{target: t, idle: make(chan *client, most), room: make(chan struct{}, most)}
	for range most {
		p.room <- struct{}{}
	}
	return p
}

// setUp is how long one of the first connections may take. A server that accepts slowly has the kernel ask again after
// a second, and is not measured yet.
const setUp = 10 * time.Second

// fill opens the first connections.
func (p *pool) fill(connections int) error {
	for n := range connections {
		<-p.room
		c, err := p.dial(time.Now().Add(max(setUp, p.target.timeout)))
		if err != nil {
			return fmt.Errorf("opening connection %d: %w", n+1, err)
		}
		p.idle <- c
	}
	return nil
}

// dial needs a token from room and gives it back when it fails.
func (p *pool) dial(deadline time.Time) (*client, error) {
	n := p.dialed.Add(1)
	c, err := p.target.dialBefore(int(n%p.most()), deadline)
	if err != nil {
		p.room <- struct{}{}
	}
	return c, err
}

func (p *pool) most() int64 { return int64(cap(p.idle)) }

// call takes a connection, asks once and gives it back; one that failed is closed.
func (p *pool) call(deadline time.Time) (code int, stage string, err error) {
	c, err := p.take(deadline)
	if err != nil {
		return 0, "connect", err
	}
	code, reusable, stage, err := c.callBefore(p.target, deadline)
	if err != nil || !reusable {
		p.drop(c)
		return code, stage, err
	}
	p.idle <- c
	return code, "", nil
}

func (p *pool) drop(c *client) {
	_ = c.Close() // of no use any more, whatever Close says
	p.room <- struct{}{}
}

// take gives an idle connection, a new one, or waits for one until the deadline.
func (p *pool) take(deadline time.Time) (*client, error) {
	for {
		c, err := p.next(deadline)
		if err != nil || !c.ended() {
			return c, err
		}
		p.ended.Add(1)
		p.drop(c)
	}
}

func (p *pool) next(deadline time.Time) (*client, error) {
	select {
	case c := <-p.idle:
		return c, nil
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case c := <-p.idle:
		return c, nil
	case <-p.room:
		return p.dial(deadline)
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	}
}

// ended says whether the server has closed an idle connection and this side knows it, which every client checks before it sends.
func (c *client) ended() bool {
	holder, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := holder.SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ended = (n == 0 && err == nil) || (err != nil && !errors.Is(err, unix.EAGAIN))
		return true
	})
	return ended || err != nil
}
