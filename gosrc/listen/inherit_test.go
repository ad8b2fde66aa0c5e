package listen

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInheritListening(t *testing.T) {
	given := open(t, bind("127.0.0.1:0"))[0]
	l := open(t, bind(fmt.Sprintf("fd://%d", given.FD)))[0]
	if l.FD == given.FD {
		t.Errorf("the descriptor was not duplicated")
	}
	if l.Kind != TCP || l.Host != "127.0.0.1" || l.Port != given.Port {
		t.Errorf("listener = %+v; want 127.0.0.1:%d", l, given.Port)
	}
	dial(t, l)
	l.Close()
	dial(t, given) // the original goes on
}

func TestInheritUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	given := open(t, bind("unix:"+path))[0]
	l := open(t, Config{FD: given.FD})[0]
	if l.Kind != Unix || l.Path != path || l.Port != -1 {
		t.Errorf("listener = %+v; want %s", l, path)
	}
	l.Close()
	if !exists(path) {
		t.Errorf("closing removed a socket file that it had not made")
	}
}

// A socket that is bound only, and blocking, as a supervisor may pass it.
func TestInheritBound(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	l := open(t, Config{FD: fd})[0]
	if !listening(l.FD) {
		t.Errorf("the socket does not listen")
	}
	if flags, err := unix.FcntlInt(uintptr(l.FD), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags = %#x, %v; want non-blocking", flags, err)
	}
	dial(t, l)
}

// listen(2) binds a socket that is not bound; its port is known afterwards.
func TestInheritUnbound(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l := open(t, Config{FD: fd})[0]
	if l.Port == 0 || !l.Wildcard {
		t.Errorf("listener = %+v; want a wildcard and the port that it got", l)
	}
}

func TestInheritErrors(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	datagram, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(datagram)
	for _, tt := range []struct {
		fd   int
		want string
	}{
		{1 << 20, "is not open"},
		{int(file.Fd()), "is not a socket"},
		{pair[0], "is a connection, not a listening socket"},
		{datagram, "not a stream socket"},
	} {
		wantError(t, bind(fmt.Sprintf("fd://%d", tt.fd)), fmt.Sprintf("--bind fd://%d: file descriptor %d ", tt.fd, tt.fd))
		wantError(t, Config{FD: tt.fd}, tt.want)
	}
}

func TestTargets(t *testing.T) {
	systemd := Config{FD: -1, ListenFDs: 2, ListenPID: os.Getpid(), Host: "h", Port: 1}
	other := systemd
	other.ListenPID++
	unknown := systemd
	unknown.ListenPID = 0
	explicit := systemd
	explicit.Bind = []string{"a:1"}
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"systemd", systemd, "[{{LISTEN_FDS 2} fd 3} {{LISTEN_FDS 2} fd 4}]"},
		{"systemd without a process id", unknown, "[{{LISTEN_FDS 2} fd 3} {{LISTEN_FDS 2} fd 4}]"},
		{"systemd's, for another process", other, "[{{--host/--port h:1} h 1}]"},
		{"explicit", explicit, "[{{--bind a:1} text}]"},
		{"neither", Config{FD: -1, Host: "::1"}, "[{{--host/--port [::1]:0} ::1 0}]"},
	} {
		var got []string
		for _, target := range tt.c.targets() {
			switch a := target.parsed; {
			case a == nil:
				got = append(got, fmt.Sprintf("{%v text}", target.origin))
			case a.fd >= 0:
				got = append(got, fmt.Sprintf("{%v fd %d}", target.origin, a.fd))
			default:
				got = append(got, fmt.Sprintf("{%v %s %d}", target.origin, a.host, a.port))
			}
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v; want %s", tt.name, got, tt.want)
		}
	}
}
