package listen

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPath is what sun_path holds before its NUL: 107 bytes on Linux, 103 on macOS.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// defaultMode lets every user connect, as uvicorn does: a proxy in front mostly is one.
const defaultMode = 0o666

func checkPath(o origin, path string) *Error {
	switch {
	case path == "" || path == "@":
		return o.errorf(nil, "no path; write unix:PATH, as in unix:/run/app.sock")
	case strings.IndexByte(path, 0) >= 0:
		return o.errorf(nil, "a path cannot have a NUL character in it")
	case len(path) > maxPath:
		return o.errorf(unix.ENAMETOOLONG, "the path has %d bytes and a unix socket's may have %d; choose a shorter one", len(path), maxPath)
	}
	return nil
}

// bindUnix binds a path. A socket file that nobody accepts on any more is replaced, and
// its mode kept unless another one is asked for (mode not 0). "@name" is a Linux abstract
// socket, which has no file. The socket does not listen yet, so nobody can connect before
// the mode is set.
func bindUnix(o origin, path string, mode fs.FileMode) (*Listener, *Error) {
	if err := checkPath(o, path); err != nil {
		return nil, err
	}
	abstract := path[0] == '@'
	if !abstract {
		stale, err := clearPath(o, path)
		if err != nil {
			return nil, err
		}
		if mode == 0 {
			mode = stale
		}
	}
	fd, err := streamSocket(unix.AF_UNIX)
	if err != nil {
		return nil, o.unixError(err, path)
	}
	l := &Listener{FD: fd, Kind: Unix, Path: path, Port: -1}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		l.Close()
		return nil, o.unixError(err, path)
	}
	if abstract {
		return l, nil
	}
	if l.file, err = ownSocketFile(path); err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		l.Close()
		return nil, o.unixError(err, path)
	}
	return l, nil
}

// clearPath makes sure that nothing is at path, removing a socket that nobody accepts on.
// It returns the mode that a new one should have.
func clearPath(o origin, path string) (fs.FileMode, *Error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return defaultMode, nil // or its directory is missing, which bind will say
	case err != nil:
		return 0, o.unixError(err, path)
	case info.Mode().Type() != fs.ModeSocket:
		return 0, o.errorf(nil, "%s exists and is not a socket; move it away, or choose another path", printable(path))
	}
	if err := probe(path); err != nil {
		return 0, o.unixError(err, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, o.unixError(err, path)
	}
	return info.Mode().Perm(), nil
}

// probe is nil when nobody accepts on the socket at path. Connecting to a unix socket
// never waits when the descriptor is non-blocking: a full backlog is EAGAIN, and somebody
// is behind it.
func probe(path string) error {
	fd, err := streamSocket(unix.AF_UNIX)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EPROTOTYPE):
		return unix.EADDRINUSE // EPROTOTYPE: a datagram socket, so not ours to take
	}
	return err
}

// socketFile is a socket's file that we made.
type socketFile struct {
	path   string // absolute: the app may change its directory
	device uint64
	inode  uint64
}

func ownSocketFile(path string) (*socketFile, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f := &socketFile{path: abs}
	f.device, f.inode, err = identify(abs)
	return f, err
}

// remove deletes the file unless something else is there by now.
func (f *socketFile) remove() {
	if device, inode, err := identify(f.path); err == nil && device == f.device && inode == f.inode {
		_ = os.Remove(f.path) // it stays behind and is stale: the next start replaces it
	}
}

func identify(path string) (device, inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Dev), st.Ino, nil //nolint:unconvert // Dev is signed on macOS
}
