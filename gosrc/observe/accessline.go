package observe

import (
	"strconv"
)

// Access is one answered request, as the access log shows it. Its slices are read before
// Line returns.
type Access struct {
	Host    string // the client's address; "" when unknown
	Port    int32  // the client's port; -1 when there is none (a unix socket)
	Method  []byte
	Path    []byte // percent-decoded
	Query   []byte // as it was sent, without the question mark
	Version uint8  // 10, 11 or 20
	Status  int
}

// lineFormat makes lines exactly as uvicorn's AccessFormatter does with its default
// format:
//
//	INFO:     127.0.0.1:54321 - "GET /path?q HTTP/1.1" 200 OK
//
// so that what reads uvicorn's log reads this one. One thing differs: a byte of the path
// that is not UTF-8 is shown as it was sent (%FF), not as the replacement character.
type lineFormat struct {
	prefix     string // the level, up to the client's address
	quote      string // between the address and the method
	unquote    string // after the version
	rootPath   string // quoted; goes before every path
	status     [statuses]string
	warning    string // the level of the line that reports lost lines
	withColors bool
}

// Statuses from 100 to 599 are formatted once.
const (
	firstStatus = 100
	statuses    = 500
)

// Escape sequences, as in uvicorn's _ansi.style.
const (
	reset       = "\x1b[0m"
	bold        = "\x1b[1m"
	red         = "\x1b[31m"
	green       = "\x1b[32m"
	yellow      = "\x1b[33m"
	brightRed   = "\x1b[91m"
	brightWhite = "\x1b[97m"
)

func newLineFormat(colors bool, rootPath string) *lineFormat {
	f := &lineFormat{
		prefix:     "INFO:     ",
		quote:      ` - "`,
		unquote:    `" `,
		rootPath:   string(appendQuoted(nil, []byte(rootPath), &safeInPath)),
		warning:    "WARNING:  ",
		withColors: colors,
	}
	if colors {
		f.prefix = green + "INFO" + reset + ":     "
		f.quote = ` - "` + bold
		f.unquote = reset + `" `
		f.warning = yellow + "WARNING" + reset + ":  "
	}
	for i := range f.status {
		f.status[i] = f.formatStatus(firstStatus + i)
	}
	return f
}

// formatStatus is the status and its phrase, and the end of the line. A status that
// Python's http.HTTPStatus does not know has an empty phrase.
func (f *lineFormat) formatStatus(status int) string {
	text := strconv.Itoa(status) + " " + phrases[status]
	if f.withColors {
		switch status / 100 {
		case 1:
			text = brightWhite + text + reset
		case 2:
			text = green + text + reset
		case 3:
			text = yellow + text + reset
		case 4:
			text = red + text + reset
		case 5:
			text = brightRed + text + reset
		}
	}
	return text + "\n"
}

// appendLine appends the line of one request to b.
func (f *lineFormat) appendLine(b []byte, a *Access) []byte {
	b = append(b, f.prefix...)
	if a.Host != "" && a.Port >= 0 {
		b = append(b, a.Host...)
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(a.Port), 10)
	}
	b = append(b, f.quote...)
	b = appendQuoted(b, a.Method, &safeInQuery)
	b = append(b, ' ')
	b = append(b, f.rootPath...)
	b = appendQuoted(b, a.Path, &safeInPath)
	if len(a.Query) > 0 {
		b = append(b, '?')
		b = appendQuoted(b, a.Query, &safeInQuery)
	}
	switch a.Version {
	case 11:
		b = append(b, " HTTP/1.1"...)
	case 20:
		b = append(b, " HTTP/2"...)
	default:
		b = append(b, " HTTP/1.0"...)
	}
	b = append(b, f.unquote...)
	if i := a.Status - firstStatus; i >= 0 && i < statuses {
		return append(b, f.status[i]...)
	}
	return append(b, f.formatStatus(a.Status)...)
}

// dropped is the line that stands for n lost ones.
func (f *lineFormat) dropped(n uint64) []byte {
	if n == 1 {
		return []byte(f.warning + "1 line of the access log was dropped: nobody read it in time\n")
	}
	return []byte(f.warning + strconv.FormatUint(n, 10) + " lines of the access log were dropped: nobody read them in time\n")
}

type byteSet [256]bool

var (
	// safeInPath is what Python's urllib.parse.quote leaves as it is.
	safeInPath = setOf(func(c byte) bool {
		switch c {
		case '_', '.', '-', '~', '/':
			return true
		}
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	})
	// safeInQuery is all that is visible: a query is shown as it was sent, but nothing
	// that it holds can start a line or steer a terminal.
	safeInQuery = setOf(func(c byte) bool { return ' ' < c && c < 0x7f })
)

func setOf(in func(byte) bool) (set byteSet) {
	for c := range set {
		set[c] = in(byte(c))
	}
	return set
}

// appendQuoted appends s with every byte outside of safe as %XX. Mostly there is none, and
// s goes in one piece.
func appendQuoted(b, s []byte, safe *byteSet) []byte {
	const hex = "0123456789ABCDEF"
	start := 0
	for i, c := range s {
		if !safe[c] {
			b = append(b, s[start:i]...)
			b = append(b, '%', hex[c>>4], hex[c&15])
			start = i + 1
		}
	}
	return append(b, s[start:]...)
}

// phrases are those of http.HTTPStatus of Python 3.13, which follow RFC 9110.
var phrases = map[int]string{
	100: "Continue",
	101: "Switching Protocols",
	102: "Processing",
	103: "Early Hints",
	200: "OK",
	201: "Created",
	202: "Accepted",
	203: "Non-Authoritative Information",
	204: "No Content",
	205: "Reset Content",
	206: "Partial Content",
	207: "Multi-Status",
	208: "Already Reported",
	226: "IM Used",
	300: "Multiple Choices",
	301: "Moved Permanently",
	302: "Found",
	303: "See Other",
	304: "Not Modified",
	305: "Use Proxy",
	307: "Temporary Redirect",
	308: "Permanent Redirect",
	400: "Bad Request",
	401: "Unauthorized",
	402: "Payment Required",
	403: "Forbidden",
	404: "Not Found",
	405: "Method Not Allowed",
	406: "Not Acceptable",
	407: "Proxy Authentication Required",
	408: "Request Timeout",
	409: "Conflict",
	410: "Gone",
	411: "Length Required",
	412: "Precondition Failed",
	413: "Content Too Large",
	414: "URI Too Long",
	415: "Unsupported Media Type",
	416: "Range Not Satisfiable",
	417: "Expectation Failed",
	418: "I'm a Teapot",
	421: "Misdirected Request",
	422: "Unprocessable Content",
	423: "Locked",
	424: "Failed Dependency",
	425: "Too Early",
	426: "Upgrade Required",
	428: "Precondition Required",
	429: "Too Many Requests",
	431: "Request Header Fields Too Large",
	451: "Unavailable For Legal Reasons",
	500: "Internal Server Error",
	501: "Not Implemented",
	502: "Bad Gateway",
	503: "Service Unavailable",
	504: "Gateway Timeout",
	505: "HTTP Version Not Supported",
	506: "Variant Also Negotiates",
	507: "Insufficient Storage",
	508: "Loop Detected",
	510: "Not Extended",
	511: "Network Authentication Required",
}
