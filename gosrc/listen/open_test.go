package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
)

// open opens and closes at the test's end.
func open(t *testing.T, c Config) []*Listener {
	t.Helper()
	listeners, err := Open(c)
	if err != nil {
		t.Fatalf("Open(%+v): %v", c, err)
	}
	t.Cleanup(func() { closeAll(listeners) })
	return listeners
}

func bind(values ...string) Config { return Config{Bind: values, FD: -1} }

// wantError says what Open must fail with, and that it left nothing open.
func wantError(t *testing.T, c Config, want string) *Error {
	t.Helper()
	before := openDescriptors(t)
	listeners, err := Open(c)
	if err == nil {
		closeAll(listeners)
		t.Fatalf("Open(%+v) = %d listeners; want an error with %q", c, len(listeners), want)
	}
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Message, want) || strings.Contains(e.Message, "\n") {
		t.Errorf("Open(%+v): %v; want one line with %q", c, err, want)
	}
	if listeners != nil {
		t.Errorf("Open(%+v) failed and returned %d listeners", c, len(listeners))
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("Open(%+v) failed and left %d descriptors open", c, after-before)
	}
	return e
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(entries)
}

func dial(t *testing.T, l *Listener) {
	t.Helper()
	network, addr := "tcp", net.JoinHostPort(l.Host, fmt.Sprint(l.Port))
	if l.Kind == Unix {
		network, addr = "unix", l.Path
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Errorf("connecting to %s: %v", addr, err)
		return
	}
	c.Close()
}

func haveIPv6() bool {
	fd, err := tcpSocket(&unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()})
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

func TestOpenTCP(t *testing.T) {
	ls := open(t, Config{Host: "127.0.0.1", FD: -1})
	if len(ls) != 1 {
		t.Fatalf("listeners = %d; want 1", len(ls))
	}
	l := ls[0]
	if l.Kind != TCP || l.Host != "127.0.0.1" || l.Port == 0 || l.Wildcard {
		t.Errorf("listener = %+v; want 127.0.0.1 and the chosen port", l)
	}
	if got, want := l.URL(call.HTTP), fmt.Sprintf("http://127.0.0.1:%d", l.Port); got != want {
		t.Errorf("URL = %q; want %q", got, want)
	}
	if got, want := l.Local(), (call.Addr{Host: "127.0.0.1", Port: int32(l.Port)}); got != want {
		t.Errorf("Local = %v; want %v", got, want)
	}
	dial(t, l)

	flags, err := unix.FcntlInt(uintptr(l.FD), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags = %#x, %v; want non-blocking", flags, err)
	}
	flags, err = unix.FcntlInt(uintptr(l.FD), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags = %#x, %v; want close-on-exec", flags, err)
	}
	fd, _, err := unix.Accept(l.FD)
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	unix.Close(fd)
	if _, _, err := unix.Accept(l.FD); err != unix.EAGAIN {
		t.Errorf("accept with nobody there: %v; want EAGAIN", err)
	}

	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := l.Close(); err != nil || l.FD != -1 {
		t.Errorf("second Close: %v, FD %d; want nil, -1", err, l.FD)
	}
}

func TestOpenIPv6(t *testing.T) {
	if !haveIPv6() {
		t.Skip("no IPv6")
	}
	l := open(t, bind("[::1]:0"))[0]
	if got, want := l.URL(call.HTTPS), fmt.Sprintf("https://[::1]:%d", l.Port); got != want {
		t.Errorf("URL = %q; want %q", got, want)
	}
	dial(t, l)
	open(t, Config{Host: "[::1]", FD: -1})

	six := open(t, bind("[::]:0"))[0]
	if !six.Wildcard {
		t.Errorf(":: is not a wildcard")
	}
	open(t, bind(fmt.Sprintf("0.0.0.0:%d", six.Port))) // :: is for IPv6 only
}

func TestOpenEveryAddress(t *testing.T) {
	for _, host := range []string{"", "*"} {
		ls := open(t, bind(host+":0"))
		want := 1
		if haveIPv6() {
			want = 2
		}
		if len(ls) != want {
			t.Fatalf("host %q: %d listeners; want %d", host, len(ls), want)
		}
		for _, l := range ls {
			if !l.Wildcard || l.Port != ls[0].Port {
				t.Errorf("host %q: listener = %+v; want a wildcard on port %d", host, l, ls[0].Port)
			}
			dial(t, l)
		}
	}
}

// resolveTo lets every name stand for these addresses.
func resolveTo(t *testing.T, err error, addrs ...string) {
	t.Helper()
	saved := lookup
	t.Cleanup(func() { lookup = saved })
	lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		var found []netip.Addr
		for _, a := range addrs {
			found = append(found, netip.MustParseAddr(a))
		}
		return found, err
	}
}

