package control

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// must is the answer of a call that has to succeed.
func must(t *testing.T, text string, err error) map[string]any {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func number(t *testing.T, v any) int {
	t.Helper()
	f, ok := v.(float64)
	if !ok {
		t.Fatalf("got %v; want a number", v)
	}
	return int(f)
}

// until takes events until one of this name comes.
func until(t *testing.T, server int, name string) map[string]any {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, err := Events(server)
		for _, e := range must(t, text, err)["events"].([]any) {
			if e := e.(map[string]any); e["event"] == name {
				return e
			}
		}
	}
	t.Fatalf("waited ten seconds for the event %q", name)
	return nil
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// keepsNothing runs f, once to warm up and then again and again, and finds out what is left.
func keepsNothing(t *testing.T, f func()) {
	t.Helper()
	const rounds = 20
	f()
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	for range rounds {
		f()
	}
	end := time.Now().Add(5 * time.Second)
	for descriptors(t) > before || runtime.NumGoroutine() > goroutines+rounds/2 {
		if time.Now().After(end) {
			t.Fatalf("after %d rounds there are %d descriptors and %d goroutines; want %d and %d",
				rounds, descriptors(t), runtime.NumGoroutine(), before, goroutines)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// start starts a server; extra are members of its configuration, each behind a comma.
func start(t *testing.T, extra string) (id, events int) {
	t.Helper()
	text, err := Start(`{"port": 0, "io_threads": 2` + extra + `}`)
	a := must(t, text, err)
	return number(t, a["server"]), number(t, a["events_fd"])
}

func stop(t *testing.T, id, events int) {
	t.Helper()
	text, err := Stop(id)
	must(t, text, err)
	until(t, id, "stopped")
	unix.Close(events)
	if _, err := Stats(id); err == nil {
		t.Error("the server's id is known after its end")
	}
}

// worker adds a worker and closes what Python would.
func worker(t *testing.T, id int) int {
	t.Helper()
	text, err := AddWorker(id, "{}")
	a := must(t, text, err)
	for _, name := range []string{"memfd", "bell", "death"} {
		unix.Close(number(t, a[name]))
	}
	for _, bell := range a["loop_bells"].([]any) {
		unix.Close(number(t, bell))
	}
	return number(t, a["worker"])
}

func devNull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// The descriptor of the access log is the core's from the call of Start on, however that ends.
func TestStartOwnsTheAccessLog(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for what, config := range map[string]string{
		"a taken address":          fmt.Sprintf(`{"port": %d, "access_log": true, "access_log_fd": %%d}`, port),
		"a bad control socket":     `{"port": 0, "access_log": true, "access_log_fd": %d, "control_socket": "/proc/no/such"}`,
		"a bad transport":          `{"port": 0, "access_log": true, "access_log_fd": %d, "transport": "carrier pigeon"}`,
		"a member of a wrong kind": `{"port": "x", "access_log": true, "access_log_fd": %d}`,
	} {
		t.Run(what, func(t *testing.T) {
			keepsNothing(t, func() {
				if text, err := Start(fmt.Sprintf(config, devNull(t))); err == nil {
					t.Fatalf("got %s; want an error", text)
				}
			})
		})
	}
	t.Run("no access log", func(t *testing.T) {
		keepsNothing(t, func() {
			id, events := start(t, fmt.Sprintf(`, "access_log": false, "access_log_fd": %d`, devNull(t)))
			stop(t, id, events)
		})
	})
}

func TestStopKeepsNothing(t *testing.T) {
	for _, transport := range []string{"poll", "goroutines"} {
		for what, before := range map[string]func(id int){
			"alone":         func(id int) {},
			"with a worker": func(id int) { worker(t, id) },
			"while a worker is drained": func(id int) {
				text, err := RemoveWorker(id, worker(t, id), `{"grace": 5}`)
				must(t, text, err)
			},
			"while a worker ends": func(id int) {
				text, err := WorkerGone(id, worker(t, id), "{}")
				must(t, text, err)
			},
			"while it drains": func(id int) {
				worker(t, id)
				text, err := Drain(id, `{"grace": 5}`)
				must(t, text, err)
			},
		} {
			t.Run(transport+" "+what, func(t *testing.T) {
				keepsNothing(t, func() {
					id, events := start(t, fmt.Sprintf(`, "transport": %q, "access_log": true, "access_log_fd": %d`, transport, devNull(t)))
					before(id)
					stop(t, id, events)
				})
			})
		}
	}
}
