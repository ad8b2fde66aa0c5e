package control

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spvn/gosrc/link"
)

// goWorker plays a worker: it answers every call with the same words.
type goWorker struct {
	id   int
	link *link.Link
	fds  []int
	end  chan struct{} // closed to end it
	done chan struct{} // closed once it has
}

const loops = 2

func startGoWorker(t *testing.T, server int) *goWorker {
	t.Helper()
	text, err := AddWorker(server, "{}")
	a := must(t, text, err)
	l, err := link.Attach(number(t, a["memfd"]), number(t, a["bell"]), link.DefaultGeometry(loops))
	if err != nil {
		t.Fatal(err)
	}
	w := &goWorker{id: number(t, a["worker"]), link: l, end: make(chan struct{}), done: make(chan struct{})}
	var bells []int
	for _, bell := range a["loop_bells"].([]any) {
		bells = append(bells, number(t, bell))
	}
	w.fds = append(bells, number(t, a["death"]))
	go w.run(bells)
	return w
}

func (w *goWorker) stop() {
	close(w.end)
	<-w.done
}

func (w *goWorker) run(bells []int) {
	defer close(w.done)
	defer func() {
		w.link.Release()
		for _, fd := range w.fds {
			unix.Close(fd)
		}
	}()
	var ends [loops]link.WorkerEnd
	for i := range ends {
		ends[i] = w.link.Worker(i)
	}
	write := func(i int, kind, flags uint16, id uint64, payload []byte) {
		b, err := ends[i].Outbox.Reserve(len(payload), kind, flags, id, 0)
		if err != nil || b == nil {
			panic(fmt.Sprint("no room: ", err))
		}
		copy(b, payload)
		if ends[i].Outbox.Publish() {
			link.Ring(bells[i])
		}
	}
	answer := make([]byte, link.ResponseFixedSize, 64)
	binary.LittleEndian.PutUint32(answer[link.ResponseStatus:], 200)
	binary.LittleEndian.PutUint32(answer[link.ResponseBodyLength:], 5)
	answer = append(answer, "hello"...)
	write(0, link.Ready, 0, 0, nil)
	for {
		select {
		case <-w.end:
			return
		default:
		}
		asleep := true
		for i := range ends {
			for {
				r, ok, err := ends[i].Inbox.Next()
				if err != nil {
					panic(err)
				}
				if !ok {
					break
				}
				slot, generation, _ := ends[i].Slots.Of(r.Call)
				if r.Type == link.CallHTTP && ends[i].Slots.Claim(slot, generation, link.Monotonic()) {
					write(i, link.Response, link.FlagLast|link.FlagDone, r.Call, answer)
				}
			}
			if ends[i].Inbox.Release() {
				link.Ring(bells[i])
			}
		}
		for i := range ends {
			asleep = ends[i].Inbox.Arm(false) && asleep
		}
		if asleep {
			fds := []unix.PollFd{{Fd: int32(w.link.Bell), Events: unix.POLLIN}}
			unix.Poll(fds, 20)
			link.Silence(w.link.Bell)
		}
	}
}

// Workers come, are drained and vanish, on two loops, while clients ask: every call is answered.
func TestWorkersComeAndGo(t *testing.T) {
	text, err := Start(`{"port": 0, "io_threads": 2, "host": "127.0.0.1"}`)
	a := must(t, text, err)
	id, events := number(t, a["server"]), number(t, a["events_fd"])
	url := a["addresses"].([]any)[0].(map[string]any)["url"].(string)

	var asked, wrong atomic.Int64
	var clients sync.WaitGroup
	stopAsking := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
			for {
				select {
				case <-stopAsking:
					return
				default:
				}
				asked.Add(1)
				r, err := client.Get(url)
				if err != nil {
					wrong.Add(1)
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(r.Body)
				r.Body.Close()
				if r.StatusCode != 200 || string(body) != "hello" {
					wrong.Add(1)
					t.Errorf("got %d %q", r.StatusCode, body)
				}
			}
		})
	}
	for round := range 12 {
		w := startGoWorker(t, id)
		before := asked.Load()
		for end := time.Now().Add(5 * time.Second); asked.Load() < before+100 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if round%2 == 0 {
			text, err := RemoveWorker(id, w.id, `{"grace": 5}`)
			must(t, text, err)
			for {
				text, err := Stats(id)
				must(t, text, err)
				if !strings.Contains(text, fmt.Sprintf(`"state":"ready","worker":%d}`, w.id)) && strings.Contains(text, `"held":0`) {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
		w.stop()
		text, err := WorkerGone(id, w.id, "{}")
		must(t, text, err)
		until(t, id, "worker-exited")
	}
	last := startGoWorker(t, id)
	close(stopAsking)
	clients.Wait()
	var stats map[string]any
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, err := Stats(id) // shown at the end of each loop's turn
		stats = must(t, text, err)["calls"].(map[string]any)
		if stats["answered"].(float64) == float64(asked.Load()) {
			break
		}
	}
	last.stop()
	stop(t, id, events)
	if n := asked.Load(); wrong.Load() != 0 || n < 1000 || stats["answered"].(float64) != float64(n) {
		t.Errorf("%d of %d calls went wrong; the core answered %v", wrong.Load(), n, stats)
	}
}
