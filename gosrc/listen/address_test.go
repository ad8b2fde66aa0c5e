package listen

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  address
	}{
		{"127.0.0.1:8000", address{"127.0.0.1", 8000, "", -1}},
		{"0.0.0.0:0", address{"0.0.0.0", 0, "", -1}},
		{"localhost:80", address{"localhost", 80, "", -1}},
		{"my_app.internal:65535", address{"my_app.internal", 65535, "", -1}},
		{"[::1]:8000", address{"::1", 8000, "", -1}},
		{"[::]:1", address{"::", 1, "", -1}},
		{"[fe80::1%eth0]:1", address{"fe80::1%eth0", 1, "", -1}},
		{":8000", address{"", 8000, "", -1}},
		{"*:8000", address{"*", 8000, "", -1}},
		{"unix:/run/app.sock", address{"", 0, "/run/app.sock", -1}},
		{"unix:app.sock", address{"", 0, "app.sock", -1}},
		{"unix:a:1", address{"", 0, "a:1", -1}},
		{"unix:@abstract", address{"", 0, "@abstract", -1}},
		{"fd://3", address{"", 0, "", 3}},
		{"fd://0", address{"", 0, "", 0}},
	} {
		got, err := parse(origin{"--bind", tt.value})
		if err != nil {
			t.Errorf("parse(%q): %v; want %+v", tt.value, err, tt.want)
		} else if got != tt.want {
			t.Errorf("parse(%q) = %+v; want %+v", tt.value, got, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{"", `--bind "": no port; write HOST:PORT`},
		{"8000", "--bind 8000: no port; write HOST:PORT"},
		{"127.0.0.1", "no port"},
		{"[::1]", "no port"},
		{"::1:8000", "an IPv6 address goes in brackets, as in [::1]:8000"},
		{"::1", "an IPv6 address goes in brackets"},
		{"[127.0.0.1]:80", "brackets are for IPv6 addresses"},
		{"[::1:80", "an IPv6 address goes in brackets"},
		{"[zz::1]:80", "zz::1 is not an IPv6 address"},
		{"[::1%]:80", "is not an IPv6 address"},
		{"host:", `"" is not a port`},
		{"host:http", "http is not a port"},
		{"host:65536", "65536 is not a port"},
		{"host:-1", "-1 is not a port"},
		{"host:+1", "+1 is not a port"},
		{"host: 1", `" 1" is not a port`},
		{"host:99999999999999999999", "is not a port"},
		{"ho st:80", `"ho st" is neither an address nor a host name`},
		{"hö:80", "is neither an address nor a host name"},
		{strings.Repeat("a", 254) + ":80", "at most 253 characters"},
		{"http://localhost:80", "a URL is not an address"},
		{"unix:", "no path"},
		{"unix:@", "no path"},
		{"unix:a\x00b", "a path cannot have a NUL character"},
		{"unix:/" + strings.Repeat("a", maxPath), "the path has 108 bytes and a unix socket's may have 107"},
		{"fd://", "not a file descriptor"},
		{"fd://-1", "not a file descriptor"},
		{"fd://x", "not a file descriptor"},
		{"fd://2147483648", "not a file descriptor"},
		{"a\nb:80", `--bind "a\nb:80": `},
	} {
		got, err := parse(origin{"--bind", tt.value})
		if err == nil {
			t.Errorf("parse(%q) = %+v; want an error with %q", tt.value, got, tt.want)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("parse(%q): %v; want %q in it", tt.value, err, tt.want)
		}
		if err.Option != "--bind" || err.Value != tt.value {
			t.Errorf("parse(%q): option, value = %q, %q", tt.value, err.Option, err.Value)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1:8000", "[::1]:8000", "[fe80::1%eth0]:1", ":0", "*:1", "unix:/run/a", "unix:@a", "fd://3",
		"http://a:1", "::1", "[]:1", "[:1", "a]:1", "fd://-1", "unix:", "a:99999", "a\x00:1", "[::ffff:1.2.3.4]:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		a, err := parse(origin{"--bind", value})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("parse(%q): the error has control characters: %q", value, err.Error())
			}
			return
		}
		switch {
		case a.fd >= 0:
			if a.path != "" || a.host != "" || a.port != 0 {
				t.Errorf("parse(%q) = %+v; want a descriptor only", value, a)
			}
		case a.path != "":
			if value != unixPrefix+a.path || len(a.path) > maxPath {
				t.Errorf("parse(%q) = %+v; want the same path", value, a)
			}
		default:
			if a.port < 0 || a.port > maxPort || !strings.Contains(value, a.host) {
				t.Errorf("parse(%q) = %+v; want a host of it and a port", value, a)
			}
		}
	})
}
