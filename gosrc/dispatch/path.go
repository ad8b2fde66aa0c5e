package dispatch

import (
	"time"

	"spvn/gosrc/call"
	"spvn/gosrc/observe"
)

// pathClass is what a request's path makes of its call.
type pathClass uint8

const (
	ordinary pathClass = iota
	priority
	readiness // answered by the core: may requests be sent here?
	liveness  // answered by the core: should this process be left alone?
)

const (
	// priorityExtra is how many calls of priority paths may wait when the queue is full. Their bytes have
	// a bound of their own, as large as that of the queue.
	priorityExtra = 1024
	// stalledForLong is how long all workers must stand still before health checks say so:
	// a loop that is blocked for a moment is no reason to send the requests elsewhere.
	stalledForLong = time.Second
)

func (d *Dispatch) classify() {
	d.paths = map[string]pathClass{}
	for _, path := range d.settings.PriorityPaths {
		d.paths[path] = priority
	}
	if path := d.settings.LivenessPath; path != "" {
		d.paths[path] = liveness
	}
	if path := d.settings.HealthCheckPath; path != "" {
		d.paths[path] = readiness
	}
	for path := range d.paths {
		d.lengths |= 1 << (len(path) & 63)
	}
}

// classOf looks a request's path up. Most requests pay for one bit.
func (d *Dispatch) classOf(r *call.Request) pathClass {
	if d.lengths&(1<<(len(r.Path)&63)) == 0 {
		return ordinary
	}
	c := d.paths[string(r.Path)]
	if c > priority && (r.WebSocket || string(r.Method) != "GET" && string(r.Method) != "HEAD") {
		return ordinary
	}
	return c
}

// startPriority begins a call of a priority path. It waits for nobody but its like.
func (s *Shard) startPriority(c *Call) call.Call {
	d := s.dispatch
	c.priority = true
	s.counters.Add(observe.CallsPriority, 1)
	if s.urgent.live == 0 {
		if p := s.choose((*port).ahead); p != nil && p.offer(c) {
			return c
		}
	}
	if d.over.Load() {
		return s.refuse(c, observe.RefusedStopping, 503, stopping, d.settings.RetryAfter)
	}
	if d.waiting.Load() >= int64(d.settings.QueueCalls+priorityExtra) || d.urgentBytes.Load() >= int64(d.settings.QueueBytes) {
		return s.refuse(c, observe.RefusedQueueFull, 503, "The server is overloaded.", d.settings.RetryAfter)
	}
	s.enqueue(c)
	return c
}

// answerCheck answers a health check from the workers' state. No access line tells of it:
// every balancer asks every few seconds, and would bury the lines of those who are served.
func (s *Shard) answerCheck(c *Call, class pathClass) call.Call {
	for _, p := range s.ports {
		p.ask()
	}
	status, text := s.health(class)
	a := c.answer
	s.counters.Add(observe.CallsHealthChecks, 1)
	s.end(c, answered, observe.CallsAnswered)
	s.recycle(c)
	a.Respond(status, checkFields, []byte(text+"\n"), true, false)
	return nil
}

var checkFields = []call.Field{
	{Name: []byte("content-type"), Value: []byte("text/plain; charset=utf-8")},
	{Name: []byte("cache-control"), Value: []byte("no-store")},
}

// health is what a health check is told. A server that drains, or whose workers still
// start, takes no requests but is as alive as it should be.
func (s *Shard) health(class pathClass) (status int, text string) {
	ready, stalled := 0, 0
	for _, p := range s.ports {
		if p.dead || p.worker.State() != WorkerReady {
			continue
		}
		ready++
		if since := p.worker.stalled.Load(); since != 0 && time.Duration(s.now-since) >= stalledForLong {
			stalled++
		}
	}
	switch {
	case ready > 0 && stalled == ready:
		return 503, "all workers are stalled"
	case class == liveness:
		return 200, "alive"
	case s.dispatch.announced.Load() || s.dispatch.Draining():
		return 503, "draining"
	case ready == 0:
		return 503, "no worker is ready"
	}
	return 200, "ready"
}
