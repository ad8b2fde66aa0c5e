package observe

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// accessHalf bounds each of the two halves of an access log's memory: the lines that
	// wait and the lines that are being written.
	accessHalf = 512 << 10
	// accessBatch is how much a loop's buffer holds before it is handed over early.
	accessBatch = 32 << 10
	// accessLinger is how long the writer waits for more lines before it writes. It
	// bounds what the log costs at any load: 200 wake-ups a second.
	accessLinger = 5 * time.Millisecond
	// accessSpare is the memory that a half keeps after a burst.
	accessSpare = 64 << 10
)

// AccessConfig says how the access log is written.
type AccessConfig struct {
	// FD is where lines go: a duplicate of standard output, which from now on belongs to
	// the log. Its O_NONBLOCK is never touched: the flag would be that of the app's
	// standard output too.
	FD int
	// Colors puts in the escape sequences that uvicorn uses on a terminal.
	Colors bool
	// RootPath is what --root-path says; lines have it before the path.
	RootPath string
}

// AccessLog takes lines from loops and writes them in a goroutine of its own, in order for
// each loop. Whoever hands lines over never waits for whoever should read them: when
// 512 KiB wait, lines are dropped and counted, and one line says how many once writing
// goes on; the same while a disk is full. When the descriptor is of no use any more (EPIPE,
// EIO), all further lines are dropped.
type AccessLog struct {
	format *lineFormat
	out    *lineWriter

	mu      sync.Mutex
	pending []byte // whole lines
	dropped uint64 // lines dropped since pending was last taken
	idle    bool   // the writer waits for wake
	stopped bool   // nothing is written any more

	lines        atomic.Uint64
	droppedTotal atomic.Uint64

	wake    chan struct{} // capacity 1; hand -> writer
	closing chan struct{} // closed by Close
	closed  sync.Once
	done    chan struct{} // closed by the writer at its end
}

// NewAccessLog starts the log's writer. Close ends it.
func NewAccessLog(c AccessConfig) *AccessLog {
	l := &AccessLog{
		format:  newLineFormat(c.Colors, c.RootPath),
		out:     newLineWriter(c.FD),
		idle:    true,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	go l.run()
	return l
}

// Lines is how many lines were handed over and not dropped on arrival.
func (l *AccessLog) Lines() uint64 { return l.lines.Load() }

// Dropped is how many lines were lost.
func (l *AccessLog) Dropped() uint64 { return l.droppedTotal.Load() }

// Buffer makes the buffer of one loop.
func (l *AccessLog) Buffer() *AccessBuffer { return &AccessBuffer{log: l} }

// AccessBuffer collects one loop's lines. Only that loop's goroutine uses it. A nil one
// takes lines and forgets them: there is no access log.
type AccessBuffer struct {
	log   *AccessLog
	buf   []byte
	lines uint64
}

// Line appends the line of one answered request.
func (b *AccessBuffer) Line(a *Access) {
	if b == nil {
		return
	}
	b.buf = b.log.format.appendLine(b.buf, a)
	b.lines++
	if len(b.buf) >= accessBatch {
		b.Flush()
	}
}

// Flush hands the lines over to the writer. A loop calls it once in each wake-up. It never
// waits for the writer to write.
func (b *AccessBuffer) Flush() {
	if b == nil || b.lines == 0 {
		return
	}
	b.log.hand(b.buf, b.lines)
	b.buf, b.lines = b.buf[:0], 0
	if cap(b.buf) > 2*accessBatch {
		b.buf = nil // one line was very long
	}
}

func (l *AccessLog) hand(batch []byte, lines uint64) {
	l.mu.Lock()
	// After one dropped line all are, until the writer has taken what is pending: then
	// the line that reports them stands where they would have been.
	if l.stopped || l.dropped > 0 || len(l.pending)+len(batch) > accessHalf {
		l.dropped += lines
		l.mu.Unlock()
		l.droppedTotal.Add(lines)
		return
	}
	l.pending = append(l.pending, batch...)
	wake := l.idle
	l.idle = false
	l.mu.Unlock()
	l.lines.Add(lines)
	if wake {
		select {
		case l.wake <- struct{}{}:
		default: // the log is being closed and the writer looks for lines without it
		}
	}
}

// take gives the writer what is pending and how many lines were dropped after it; spare
// is the memory for what comes next. ok is false when there is nothing; then the next line
// wakes the writer.
func (l *AccessLog) take(spare []byte) (batch []byte, dropped uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 && l.dropped == 0 {
		if cap(l.pending) > accessSpare {
			l.pending = nil
		}
		l.idle = true
		return spare, 0, false
	}
	batch, dropped = l.pending, l.dropped
	l.pending, l.dropped = spare[:0], 0
	return batch, dropped, true
}

// run is the writer. It ends after Close, or when the descriptor is of no use any more.
func (l *AccessLog) run() {
	defer close(l.done)
	defer l.out.close()
	linger := time.NewTimer(0)
	<-linger.C
	var batch []byte
	for {
		select {
		case <-l.wake:
			linger.Reset(accessLinger)
			select {
			case <-linger.C:
			case <-l.closing:
			}
		case <-l.closing:
		}
		for {
			var dropped uint64
			var ok bool
			if batch, dropped, ok = l.take(batch); !ok {
				break
			}
			rest := l.out.write(batch)
			if dropped > 0 && len(rest) == 0 {
				rest = l.out.write(l.format.dropped(dropped))
				rest = rest[len(rest):] // it is not one of the log's lines
			}
			if len(rest) > 0 || l.out.failed {
				l.stop(rest)
				return
			}
		}
		if cap(batch) > accessSpare {
			batch = nil
		}
		select {
		case <-l.closing:
			l.stop(nil)
			return
		default:
		}
	}
}

// stop counts what is not written, and what comes from now on, as dropped.
func (l *AccessLog) stop(rest []byte) {
	l.mu.Lock()
	lost := bytes.Count(rest, newline) + bytes.Count(l.pending, newline)
	l.stopped, l.pending, l.idle = true, nil, false
	l.mu.Unlock()
	l.droppedTotal.Add(uint64(lost))
}

// Close writes what was handed over, but takes no longer than timeout, and returns whether
// all of it was written. The descriptor is closed; if the kernel holds the writer in a
// write, that happens when it lets go.
func (l *AccessLog) Close(timeout time.Duration) bool {
	l.closed.Do(func() {
		l.out.giveUpAt(time.Now().Add(timeout))
		close(l.closing)
	})
	// Past the deadline the writer needs a moment to see that its time is over.
	limit := time.NewTimer(timeout + 2*pollInterval)
	defer limit.Stop()
	select {
	case <-l.done:
		return !l.out.failed
	case <-limit.C:
		return false
	}
}

var newline = []byte{'\n'}
