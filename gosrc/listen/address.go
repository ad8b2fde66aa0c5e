package listen

import (
	"net/netip"
	"strconv"
	"strings"
)

// address is a parsed --bind value; exactly one of its three forms is set.
type address struct {
	host string // form 1: "" means every address, IPv4 and IPv6; no brackets
	port int
	path string // form 2: unless ""
	fd   int    // form 3: unless -1
}

// Prefixes of the forms that are not HOST:PORT.
const (
	unixPrefix = "unix:"
	fdPrefix   = "fd://"
)

// parse reads HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N. A host may be empty or "*".
// It looks at the syntax only: a name is resolved later.
func parse(o origin) (address, *Error) {
	s := o.value
	switch {
	case strings.HasPrefix(s, unixPrefix):
		path := s[len(unixPrefix):]
		if err := checkPath(o, path); err != nil {
			return address{}, err
		}
		return address{path: path, fd: -1}, nil
	case strings.HasPrefix(s, fdPrefix):
		n, ok := parseNumber(s[len(fdPrefix):], maxFD)
		if !ok {
			return address{}, o.errorf(nil, "not a file descriptor; write its number, as in fd://3")
		}
		return address{fd: n}, nil
	case strings.Contains(s, "://"):
		return address{}, o.errorf(nil, "a URL is not an address; write HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N")
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") {
		return address{}, o.errorf(nil, "no port; write HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N")
	}
	host, ok := unbracket(s[:colon])
	if !ok {
		if strings.Contains(s[:colon], ":") {
			return address{}, o.errorf(nil, "an IPv6 address goes in brackets, as in [::1]:8000")
		}
		return address{}, o.errorf(nil, "brackets are for IPv6 addresses, as in [::1]:8000")
	}
	port, ok := parseNumber(s[colon+1:], maxPort)
	if !ok {
		return address{}, o.errorf(nil, "%s is not a port; a port is a number from 0 (any that is free) to 65535", printable(s[colon+1:]))
	}
	if err := checkHost(o, host); err != nil {
		return address{}, err
	}
	return address{host: host, port: port, fd: -1}, nil
}

const (
	maxPort = 65535
	maxFD   = 1<<31 - 1
)

// unbracket takes the host of HOST:PORT: without a colon, or an IPv6 address in brackets.
func unbracket(s string) (host string, ok bool) {
	inner, open := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	switch {
	case open && closed:
		return inner, strings.Contains(inner, ":")
	case open || closed:
		return "", false
	}
	return s, !strings.Contains(s, ":")
}

// checkHost refuses what is neither an address nor could be a name. RFC 1123 2.1 has no
// underscore in a host's name; container networks do.
func checkHost(o origin, host string) *Error {
	if host == "" || host == "*" {
		return nil
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return o.errorf(nil, "%s is not an IPv6 address", printable(host))
		}
		return nil
	}
	if len(host) > 253 {
		return o.errorf(nil, "a host name has at most 253 characters, this one has %d", len(host))
	}
	for i := range len(host) {
		c := host[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return o.errorf(nil, "%s is neither an address nor a host name", printable(host))
		}
	}
	return nil
}

// parseNumber takes decimal digits and nothing else, up to most.
func parseNumber(s string, most int) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > uint64(most) {
		return 0, false
	}
	return int(n), true
}
