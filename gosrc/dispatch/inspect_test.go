package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"spvn/gosrc/link"
)

// report is what Inspect says, as sorted text.
func (b *bench) report(limit int) string {
	var lines []string
	r := b.shard.Inspect(limit)
	for _, c := range r.Calls {
		lines = append(lines, fmt.Sprintf("%s %s %s %v %d %d/%d", c.State, c.Method, c.Path, c.Age, c.Worker, c.Received, c.Sent))
	}
	slices.Sort(lines)
	if r.More > 0 {
		lines = append(lines, fmt.Sprint("more ", r.More))
	}
	return strings.Join(lines, "\n")
}

func (b *bench) wantReport(limit int, lines ...string) {
	b.t.Helper()
	if got, want := b.report(limit), strings.Join(lines, "\n"); got != want {
		b.t.Errorf("the report is\n%s\nwant\n%s", got, want)
	}
}

func TestInspect(t *testing.T) {
	b := newBench(t, nil)
	b.start(request())
	b.wantReport(10, "queued GET /x 0s 0 0/0")
	b.now += 5e6
	b.shard.Wake(b.now)
	w := b.worker(1)
	b.turn()
	b.wantReport(10, "offered GET /x 5ms 1 0/0")
	id := w.read(t, 10, b.now)[0].id
	b.wantReport(10, "claimed GET /x 5ms 1 0/0") // the core has not looked yet
	b.turn()
	w.write(link.Response, 0, id, responsePayload(200, 0, "abc"))
	w.write(link.ResponseBody, 0, id, bodyPayload("de"))
	upload := request()
	upload.Method, upload.Path, upload.Body, upload.BodyLast = []byte("POST"), []byte("/up\x1b"), []byte("123"), false
	a := b.start(upload)
	a.call.Body([]byte("4567"), false)
	b.turn()
	b.wantReport(10, "offered POST /up\x1b 0s 1 7/0", "sending GET /x 5ms 1 0/5")
	b.wantReport(1, "sending GET /x 5ms 1 0/5", "more 1")
	w.write(link.ResponseBody, link.FlagLast, id, bodyPayload(""))
	a.call.Leave()
	w.setTimer("k", time.Minute, 0, 0)
	b.turn()
	b.turn()
	b.wantReport(10, "ended GET /x 5ms 1 0/5", "timer  k 0s 1 0/0")
}

func TestInspectTellsBlockedWorkers(t *testing.T) {
	b := newBench(t, nil)
	b.worker(1)
	b.start(request())
	b.turn()
	for range 10 {
		b.now += int64(10 * time.Millisecond)
		b.shard.Wake(b.now)
		b.turn()
	}
	if got := b.shard.Inspect(10).Blocked[1]; got < 50*time.Millisecond {
		t.Errorf("the worker is blocked for %v; want about 100 ms", got)
	}
}

func TestInspectTellsCallsOfPriorityPaths(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.PriorityPaths = []string{"/x"} })
	b.start(request())
	b.wantReport(10, "queued GET /x 0s 0 0/0")
}
