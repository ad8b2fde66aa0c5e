package listen

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fallbackBacklog is Linux's own net.core.somaxconn since 5.4.
const fallbackBacklog = 4096

// defaultBacklog is the most that the kernel would use: net.core.somaxconn.
func defaultBacklog() int {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n > 0 {
			return n
		}
	}
	return fallbackBacklog
}

// tcpSocket makes a bound socket that does not listen yet. Every IPv6 socket is for IPv6
// only, so that IPv4 clients never appear as ::ffff:192.0.2.1 and both families can be
// bound to one port, whatever net.ipv6.bindv6only says.
func tcpSocket(sa unix.Sockaddr) (fd int, err error) {
	family := unix.AF_INET
	if _, v6 := sa.(*unix.SockaddrInet6); v6 {
		family = unix.AF_INET6
	}
	if fd, err = streamSocket(family); err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if family == unix.AF_INET6 {
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return
		}
	}
	// A port whose last connections are in TIME_WAIT can be bound again at once.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return
	}
	err = unix.Bind(fd, sa)
	return
}
