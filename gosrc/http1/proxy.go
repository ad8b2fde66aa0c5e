package http1

import (
	"net/netip"
	"strings"
	"unsafe"

	"spvn/gosrc/call"
)

// Trusted is the set of peers that may say for whom they speak. Its rules are those of
// uvicorn's ProxyHeadersMiddleware, which is what people have configured, and one more:
//
//   - "*" trusts everybody, also peers without an address (unix sockets);
//   - "unix" trusts those alone;
//   - an entry with "/" is a network if it is a valid one with no host bits set, one
//     without is an address if it is a valid one, and anything else is a literal;
//   - an address is compared as such, any other host with the literals;
//   - an IPv4 address is not its IPv4-mapped IPv6 form.
type Trusted struct {
	always   bool
	local    bool // peers without an address
	hosts    map[netip.Addr]struct{}
	networks []netip.Prefix
	literals map[string]struct{}
}

// NewTrusted compiles the value of --forwarded-allow-ips, already split at its commas.
func NewTrusted(hosts []string) *Trusted {
	t := &Trusted{hosts: map[netip.Addr]struct{}{}, literals: map[string]struct{}{}}
	if len(hosts) == 1 && strings.TrimSpace(hosts[0]) == "*" {
		t.always = true
		return t
	}
	for _, host := range hosts {
		host = strings.TrimSpace(host)
		t.local = t.local || host == "unix"
		if strings.Contains(host, "/") {
			if p, err := netip.ParsePrefix(host); err == nil && p == p.Masked() {
				t.networks = append(t.networks, p)
				continue
			}
		} else if a, err := netip.ParseAddr(host); err == nil {
			t.hosts[a] = struct{}{}
			continue
		}
		t.literals[host] = struct{}{}
	}
	return t
}

// Has reports whether a peer at host is trusted.
func (t *Trusted) Has(host string) bool {
	switch {
	case t == nil:
		return false
	case t.always:
		return true
	case host == "":
		return t.local
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		_, ok := t.literals[host]
		return ok
	}
	if _, ok := t.hosts[a]; ok {
		return true
	}
	for _, p := range t.networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forward changes scheme and client of a request from a trusted peer. The client's host
// lies in the request's own memory: it is copied with the request.
func (t *Trusted) forward(r *call.Request) {
	var proto []byte
	count := 0
	for _, f := range r.Fields {
		switch string(f.Name) {
		case "x-forwarded-proto":
			proto = f.Value // the last one counts
		case "x-forwarded-for":
			count++
		}
	}
	switch string(proto) {
	case "http":
		r.Scheme = call.HTTP
	case "https":
		r.Scheme = call.HTTPS
	case "ws":
		r.Scheme = call.WS
	case "wss":
		r.Scheme = call.WSS
	}
	if r.WebSocket {
		r.Scheme |= call.WS
	}
	if count > 0 {
		if a := t.client(r.Fields); a.Host != "" {
			r.Client = a
		}
	}
}

// client finds the client in the X-Forwarded-For fields: every proxy appends the peer that
// it saw, so it is the last one that is not trusted, or the first if all are.
func (t *Trusted) client(fields []call.Field) call.Addr {
	first := call.Addr{}
	for i := len(fields) - 1; i >= 0; i-- {
		if string(fields[i].Name) != "x-forwarded-for" {
			continue
		}
		rest := unsafe.String(unsafe.SliceData(fields[i].Value), len(fields[i].Value))
		for {
			element := rest
			at := strings.LastIndexByte(rest, ',')
			if at >= 0 {
				element = rest[at+1:]
			}
			first = hostPort(strings.Trim(element, " \t"))
			if !t.always && !t.Has(first.Host) {
				return first
			}
			if at < 0 {
				break
			}
			rest = rest[:at]
		}
	}
	return first
}

// hostPort reads an address with or without a port. What has another form is taken as it
// is, without a port, so that no check of trust sees more in it than is there.
func hostPort(s string) call.Addr {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return call.Addr{Host: s}
		}
		rest := s[end+1:]
		if rest != "" && rest[0] != ':' {
			return call.Addr{Host: s}
		}
		port := int32(0)
		if rest != "" {
			port, _ = portNumber(rest[1:])
		}
		return call.Addr{Host: s[1:end], Port: port}
	}
	if i := strings.IndexByte(s, ':'); i >= 0 && i == strings.LastIndexByte(s, ':') {
		if port, ok := portNumber(s[i+1:]); ok {
			return call.Addr{Host: s[:i], Port: port}
		}
	}
	return call.Addr{Host: s}
}

func portNumber(s string) (port int32, ok bool) {
	if len(s) == 0 || len(s) > 9 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		port = port*10 + int32(s[i]-'0')
	}
	return port, true
}
