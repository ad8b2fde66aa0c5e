package observe

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// controlHead bounds what a client of the control socket may send.
	controlHead = 8 << 10
	// controlTimeout bounds one exchange.
	controlTimeout = 5 * time.Second
	// controlConnections bounds the exchanges at one time.
	controlConnections = 16
)

// Page answers one kind of question: what is asked behind the question mark in, a body
// out, which is JSON. Errors are for people and are answered as 404. Pages are asked from
// several goroutines.
type Page func(query url.Values) (body []byte, err error)

// Control answers questions on a unix socket:
//
//	curl --unix-socket PATH http://spvn/stats
//
// It speaks as much of HTTP/1.1 as that takes: one GET or HEAD on each connection, whose
// fields it does not look at.
type Control struct {
	listener net.Listener
	pages    map[string]Page
	slots    chan struct{} // capacity controlConnections; who holds one may answer

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed
	all   sync.WaitGroup        // the acceptor and its connections
}

// ServeControl answers on a listening unix socket, which it duplicates: the descriptor,
// and the socket's file, stay the caller's to close. pages has a Page for each path; that
// of /stats answers for / too.
func ServeControl(fd int, pages map[string]Page) (*Control, error) {
	// Two duplicates: os.File closes the one that it is given, and FileListener makes
	// its own.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicating the control socket: %w", err)
	}
	file := os.NewFile(uintptr(dup), "control socket")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("using the control socket: %w", err)
	}
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	c := &Control{
		listener: listener,
		pages:    pages,
		slots:    make(chan struct{}, controlConnections),
		conns:    map[net.Conn]struct{}{},
	}
	c.all.Go(c.accept)
	return c, nil
}

// Close ends the acceptor and every exchange, and waits for both.
func (c *Control) Close() error {
	err := c.listener.Close()
	c.mu.Lock()
	for conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.all.Wait()
	return err
}

func (c *Control) accept() {
	for {
		c.slots <- struct{}{}
		conn, err := c.listener.Accept()
		if err != nil {
			<-c.slots
			if c.isClosed() {
				return
			}
			time.Sleep(100 * time.Millisecond) // out of descriptors, mostly
			continue
		}
		if !c.keep(conn) {
			<-c.slots
			return
		}
		c.all.Go(func() {
			defer func() {
				// A question must not end the server that it is about.
				_ = recover()
				c.drop(conn)
				<-c.slots
			}()
			c.exchange(conn)
		})
	}
}

func (c *Control) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns == nil
}

func (c *Control) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		conn.Close()
		return false
	}
	c.conns[conn] = struct{}{}
	return true
}

func (c *Control) drop(conn net.Conn) {
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

func (c *Control) exchange(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	method, target, err := readHead(conn)
	if err != nil {
		if err == errControlHead {
			answer(conn, "400 Bad Request", "text/plain", []byte("This is not an HTTP request.\n"), false)
		}
		return
	}
	head := method == "HEAD"
	path, query, _ := strings.Cut(target, "?")
	if path == "/" {
		path = "/stats"
	}
	page := c.pages[path]
	switch {
	case method != "GET" && !head:
		answer(conn, "405 Method Not Allowed\r\nAllow: GET, HEAD", "text/plain", c.list(), head)
	case page == nil:
		answer(conn, "404 Not Found", "text/plain", c.list(), head)
	default:
		values, _ := url.ParseQuery(query) // what it did not understand is not in there
		body, err := page(values)
		if err != nil {
			answer(conn, "404 Not Found", "text/plain", []byte(err.Error()+"\n"), head)
			return
		}
		answer(conn, "200 OK", "application/json", append(body, '\n'), head)
	}
}

// list says what there is.
func (c *Control) list() []byte {
	text := "GET "
	for i, path := range slices.Sorted(maps.Keys(c.pages)) {
		if i > 0 {
			text += ", "
		}
		text += path
	}
	return []byte(text + " is all there is.\n")
}

var errControlHead = fmt.Errorf("not an HTTP request, or one of more than %d bytes", controlHead)

// readHead reads up to the empty line that ends a request's head (RFC 9112 2.1).
func readHead(r io.Reader) (method, target string, err error) {
	lines := bufio.NewScanner(io.LimitReader(r, controlHead))
	lines.Buffer(nil, controlHead)
	if !lines.Scan() {
		return "", "", headError(lines)
	}
	parts := strings.Split(lines.Text(), " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "HTTP/1.") {
		return "", "", errControlHead
	}
	for lines.Scan() {
		if lines.Text() == "" {
			return parts[0], parts[1], nil
		}
	}
	return "", "", headError(lines)
}

func headError(lines *bufio.Scanner) error {
	if err := lines.Err(); err != nil && err != bufio.ErrTooLong {
		return err
	}
	return errControlHead
}

func answer(w io.Writer, status, kind string, body []byte, head bool) {
	text := fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
		status, kind, len(body))
	if !head {
		text += string(body)
	}
	_, _ = io.WriteString(w, text) // who asked and left needs no answer
}