func TestOpenName(t *testing.T) {
	for _, l := range open(t, bind("localhost:0")) {
		if !netip.MustParseAddr(l.Host).IsLoopback() {
			t.Errorf("localhost is %s; want a loopback address", l.Host)
		}
	}

	resolveTo(t, nil, "127.0.0.2", "::ffff:127.0.0.2", "127.0.0.3", "127.0.0.2")
	ls := open(t, bind("app.internal:0"))
	if len(ls) != 2 || ls[0].Host != "127.0.0.2" || ls[1].Host != "127.0.0.3" || ls[0].Port != ls[1].Port {
		t.Errorf("listeners = %+v; want two on one port", ls)
	}

	// 203.0.113.0/24 is nobody's (RFC 5737).
	resolveTo(t, nil, "203.0.113.1", "127.0.0.1")
	if ls := open(t, bind("app.internal:0")); len(ls) != 1 || ls[0].Host != "127.0.0.1" {
		t.Errorf("listeners = %+v; want the one address that is this machine's", ls)
	}

	resolveTo(t, nil, "203.0.113.1", "203.0.113.2")
	wantError(t, bind("app.internal:0"), "203.0.113.2:0 is not one of this machine's")
	resolveTo(t, &net.DNSError{Err: "no such host", Name: "app.internal", IsNotFound: true})
	wantError(t, bind("app.internal:0"), "no address is known for the name app.internal")
	resolveTo(t, nil)
	wantError(t, bind("app.internal:0"), "no address is known for the name app.internal")
	resolveTo(t, errors.New("server misbehaving"))
	wantError(t, bind("app.internal:0"), "cannot look up app.internal: server misbehaving")
}

func TestOpenTCPErrors(t *testing.T) {
	taken := open(t, bind("127.0.0.1:0"))[0]
	here := fmt.Sprintf("127.0.0.1:%d", taken.Port)
	e := wantError(t, bind(here), "--bind "+here+": this address is already in use; stop")
	if e.Option != "--bind" || e.Value != here || !errors.Is(e, unix.EADDRINUSE) {
		t.Errorf("error = %+v; want --bind, the address, EADDRINUSE", e)
	}
	wantError(t, bind("127.0.0.2:0", here), "is already in use; stop")
	wantError(t, Config{Host: "127.0.0.1", Port: taken.Port, FD: -1}, "--host/--port "+here+": this address is already in use")
	wantError(t, bind("203.0.113.1:0"), "this address is not one of this machine's")
	wantError(t, bind("[fe80::1%nosuch0]:0"), "is not one of this machine's")
	wantError(t, Config{Host: "127.0.0.1", Port: 65536, FD: -1}, "65536 is not a port")
	wantError(t, Config{Host: "127.0.0.1", Port: -1, FD: -1}, "-1 is not a port")
	wantError(t, Config{Host: "a b", FD: -1}, "is neither an address nor a host name")
	wantError(t, bind("127.0.0.1"), "no port")
}

func TestOpenTwice(t *testing.T) {
	l := open(t, bind("127.0.0.1:0"))[0]
	port := l.Port
	l.Close()
	one, every := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("0.0.0.0:%d", port)
	wantError(t, bind(one, one), one+" is taken by another address given with it, "+one)
	wantError(t, bind(every, one), one+" is taken by another address given with it, "+every)
	path := filepath.Join(t.TempDir(), "s")
	wantError(t, bind("unix:"+path, "unix:"+path), "given twice")
}

func TestTCPErrorMessages(t *testing.T) {
	o := origin{"--bind", "h:80"}
	for _, tt := range []struct {
		err  error
		port int
		want string
	}{
		{unix.EACCES, 80, "no permission to listen on this address; ports below 1024 need root"},
		{unix.EACCES, 8000, "no permission to listen on this address"},
		{unix.EAFNOSUPPORT, 80, "no IPv6"},
		{unix.EMFILE, 80, "ulimit -n"},
		{fmt.Errorf("bind: %w", unix.EIO), 80, "cannot listen on this address: input/output error"},
	} {
		if got := o.tcpError(tt.err, "h:80", tt.port).Message; !strings.Contains(got, tt.want) {
			t.Errorf("message of %v = %q; want %q in it", tt.err, got, tt.want)
		}
	}
}

func TestOpenEverythingThatIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	inherited := open(t, bind("127.0.0.1:0"))[0]
	c := bind("127.0.0.1:0", "unix:"+filepath.Join(dir, "a"))
	c.UDS, c.FD = filepath.Join(dir, "b"), inherited.FD
	c.ListenFDs = 5 // not looked at
	c.Host, c.Port = "203.0.113.1", 1
	ls := open(t, c)
	var kinds []string
	for _, l := range ls {
		kinds = append(kinds, string(l.Kind))
	}
	if got, want := strings.Join(kinds, " "), "tcp unix unix tcp"; got != want {
		t.Errorf("kinds = %q; want %q", got, want)
	}
	for _, l := range ls {
		dial(t, l)
	}
}

func TestDefaultBacklog(t *testing.T) {
	if n := defaultBacklog(); n < 1 {
		t.Errorf("backlog = %d", n)
	}
}
