package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spvn/gosrc/call"
)

// leaveSocket makes a socket file that nobody accepts on.
func leaveSocket(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestOpenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := open(t, bind("unix:"+path))[0]
	if got, want := l.URL(call.HTTP), "unix:"+path; got != want {
		t.Errorf("URL = %q; want %q", got, want)
	}
	if got, want := l.Local(), (call.Addr{Host: path, Port: -1}); got != want {
		t.Errorf("Local = %v; want %v", got, want)
	}
	if got := modeOf(t, path); got != 0o666 {
		t.Errorf("mode = %o; want 666", got)
	}
	dial(t, l)
	l.Unlink()
	if exists(path) {
		t.Errorf("the file is there after Unlink")
	}
	fd, _, err := unix.Accept(l.FD)
	if err != nil {
		t.Errorf("accepting after Unlink what came before: %v", err)
	}
	unix.Close(fd)
	l.Close()
}

func TestUnixModes(t *testing.T) {
	for _, tt := range []struct {
		name        string
		stale, asks fs.FileMode
		want        fs.FileMode
	}{
		{"new", 0, 0, 0o666},
		{"new, asked for", 0, 0o600, 0o600},
		{"replaced", 0o660, 0, 0o660},
		{"replaced, asked for", 0o660, 0o640, 0o640},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			if tt.stale != 0 {
				leaveSocket(t, path, tt.stale)
			}
			l := open(t, Config{UDS: path, FD: -1, UDSMode: tt.asks})[0]
			if got := modeOf(t, path); got != tt.want {
				t.Errorf("mode = %o; want %o", got, tt.want)
			}
			dial(t, l)
			l.Close()
			if exists(path) {
				t.Errorf("the file is there after Close")
			}
		})
	}
}

func TestUnixInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := open(t, bind("unix:"+path))[0]
	wantError(t, bind("unix:"+path), "--bind unix:"+path+": another process listens there")
	wantError(t, Config{UDS: path, FD: -1}, "--uds "+path+": another process listens there")
	dial(t, l) // the probe did not break it
}

// A server whose backlog is full is alive.
func TestUnixInUseWithFullBacklog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := bind("unix:" + path)
	c.Backlog = 1
	open(t, c)
	for range 10 {
		fd, err := streamSocket(unix.AF_UNIX)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			wantError(t, bind("unix:"+path), "another process listens there")
			return
		}
	}
	t.Skip("this kernel takes more than the backlog")
}

func TestUnixReplacedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := open(t, bind("unix:"+path))[0]
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other := open(t, bind("unix:"+path))[0]
	l.Close()
	if !exists(path) {
		t.Errorf("closing removed the file of another listener")
	}
	dial(t, other)
}

func TestUnixErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	datagram := filepath.Join(dir, "dgram")
	d, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagram, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tt := range []struct{ path, want string }{
		{file, "exists and is not a socket"},
		{dir, "exists and is not a socket"},
		{dangling, "exists and is not a socket"},
		{datagram, "another process listens there"},
		{filepath.Join(dir, "missing", "s"), "the directory of " + filepath.Join(dir, "missing", "s") + " does not exist"},
		{filepath.Join(file, "s"), "is not a directory"},
		{"/" + strings.Repeat("x", maxPath), "and a unix socket's may have"},
	} {
		wantError(t, bind("unix:"+tt.path), tt.want)
		wantError(t, Config{UDS: tt.path, FD: -1}, "--uds "+tt.path+": ")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("a file that is not a socket was touched: %q, %v", text, err)
	}
	o := origin{"--uds", "/s"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{unix.EACCES, "no permission to make or replace /s"},
		{unix.EROFS, "read-only"},
		{unix.EIO, "cannot listen there: input/output error"},
	} {
		if got := o.unixError(tt.err, "/s").Message; !strings.Contains(got, tt.want) {
			t.Errorf("message of %v = %q; want %q in it", tt.err, got, tt.want)
		}
	}
}

// When a later address is no good, the socket files of the earlier ones go again.
func TestUnixAllOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	wantError(t, bind("unix:"+path, "203.0.113.1:0"), "not one of this machine's")
	if exists(path) {
		t.Errorf("the socket file is still there")
	}
}

func TestUnixRelativePath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	l := open(t, bind("unix:s"))[0]
	t.Chdir(t.TempDir())
	l.Close()
	if exists(filepath.Join(dir, "s")) {
		t.Errorf("the file is there after Close in another directory")
	}
}

func TestUnixAbstract(t *testing.T) {
	name := fmt.Sprintf("@spvn-listen-test-%d", os.Getpid())
	l := open(t, bind("unix:"+name))[0]
	dial(t, l)
	wantError(t, bind("unix:"+name), "another process listens there")
	l.Close()
}

func TestOpenControl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	leaveSocket(t, path, 0o666)
	l, err := OpenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := modeOf(t, path); got != 0o600 {
		t.Errorf("mode = %o; want 600", got)
	}
	dial(t, l)
	_, err = OpenControl(path)
	var e *Error
	if !errors.As(err, &e) || e.Option != "--control-socket" || !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second OpenControl: %v; want address in use", err)
	}
	l.Close()
	if exists(path) {
		t.Errorf("the file is there after Close")
	}
}
