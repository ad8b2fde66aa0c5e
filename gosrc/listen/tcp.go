package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// resolveTimeout bounds the lookup of one name: a resolver that does not answer must not
// keep a server from saying so.
const resolveTimeout = 5 * time.Second

// portAttempts bounds the search for one free port on several addresses (port 0): the
// kernel picks it for the first, and somebody else may have it on the next.
const portAttempts = 16

// bindTCP binds every address that a host stands for to one port. The sockets do not
// listen yet. before are the listeners that the same Open has made so far.
func bindTCP(o origin, host string, port int, before []*Listener) ([]*Listener, *Error) {
	addrs, err := resolve(o, host)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if l := conflict(before, addr, port); l != nil {
			return nil, o.errorf(unix.EADDRINUSE, "%s is taken by another address given with it, %s; leave one out",
				join(addr, port), net.JoinHostPort(l.Host, strconv.Itoa(l.Port)))
		}
	}
	for attempt := 1; ; attempt++ {
		listeners, failed, err := bindAll(addrs, port)
		if err == nil {
			return listeners, nil
		}
		if port == 0 && len(addrs) > 1 && errors.Is(err, unix.EADDRINUSE) && attempt < portAttempts {
			continue
		}
		return nil, o.tcpError(err, join(failed, port), port)
	}
}

// bindAll binds each address, or none. Where there are several, one whose family is
// switched off is left out: a container's /etc/hosts gives ::1 to localhost even where
// IPv6 is off. On failure it says which address it was.
func bindAll(addrs []netip.Addr, port int) (listeners []*Listener, failed netip.Addr, err error) {
	var skipped error
	for _, addr := range addrs {
		l, err := bindOne(addr, port)
		if len(addrs) > 1 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			failed, skipped = addr, err
			continue
		}
		if err != nil {
			closeAll(listeners)
			return nil, addr, err
		}
		listeners = append(listeners, l)
		port = l.Port
	}
	if len(listeners) == 0 {
		return nil, failed, skipped
	}
	return listeners, netip.Addr{}, nil
}

// conflict finds the listener that keeps addr and port from being bound. The kernel would
// only say so when the second one listens: SO_REUSEADDR lets both be bound.
func conflict(listeners []*Listener, addr netip.Addr, port int) *Listener {
	for _, l := range listeners {
		if l.Kind != TCP || l.Port != port {
			continue
		}
		host, err := netip.ParseAddr(l.Host)
		if err == nil && host.Is4() == addr.Is4() && (host == addr || host.IsUnspecified() || addr.IsUnspecified()) {
			return l
		}
	}
	return nil
}

func join(addr netip.Addr, port int) string {
	return net.JoinHostPort(addr.String(), strconv.Itoa(port))
}

func bindOne(addr netip.Addr, port int) (*Listener, error) {
	sa, err := sockaddr(addr, port)
	if err != nil {
		return nil, err
	}
	fd, err := tcpSocket(sa)
	if err != nil {
		return nil, err
	}
	l := &Listener{FD: fd}
	if err := l.describe(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func sockaddr(addr netip.Addr, port int) (unix.Sockaddr, error) {
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: addr.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: port, Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		if n, ok := parseNumber(zone, maxFD); ok {
			sa.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(i.Index)
		} else {
			return nil, unix.EADDRNOTAVAIL
		}
	}
	return sa, nil
}

// resolve gives the addresses of a host, each once. "" and "*" are every address of both
// families; "::" is every IPv6 address and no other, as in nginx and uvicorn, so that
// 0.0.0.0 and :: can be bound side by side.
func resolve(o origin, host string) ([]netip.Addr, *Error) {
	if host == "" || host == "*" {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	found, err := lookup(ctx, "ip", host)
	var dns *net.DNSError
	switch {
	case err == nil && len(found) > 0:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, o.errorf(err, "the resolver did not answer for %s within %v; write the address itself", host, resolveTimeout)
	case err == nil || errors.As(err, &dns) && dns.IsNotFound:
		return nil, o.errorf(err, "no address is known for the name %s; check its spelling, or write the address itself", host)
	default:
		return nil, o.errorf(err, "cannot look up %s: %s", host, reason(err))
	}
	var addrs []netip.Addr
	for _, addr := range found {
		if addr = addr.Unmap(); !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// lookup is replaced in tests, which must not ask a real resolver.
var lookup = net.DefaultResolver.LookupNetIP
