package listen

import (
	"io/fs"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Config says where to listen. Bind, UDS and FD add up. Without any of the three the
// sockets that systemd passed are used, and without those Host and Port.
type Config struct {
	Bind []string // --bind: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; port 0: any free one
	UDS  string   // --uds: path of a unix socket; "" for none
	FD   int      // --fd: an inherited socket; -1 for none
	// UDSMode is the mode of unix sockets' files. 0: 0666, or that of the stale file that
	// they replace.
	UDSMode fs.FileMode

	Host string // --host: a name or an address; "" and "*": every one, IPv4 and IPv6; "::": every IPv6 one
	Port int    // --port: 0: any free one

	// systemd's LISTEN_FDS and LISTEN_PID, as the process that starts the server finds
	// them in its environment. ListenPID 0 is not compared with the process's own id.
	ListenFDs int
	ListenPID int

	Backlog int // --backlog: 0: what the kernel allows (net.core.somaxconn)
}

// systemdFirst is SD_LISTEN_FDS_START of sd_listen_fds(3).
const systemdFirst = 3

// Open makes every listener that c asks for, listening. A name may stand for several; on
// port 0 those have the same port. The error is an *Error, and then nothing is open.
func Open(c Config) ([]*Listener, error) {
	var all []*Listener
	for _, t := range c.targets() {
		listeners, err := c.bind(t, all)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		for _, l := range listeners {
			l.origin = t.origin
		}
		all = append(all, listeners...)
	}
	backlog := c.Backlog
	if backlog <= 0 {
		backlog = defaultBacklog()
	}
	// Only once all are bound: nobody is let in before the last address was found good.
	for _, l := range all {
		if err := l.start(backlog); err != nil {
			closeAll(all)
			return nil, err
		}
	}
	return all, nil
}

// OpenControl makes the unix socket of --control-socket, for its owner only.
func OpenControl(path string) (*Listener, error) {
	o := origin{"--control-socket", path}
	l, err := bindUnix(o, path, 0o600)
	if err != nil {
		return nil, err
	}
	l.origin = o
	if err := l.start(defaultBacklog()); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// target is one thing to listen on: an address, or text that has yet to be parsed.
type target struct {
	origin
	parsed *address
}

func (c *Config) targets() []target {
	var ts []target
	for _, s := range c.Bind {
		ts = append(ts, target{origin{"--bind", s}, nil})
	}
	if c.UDS != "" {
		ts = append(ts, target{origin{"--uds", c.UDS}, &address{path: c.UDS, fd: -1}})
	}
	if c.FD >= 0 {
		ts = append(ts, target{origin{"--fd", strconv.Itoa(c.FD)}, &address{fd: c.FD}})
	}
	if len(ts) == 0 && c.ListenFDs > 0 && (c.ListenPID == 0 || c.ListenPID == os.Getpid()) {
		for fd := systemdFirst; fd < systemdFirst+c.ListenFDs; fd++ {
			ts = append(ts, target{origin{"LISTEN_FDS", strconv.Itoa(c.ListenFDs)}, &address{fd: fd}})
		}
	}
	if len(ts) == 0 {
		host := c.Host
		if inner, ok := unbracket(host); ok {
			host = inner
		}
		value := net.JoinHostPort(host, strconv.Itoa(c.Port))
		ts = append(ts, target{origin{"--host/--port", value}, &address{host: host, port: c.Port, fd: -1}})
	}
	return ts
}

// bind makes the sockets of one target; before are those of the ones before it.
func (c *Config) bind(t target, before []*Listener) ([]*Listener, *Error) {
	a := t.parsed
	if a == nil {
		parsed, err := parse(t.origin)
		if err != nil {
			return nil, err
		}
		a = &parsed
	}
	one := func(l *Listener, err *Error) ([]*Listener, *Error) {
		if err != nil {
			return nil, err
		}
		return []*Listener{l}, nil
	}
	switch {
	case a.fd >= 0:
		return one(inherit(t.origin, a.fd))
	case a.path != "":
		for _, l := range before {
			if l.Kind == Unix && l.Path == a.path {
				return nil, t.errorf(nil, "given twice; leave one out")
			}
		}
		return one(bindUnix(t.origin, a.path, c.UDSMode))
	}
	return bindHost(t.origin, a, before)
}

// bindHost binds HOST:PORT. What parse has checked is checked again for --host and --port,
// which it has not seen.
func bindHost(o origin, a *address, before []*Listener) ([]*Listener, *Error) {
	if err := checkHost(o, a.host); err != nil {
		return nil, err
	}
	if a.port < 0 || a.port > maxPort {
		return nil, o.errorf(nil, "%d is not a port; a port is a number from 0 (any that is free) to %d", a.port, maxPort)
	}
	return bindTCP(o, a.host, a.port, before)
}

// start makes a bound socket listen; one that already does keeps its backlog.
func (l *Listener) start(backlog int) *Error {
	if listening(l.FD) {
		return nil
	}
	if err := unix.Listen(l.FD, backlog); err != nil {
		if l.Kind == Unix {
			return l.origin.unixError(err, l.Path)
		}
		return l.origin.tcpError(err, net.JoinHostPort(l.Host, strconv.Itoa(l.Port)), l.Port)
	}
	if l.Kind == TCP && l.Port == 0 { // an inherited socket that was not bound
		if err := l.describe(); err != nil {
			return l.origin.tcpError(err, l.Host, 0)
		}
	}
	return nil
}

func closeAll(listeners []*Listener) {
	for _, l := range listeners {
		l.Close()
	}
}
