package observe

import (
	"fmt"
	"sync"
	"time"
)

// Level is how much a record of the core's log matters, by the names of Python's logging.
type Level string

// Levels.
const (
	Debug   Level = "debug"
	Info    Level = "info"
	Warning Level = "warning"
	Error   Level = "error"
)

// Record is one message of the core's own log.
type Record struct {
	Level   Level
	Message string // one line, for people
}

const (
	// logQueue bounds the records that wait for Python.
	logQueue = 256
	// logKeys bounds the keys that are told apart; those beyond it share one.
	logKeys = 256
	// logBurst is how many records of one key are kept in one interval.
	logBurst = 5
	// logInterval is how long a key's records are counted together.
	logInterval = 10 * time.Second
)

// Log is the core's own log. The core writes to no descriptor: records wait in a bounded
// queue until Python takes them with Drain and gives them to its logging. Of records with
// the same key the first five in ten seconds are kept; at the end of that time one more
// says how many there were. Its methods may be called concurrently, and never block.
type Log struct {
	notify func()

	mu     sync.Mutex
	queue  []Record
	lost   uint64 // records for which there was no room since the last Drain
	keys   map[string]*logKey
	closed bool
}

// logKey is the present interval of one key.
type logKey struct {
	ends       time.Time
	kept       int
	level      Level // of the last record that was left out
	message    string
	suppressed int
	timer      *time.Timer // reports what was left out; nil while nothing was
}

// NewLog makes an empty log. notify is called when there is something to drain again; it
// must not block and may be nil.
func NewLog(notify func()) *Log {
	if notify == nil {
		notify = func() {}
	}
	return &Log{notify: notify, keys: map[string]*logKey{}}
}

// Printf logs a message. key says which records are alike, "accept" for one; those with an
// empty one are all kept.
func (l *Log) Printf(level Level, key, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	l.mu.Lock()
	wake := false
	if !l.closed && (key == "" || l.admit(level, key, message)) {
		wake = l.put(Record{level, message})
	}
	l.mu.Unlock()
	if wake {
		l.notify()
	}
}

// put queues a record and reports whether the queue was empty.
func (l *Log) put(r Record) (wake bool) {
	if len(l.queue) >= logQueue {
		l.lost++
		return false
	}
	l.queue = append(l.queue, r)
	return len(l.queue) == 1
}

// admit reports whether a record of key is kept, and counts it.
func (l *Log) admit(level Level, key, message string) bool {
	now := time.Now()
	k := l.keys[key]
	if k == nil {
		if len(l.keys) >= logKeys {
			l.forget(now)
		}
		if len(l.keys) >= logKeys {
			key = "" // what it shares with the others that found no room
			k = l.keys[key]
		}
		if k == nil {
			k = &logKey{}
			l.keys[key] = k
		}
	}
	if !now.Before(k.ends) && k.suppressed == 0 {
		k.ends, k.kept = now.Add(logInterval), 0
	}
	if k.kept < logBurst {
		k.kept++
		return true
	}
	k.level, k.message = level, message
	if k.suppressed++; k.timer == nil {
		k.timer = time.AfterFunc(k.ends.Sub(now), func() { l.report(k) })
	}
	return false
}

// forget drops the keys whose interval is over.
func (l *Log) forget(now time.Time) {
	for key, k := range l.keys {
		if k.suppressed == 0 && !now.Before(k.ends) {
			delete(l.keys, key)
		}
	}
}

// report ends an interval in which records were left out.
func (l *Log) report(k *logKey) {
	l.mu.Lock()
	wake := false
	if !l.closed {
		wake = l.put(k.summary())
		*k = logKey{}
	}
	l.mu.Unlock()
	if wake {
		l.notify()
	}
}

// summary is the last record that was left out, and how many like it there were.
func (k *logKey) summary() Record {
	if k.suppressed == 1 {
		return Record{k.level, k.message}
	}
	return Record{k.level, fmt.Sprintf("%s (and %d more like it)", k.message, k.suppressed-1)}
}

// Drain takes every record that waits, oldest first.
func (l *Log) Drain() []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	records := l.queue
	l.queue = nil
	if l.lost > 0 {
		records = append(records, Record{Warning, fmt.Sprintf("%d messages of the core were lost: they came faster than they were read", l.lost)})
		l.lost = 0
	}
	return records
}

// Close stops all timers; what they would have reported goes into the queue now. Records
// that come later are forgotten.
func (l *Log) Close() {
	l.mu.Lock()
	wake := false
	for _, k := range l.keys {
		if k.timer != nil {
			k.timer.Stop()
		}
		if k.suppressed > 0 && !l.closed {
			wake = l.put(k.summary()) || wake
			k.suppressed = 0
		}
	}
	l.closed = true
	l.mu.Unlock()
	if wake {
		l.notify()
	}
}
