package observe

import (
	"bytes"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeBuf is PIPE_BUF of Linux. A write of no more is never torn apart by those of
	// other writers, and does not block on a pipe that poll called writable.
	pipeBuf = 4096
	// fileChunk is the size of writes to a file, which do not block for anybody.
	fileChunk = 64 << 10
	// pollInterval is how often a writer that waits for a reader looks at its deadline.
	pollInterval = 100 * time.Millisecond
)

// lineWriter writes lines to a descriptor that other parts of the process write to as
// well, and whose flags it therefore leaves alone. Its methods are for one goroutine,
// except giveUpAt.
type lineWriter struct {
	fd      int
	isFile  bool
	failed  bool         // nothing can be written any more
	giveUp  atomic.Int64 // when to give up on a reader that does not read; 0: never
	started time.Time    // what giveUp counts from, in nanoseconds
}

func newLineWriter(fd int) *lineWriter {
	w := &lineWriter{fd: fd, started: time.Now()}
	var st unix.Stat_t
	w.isFile = unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
	return w
}

func (w *lineWriter) giveUpAt(t time.Time) { w.giveUp.Store(max(1, int64(t.Sub(w.started)))) }

func (w *lineWriter) late() bool {
	at := w.giveUp.Load()
	return at != 0 && int64(time.Since(w.started)) >= at
}

// write writes whole lines and returns what could not be written; then failed is set.
func (w *lineWriter) write(b []byte) (rest []byte) {
	for len(b) > 0 && !w.failed {
		if w.late() || !w.ready() {
			w.failed = true
			break
		}
		n, err := unix.Write(w.fd, b[:w.chunk(b)])
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR, unix.EAGAIN: // EAGAIN: somebody else made it non-blocking
		case unix.ENOSPC, unix.EDQUOT:
			time.Sleep(pollInterval) // until somebody makes room, or it is too late
		default: // EPIPE, EIO (the terminal is gone), ...
			w.failed = true
		}
	}
	return b
}

// chunk is how much of b goes into one write: whole lines, if they are short enough.
func (w *lineWriter) chunk(b []byte) int {
	size := pipeBuf
	if w.isFile {
		size = fileChunk
	}
	if len(b) <= size {
		return len(b)
	}
	if i := bytes.LastIndexByte(b[:size], '\n'); i >= 0 {
		return i + 1
	}
	return size
}

// ready waits until a write would not block. It is false when the time is over.
func (w *lineWriter) ready() bool {
	if w.isFile {
		return true
	}
	// Not one poll without a timeout: Close has no other way to end it.
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(fds, int(pollInterval.Milliseconds()))
		if n > 0 || err != nil && err != unix.EINTR {
			return true // also on POLLERR and POLLHUP: write will say why
		}
		if w.late() {
			return false
		}
	}
}

func (w *lineWriter) close() { unix.Close(w.fd) }
