package observe

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe makes a pipe of blocking descriptors, as a shell gives them. The write end belongs
// to the test until it gives it away.
func pipe(t *testing.T) (r *os.File, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	r = os.NewFile(uintptr(p[0]), "pipe")
	t.Cleanup(func() { r.Close() })
	return r, p[1]
}

// fill writes to a pipe until it is full.
func fill(t *testing.T, w int) (n int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(w), Events: unix.POLLOUT}}
	for {
		if ready, err := unix.Poll(fds, 0); err != nil || ready == 0 {
			return n
		}
		m, err := unix.Write(w, make([]byte, pipeBuf))
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
}

func TestAccessLogWritesInOrder(t *testing.T) {
	const loops, linesEach = 4, 2_000 // together below accessHalf
	r, w := pipe(t)
	log := NewAccessLog(AccessConfig{FD: w})
	var writing sync.WaitGroup
	for loop := range loops {
		b := log.Buffer()
		writing.Go(func() {
			for i := range linesEach {
				a := get(fmt.Sprintf("/%d/%d", loop, i), "", 200)
				b.Line(&a)
				if i%7 == 0 {
					b.Flush()
				}
			}
			b.Flush()
		})
	}
	go func() {
		writing.Wait()
		if !log.Close(time.Minute) {
			t.Errorf("Close = false; want true")
		}
	}()
	next := [loops]int{}
	lines := 0
	form := regexp.MustCompile(`^INFO:     127\.0\.0\.1:54321 - "GET /(\d+)/(\d+) HTTP/1\.1" 200 OK$`)
	for in := bufio.NewScanner(r); in.Scan(); lines++ {
		m := form.FindStringSubmatch(in.Text())
		if m == nil {
			t.Fatalf("line %q", in.Text())
		}
		loop, _ := strconv.Atoi(m[1])
		i, _ := strconv.Atoi(m[2])
		if next[loop] != i {
			t.Fatalf("loop %d: line %d; want %d", loop, i, next[loop])
		}
		next[loop]++
	}
	if lines != loops*linesEach || log.Lines() != loops*linesEach || log.Dropped() != 0 {
		t.Errorf("read %d, lines %d, dropped %d; want %d, the same, 0", lines, log.Lines(), log.Dropped(), loops*linesEach)
	}
}

// Without Close a line is there a moment after its wake-up.
func TestAccessLogWritesSoon(t *testing.T) {
	r, w := pipe(t)
	log := NewAccessLog(AccessConfig{FD: w})
	defer log.Close(time.Second)
	b := log.Buffer()
	in := bufio.NewReader(r)
	for i := range 3 {
		a := get("/"+strconv.Itoa(i), "", 200)
		b.Line(&a)
		b.Flush()
		if got, err := in.ReadString('\n'); err != nil || !strings.Contains(got, fmt.Sprintf("GET /%d ", i)) {
			t.Fatalf("line %d = %q, %v", i, got, err)
		}
	}
}

// A pipe that nobody reads: loops go on, lines are dropped and counted, and once somebody
// reads, the log goes on with one line that says how many are missing.
func TestAccessLogNobodyReads(t *testing.T) {
	r, w := pipe(t)
	junk := fill(t, w)
	log := NewAccessLog(AccessConfig{FD: w})
	b := log.Buffer()
	a := get("/"+strings.Repeat("x", 200), "", 200)
	const lines = 20_000 // 5 MB
	for range lines {
		b.Line(&a)
	}
	b.Flush()
	if log.Dropped() == 0 || log.Dropped()+log.Lines() != lines {
		t.Fatalf("dropped %d and took %d; want %d together, some dropped", log.Dropped(), log.Lines(), lines)
	}
	before := log.Dropped()

	in := bufio.NewReader(r)
	if _, err := in.Discard(junk); err != nil {
		t.Fatal(err)
	}
	// The writer may have taken what was pending while lines still came: then a report, or the
	// report, is between the two halves.
	good, reported := 0, uint64(0)
	report := regexp.MustCompile(`^WARNING:  (\d+) lines? of the access log `)
	for reported < before || uint64(good) < log.Lines() {
		got, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := report.FindStringSubmatch(got); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 64)
			reported += n
		} else if strings.HasPrefix(got, "INFO:     127.0.0.1:54321 - \"GET /xxx") {
			good++
		} else {
			t.Fatalf("line %q", got)
		}
	}
	if reported != before || uint64(good) != log.Lines() {
		t.Errorf("%d lines, and %d reported as dropped; want %d, %d", good, reported, log.Lines(), before)
	}
	a = get("/again", "", 200)
	b.Line(&a)
	b.Flush()
	if got, err := in.ReadString('\n'); err != nil || !strings.Contains(got, "GET /again ") {
		t.Errorf("line after the report = %q, %v", got, err)
	}
	if !log.Close(time.Minute) || log.Dropped() != before {
		t.Errorf("dropped %d at the end; want %d", log.Dropped(), before)
	}
}

