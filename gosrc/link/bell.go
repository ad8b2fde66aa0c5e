package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewBell makes a doorbell: a non-blocking descriptor that is readable once it was rung.
func NewBell() (int, error) {
	return unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
}

// Ring rings a bell. It never blocks: a bell that was rung often enough stays rung.
func Ring(bell int) {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(bell), uintptr(unsafe.Pointer(&one)), 8)
}

// Silence takes back every ring until now.
func Silence(bell int) {
	var count uint64
	unix.RawSyscall(unix.SYS_READ, uintptr(bell), uintptr(unsafe.Pointer(&count)), 8)
}
