package link

import (
	"time"

	"golang.org/x/sys/unix"
)

var (
	clockBase   = time.Now()
	clockOffset = monotonicNow()
)

func monotonicNow() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds: the clock with which workers stamp their
// claims. It costs no system call.
func Monotonic() int64 {
	return clockOffset + int64(time.Since(clockBase))
}
