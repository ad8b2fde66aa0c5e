package listen

import "golang.org/x/sys/unix"

// streamSocket makes a non-blocking, close-on-exec stream socket. Both flags are set
// atomically: another thread of the process may be starting a child.
func streamSocket(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}
