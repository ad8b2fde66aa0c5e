//go:build !linux

package listen

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// streamSocket makes a non-blocking, close-on-exec stream socket. Where socket(2) takes
// no flags only children started by Go are kept from inheriting it in between.
func streamSocket(family int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