func TestAccessLogCloseWhenNobodyReads(t *testing.T) {
	_, w := pipe(t)
	fill(t, w)
	log := NewAccessLog(AccessConfig{FD: w})
	b := log.Buffer()
	a := get("/", "", 200)
	for range 10 {
		b.Line(&a)
	}
	b.Flush()
	started := time.Now()
	if log.Close(50 * time.Millisecond) {
		t.Errorf("Close = true; want false: lines are left")
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("Close(50ms) took %v", took)
	}
	<-log.done
	if got := log.Dropped(); got != 10 {
		t.Errorf("dropped = %d; want 10", got)
	}
	b.Line(&a)
	b.Flush() // after Close: dropped, and it does not block
	b.Line(&a)
	b.Flush()
	if got := log.Dropped(); got != 12 {
		t.Errorf("dropped after Close = %d; want 12", got)
	}
	log.Close(0)
}

func TestAccessLogBrokenPipe(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	log := NewAccessLog(AccessConfig{FD: w})
	b := log.Buffer()
	a := get("/", "", 200)
	b.Line(&a)
	b.Line(&a)
	b.Flush()
	<-log.done // by itself
	b.Line(&a)
	b.Flush()
	if got := log.Dropped(); got != 3 {
		t.Errorf("dropped = %d; want 3", got)
	}
	if log.Close(time.Second) {
		t.Errorf("Close = true; want false")
	}
}

func TestAccessLogToFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	log := NewAccessLog(AccessConfig{FD: fd, RootPath: "/r"})
	b := log.Buffer()
	long := get("/"+strings.Repeat("ü", 10_000), "", 200)
	short := get("/", "", 200)
	b.Line(&long)
	for range 1000 {
		b.Line(&short)
	}
	b.Flush()
	log.Close(time.Minute)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := line(false, "/r", long) + strings.Repeat(line(false, "/r", short), 1000)
	if string(text) != want {
		t.Errorf("the file has %d bytes; want %d", len(text), len(want))
	}
}

// The flags of standard output belong to everybody who has it.
func TestAccessLogLeavesFlagsAlone(t *testing.T) {
	r, w := pipe(t)
	dup, err := unix.FcntlInt(uintptr(w), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	before, _ := unix.FcntlInt(uintptr(dup), unix.F_GETFL, 0)
	log := NewAccessLog(AccessConfig{FD: w})
	b := log.Buffer()
	a := get("/", "", 200)
	b.Line(&a)
	b.Flush()
	log.Close(time.Second)
	if after, err := unix.FcntlInt(uintptr(dup), unix.F_GETFL, 0); err != nil || after != before {
		t.Errorf("flags = %#x, %v; want %#x", after, err, before)
	}
	unix.Close(dup)
	if text, err := io.ReadAll(r); err != nil || string(text) != line(false, "", a) {
		t.Errorf("read %q, %v", text, err)
	}
}

// Somebody else made the pipe non-blocking: nothing is lost.
func TestAccessLogNonBlocking(t *testing.T) {
	r, w := pipe(t)
	if err := unix.SetNonblock(w, true); err != nil {
		t.Fatal(err)
	}
	log := NewAccessLog(AccessConfig{FD: w})
	b := log.Buffer()
	a := get("/", "", 200)
	const lines = 5_000 // 300 KB, more than the pipe
	for range lines {
		b.Line(&a)
	}
	b.Flush()
	go log.Close(time.Minute)
	text, err := io.ReadAll(r)
	if got := strings.Count(string(text), "\n"); err != nil || got != lines || log.Dropped() != 0 {
		t.Errorf("read %d lines, %v, dropped %d; want %d, nil, 0", got, err, log.Dropped(), lines)
	}
}

func TestChunkKeepsLinesWhole(t *testing.T) {
	w := &lineWriter{}
	lines := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 100))
	if got := w.chunk(lines); got != 4000 {
		t.Errorf("chunk of 10,000 bytes in lines of 100 = %d; want 4000", got)
	}
	if got := w.chunk(lines[:150]); got != 150 {
		t.Errorf("chunk of 150 bytes = %d; want 150", got)
	}
	if got := w.chunk(make([]byte, 10_000)); got != pipeBuf {
		t.Errorf("chunk of a line of 10,000 bytes = %d; want %d", got, pipeBuf)
	}
}

func TestNilAccessBuffer(t *testing.T) {
	var b *AccessBuffer
	a := get("/", "", 200)
	b.Line(&a)
	b.Flush()
}

func BenchmarkAccessBuffer(b *testing.B) {
	fd, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	log := NewAccessLog(AccessConfig{FD: fd})
	defer log.Close(time.Second)
	buf := log.Buffer()
	a := get("/api/items/42", "page=3&sort=name", 200)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		buf.Line(&a)
		if i%16 == 0 {
			buf.Flush()
		}
	}
}
