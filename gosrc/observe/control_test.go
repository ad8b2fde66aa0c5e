package observe

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serveControl starts a control socket and returns its path.
func serveControl(t *testing.T, respond func() []byte) (path string, c *Control) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	c, err = ServeControl(int(f.Fd()), map[string]Page{
		"/stats": func(url.Values) ([]byte, error) { return respond(), nil },
		"/one":   func(query url.Values) ([]byte, error) { return nil, errors.New("no " + query.Get("x")) },
	})
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		l.Close()
	})
	return path, c
}

func ask(t *testing.T, path, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestControl(t *testing.T) {
	path, _ := serveControl(t, func() []byte { return []byte(`{"calls":1}`) })
	long := strings.Repeat("x", controlHead)
	for _, tt := range []struct{ request, status, body string }{
		{"GET /stats HTTP/1.1\r\nHost: x\r\nUser-Agent: curl\r\n\r\n", "HTTP/1.1 200 OK", "{\"calls\":1}\n"},
		{"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "{\"calls\":1}\n"},
		{"GET /stats?x=1 HTTP/1.1\n\n", "HTTP/1.1 200 OK", "{\"calls\":1}\n"},
		{"GET /one?x=a%20b HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found", "no a b\n"},
		{"HEAD /stats HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK", ""},
		{"GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found", "GET /one, /stats is all there is.\n"},
		{"POST /stats HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed", "GET /one, /stats is all there is.\n"},
		{"hello\r\n\r\n", "HTTP/1.1 400 Bad Request", "This is not an HTTP request.\n"},
		{"GET /stats HTTP/1.1\r\n", "HTTP/1.1 400 Bad Request", "This is not an HTTP request.\n"},
		{"", "HTTP/1.1 400 Bad Request", "This is not an HTTP request.\n"},
		{"GET /" + long[:controlHead-5], "HTTP/1.1 400 Bad Request", "This is not an HTTP request.\n"},
		{"GET / HTTP/1.1\r\na: " + long[:controlHead-19], "HTTP/1.1 400 Bad Request", "This is not an HTTP request.\n"},
	} {
		got := ask(t, path, tt.request)
		status, rest, _ := strings.Cut(got, "\r\n")
		_, body, _ := strings.Cut(rest, "\r\n\r\n")
		if status != tt.status || body != tt.body {
			t.Errorf("answer to %.40q = %q with %q; want %q with %q", tt.request, status, body, tt.status, tt.body)
		}
	}
}

// What it says is HTTP to those who know it.
func TestControlAgainstNetHTTP(t *testing.T) {
	path, _ := serveControl(t, func() []byte { return []byte(`{}`) })
	client := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	response, err := client.Get("http://spvn/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 || string(body) != "{}\n" || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("answer = %d, %q, %v, %v", response.StatusCode, body, response.Header, err)
	}
}

func TestControlSurvivesPanics(t *testing.T) {
	broken := make(chan bool, 1)
	broken <- true
	path, _ := serveControl(t, func() []byte {
		select {
		case <-broken:
			panic("broken")
		default:
			return []byte("{}")
		}
	})
	if got := ask(t, path, "GET / HTTP/1.1\r\n\r\n"); got != "" {
		t.Errorf("answer = %q; want none", got)
	}
	if got := ask(t, path, "GET / HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("next answer = %q; want 200", got)
	}
}

// Clients that say nothing do not keep it open, and its file is not its own to remove.
func TestControlClose(t *testing.T) {
	path, c := serveControl(t, func() []byte { return []byte("{}") })
	var silent []net.Conn
	for range controlConnections + 2 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	if _, err := io.WriteString(silent[0], "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(silent[0]).ReadString('\n'); err != nil {
		t.Fatalf("the first of many got no answer: %v", err)
	}
	c.Close()
	if _, err := silent[1].Read(make([]byte, 1)); err == nil {
		t.Errorf("a silent client is still connected")
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket's file is gone: %v", err)
	}
}

func TestServeControlErrors(t *testing.T) {
	if c, err := ServeControl(1<<20, nil); err == nil {
		t.Errorf("ServeControl of no descriptor = %v; want an error", c)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c, err := ServeControl(int(f.Fd()), nil); err == nil {
		t.Errorf("ServeControl of a file = %v; want an error", c)
	}
}
