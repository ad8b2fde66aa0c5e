package http1

import (
	"fmt"
	"strings"
	"testing"
)

const (
	host = "Host: a\r\n"
	post = "POST / HTTP/1.1\r\n" + host
	te   = "Transfer-Encoding: chunked\r\n"
)

// vectors has one request, or connection, for each rule. want is what the app and the
// client see: for each call "METHOD path|rawPath|query v11 [fields] body", then the refusal
// "!status" if there was one, then "closed" if the connection was closed.
var vectors = []struct{ name, in, want string }{
	// Request line.
	{"simple", "GET / HTTP/1.1\r\n" + host + "\r\n", "GET /|| v11 [host: a]"},
	{"query", "GET /a/b?c=d?e&f HTTP/1.1\r\n" + host + "\r\n", "GET /a/b||c=d?e&f v11 [host: a]"},
	{"empty query", "GET /a? HTTP/1.1\r\n" + host + "\r\n", "GET /a|| v11 [host: a]"},
	{"method as sent", "mkcol! / HTTP/1.1\r\n" + host + "\r\n", "mkcol! /|| v11 [host: a]"},
	{"longest method", strings.Repeat("M", 64) + " / HTTP/1.1\r\n" + host + "\r\n", strings.Repeat("M", 64) + " /|| v11 [host: a]"},
	{"longer method", strings.Repeat("M", 65) + " / HTTP/1.1\r\n" + host + "\r\n", "!501 closed"},
	{"no method", " / HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"bad method", "G(T / HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"tab after the method", "GET\t/ HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"two spaces before the version", "GET /  HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"space behind the version", "GET / HTTP/1.1 \r\n" + host + "\r\n", "!400 closed"},
	{"space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"HTTP/0.9", "GET /\r\n\r\n", "!400 closed"},
	{"only a method", "GET\r\n\r\n", "!400 closed"},
	{"version in lower case", "GET / http/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"version with two digits", "GET / HTTP/1.10\r\n" + host + "\r\n", "!400 closed"},
	{"version without minor", "GET / HTTP/1\r\n" + host + "\r\n", "!400 closed"},
	{"version with letters", "GET / HTTP/x.1\r\n" + host + "\r\n", "!400 closed"},
	{"another protocol", "GET / HTCPCP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "GET /|| v10 [] closed"},
	{"HTTP/1.2 is taken as 1.1", "GET / HTTP/1.2\r\n" + host + "\r\n", "GET /|| v11 [host: a]"},
	{"HTTP/1.9 is taken as 1.1", "GET / HTTP/1.9\r\n" + host + "\r\n", "GET /|| v11 [host: a]"},
	{"HTTP/0.9 written out", "GET / HTTP/0.9\r\n" + host + "\r\n", "!505 closed"},
	{"HTTP/2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", "!505 closed"},
	{"HTTP/3.0", "GET / HTTP/3.0\r\n" + host + "\r\n", "!505 closed"},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!505 closed"},
	{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "!400 closed"},
	{"not quite TLS", "\x16\x04\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "!400 closed"},
	{"bare LF in the request line", "GET / HTTP/1.1\n" + host + "\r\n", "!400 closed"},
	{"bare CR in the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", "!400 closed"},
	{"CR CR LF", "GET / HTTP/1.1\r\r\n" + host + "\r\n", "!400 closed"},
	{"NUL in the request line", "GET /\x00 HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"bytes that are no request", "\x80\x81\x82", "!400 closed"},

	// Empty lines before a request.
	{"leading CRLF", "\r\n" + get, "GET /hello||a=b v11 [host: example.com]"},
	{"four leading CRLF", "\r\n\r\n\r\n\r\n" + get, "GET /hello||a=b v11 [host: example.com]"},
	{"five leading CRLF", "\r\n\r\n\r\n\r\n\r\n" + get, "!400 closed"},
	{"leading LF", "\n" + get, "!400 closed"},
	{"leading CR", "\r" + get, "!400 closed"},
	{"leading CR CR", "\r\r\n" + get, "!400 closed"},
	{"CRLF behind a body", post + "Content-Length: 1\r\n\r\nx\r\n" + get, "POST /|| v11 [host: a,content-length: 1] x; GET /hello||a=b v11 [host: example.com]"},
	{"only CRLF", "\r\n\r\n", ""},

	// Targets.
	{"percent-encoding", "GET /a%20b%2Fc%e2%82%ac?%20 HTTP/1.1\r\n" + host + "\r\n", "GET /a b/c€|/a%20b%2Fc%e2%82%ac|%20 v11 [host: a]"},
	{"percent-encoded first", "GET /%41 HTTP/1.1\r\n" + host + "\r\n", "GET /A|/%41| v11 [host: a]"},
	{"half an escape", "GET /a%2 HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"a lone percent", "GET /a% HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"a bad escape", "GET /a%zz HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"a half bad escape", "GET /a%4g HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"a bad escape in the query is the app's", "GET /a?b=100% HTTP/1.1\r\n" + host + "\r\n", "GET /a||b=100% v11 [host: a]"},
	{"what browsers do not encode", "GET /a|{}^`\\\"<>[] HTTP/1.1\r\n" + host + "\r\n", "GET /a|{}^`\\\"<>[]|| v11 [host: a]"},
	{"dots and slashes stay", "GET //a/../b//./c HTTP/1.1\r\n" + host + "\r\n", "GET //a/../b//./c|| v11 [host: a]"},
	{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"raw UTF-8", "GET /€ HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"DEL", "GET /\x7f HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"no slash", "GET a HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"only a query", "GET ?a HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "OPTIONS *|| v11 [host: a]"},
	{"asterisk of another method", "GET * HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"asterisk and more", "OPTIONS *a HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"absolute", "GET http://b:80/c%20?d HTTP/1.1\r\n" + host + "\r\n", "GET /c |/c%20|d v11 [host: b:80]"},
	{"absolute, the host stays in place", "GET http://b/ HTTP/1.1\r\nA: 1\r\n" + host + "B: 2\r\n\r\n", "GET /|| v11 [a: 1,host: b,b: 2]"},
	{"absolute https", "GET HTTPS://b HTTP/1.1\r\n" + host + "\r\n", "GET /|| v11 [host: b]"},
	{"absolute with a query only", "GET http://b?c HTTP/1.1\r\n" + host + "\r\n", "GET /||c v11 [host: b]"},
	{"absolute with IPv6", "GET http://[::1]:8000/ HTTP/1.1\r\n" + host + "\r\n", "GET /|| v11 [host: [::1]:8000]"},
	{"absolute in HTTP/1.0 without Host", "GET http://b/ HTTP/1.0\r\n\r\n", "GET /|| v10 [host: b] closed"},
	{"absolute needs Host too", "GET http://b/ HTTP/1.1\r\n\r\n", "!400 closed"},
	{"absolute without a host", "GET http:///a HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"absolute with a port only", "GET http://:80/a HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"absolute with a user", "GET http://u:p@b/ HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"absolute with a bad host", "GET http://b\"/ HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"absolute with another scheme", "GET ftp://b/ HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"absolute without slashes", "GET http:b/ HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"CONNECT", "CONNECT b:443 HTTP/1.1\r\n" + host + "\r\n", "!501 closed"},
	{"CONNECT without a port", "CONNECT b HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"CONNECT with a path", "CONNECT /a HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},
	{"authority of another method", "GET b:443 HTTP/1.1\r\n" + host + "\r\n", "!400 closed"},

	// Host.
	{"no Host", "GET / HTTP/1.1\r\n\r\n", "!400 closed"},
	{"two Hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", "!400 closed"},
	{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\n" + host + host + "\r\n", "!400 closed"},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /|| v11 [host: ]"},
	{"Host with port", "GET / HTTP/1.1\r\nHost: a.b-c_d~:65535\r\n\r\n", "GET /|| v11 [host: a.b-c_d~:65535]"},
	{"Host with an empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET /|| v11 [host: a:]"},
	{"Host with a large port", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "!400 closed"},
	{"Host with a long port", "GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n", "!400 closed"},
	{"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:8o\r\n\r\n", "!400 closed"},
	{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", "!400 closed"},
	{"Host is IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /|| v11 [host: [::1]:80]"},
	{"Host is the shortest IPv6", "GET / HTTP/1.1\r\nHost: [::]\r\n\r\n", "GET /|| v11 [host: [::]]"},
	{"Host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "!400 closed"},
	{"Host with empty brackets", "GET / HTTP/1.1\r\nHost: []\r\n\r\n", "!400 closed"},
	{"Host with junk behind brackets", "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", "!400 closed"},
	{"Host with a zone", "GET / HTTP/1.1\r\nHost: [fe80::1%eth0]\r\n\r\n", "!400 closed"},
	{"Host with percent-encoding", "GET / HTTP/1.1\r\nHost: a%C3%a4\r\n\r\n", "GET /|| v11 [host: a%C3%a4]"},
	{"Host with half an escape", "GET / HTTP/1.1\r\nHost: a%4\r\n\r\n", "!400 closed"},
	{"Host with a bad escape", "GET / HTTP/1.1\r\nHost: a%4x\r\n\r\n", "!400 closed"},
	{"Host with a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "!400 closed"},
	{"Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "!400 closed"},
	{"Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "!400 closed"},
	{"Host with UTF-8", "GET / HTTP/1.1\r\nHost: ä\r\n\r\n", "!400 closed"},

	// Fields.
	{"names in lower case, order and duplicates kept", "GET / HTTP/1.1\r\nX-B: 1\r\n" + host + "X-a: 2\r\nX-B: 3\r\n\r\n", "GET /|| v11 [x-b: 1,host: a,x-a: 2,x-b: 3]"},
	{"white space around a value", "GET / HTTP/1.1\r\n" + host + "A: \t b\tc \t\r\n\r\n", "GET /|| v11 [host: a,a: b\tc]"},
	{"no white space", "GET / HTTP/1.1\r\nHost:a\r\n\r\n", "GET /|| v11 [host: a]"},
	{"empty value", "GET / HTTP/1.1\r\n" + host + "A:\r\nB: \t\r\n\r\n", "GET /|| v11 [host: a,a: ,b: ]"},
	{"obs-text", "GET / HTTP/1.1\r\n" + host + "A: \xff\x80\r\n\r\n", "GET /|| v11 [host: a,a: \xff\x80]"},
	{"every tchar", "GET / HTTP/1.1\r\n" + host + "!#$%&'*+-.^_`|~0Z: 1\r\n\r\n", "GET /|| v11 [host: a,!#$%&'*+-.^_`|~0z: 1]"},
	{"white space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "!400 closed"},
	{"tab before the colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", "!400 closed"},
	{"obs-fold", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", "!400 closed"},
	{"obs-fold with a tab", "GET / HTTP/1.1\r\n" + host + "A: b\r\n\tc\r\n\r\n", "!400 closed"},
	{"white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "!400 closed"},
	{"no colon", "GET / HTTP/1.1\r\n" + host + "abc\r\n\r\n", "!400 closed"},
	{"no name", "GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", "!400 closed"},
	{"bad name", "GET / HTTP/1.1\r\n" + host + "a(: b\r\n\r\n", "!400 closed"},
	{"name in UTF-8", "GET / HTTP/1.1\r\n" + host + "ä: b\r\n\r\n", "!400 closed"},
	{"NUL in a name", "GET / HTTP/1.1\r\n" + host + "a\x00: b\r\n\r\n", "!400 closed"},
	{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", "!400 closed"},
	{"control character in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x01c\r\n\r\n", "!400 closed"},
	{"DEL in a value", "GET / HTTP/1.1\r\n" + host + "A: 0123456789\x7fc\r\n\r\n", "!400 closed"},
	{"bare CR in a value", "GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n\r\n", "!400 closed"},
	{"bare LF behind a value", "GET / HTTP/1.1\r\n" + host + "A: b\nB: c\r\n\r\n", "!400 closed"},
	{"bare LF behind a name", "GET / HTTP/1.1\r\n" + host + "A\nB: c\r\n\r\n", "!400 closed"},
	{"bare CR as the empty line", "GET / HTTP/1.1\r\n" + host + "\rx", "!400 closed"},
	{"bare LF as the empty line", "GET / HTTP/1.1\r\n" + host + "\n", "!400 closed"},
	{"unended", "GET / HTTP/1.1\r\n" + host, ""},

	// Length of the body (RFC 9112 6).
	{"Content-Length", post + "Content-Length: 5\r\n\r\nhello", "POST /|| v11 [host: a,content-length: 5] hello"},
	{"Content-Length 0", post + "Content-Length: 0\r\n\r\n", "POST /|| v11 [host: a,content-length: 0]"},
	{"Content-Length with zeros", post + "Content-Length: 00000000000000000000000005\r\n\r\nhello", "POST /|| v11 [host: a,content-length: 00000000000000000000000005] hello"},
	{"a body behind GET", "GET / HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nhi", "GET /|| v11 [host: a,content-length: 2] hi"},
	{"Content-Length too large", post + "Content-Length: 99999999999999999999\r\n\r\n", "!400 closed"},
	{"Content-Length with a sign", post + "Content-Length: +5\r\n\r\nhello", "!400 closed"},
	{"negative Content-Length", post + "Content-Length: -5\r\n\r\nhello", "!400 closed"},
	{"hexadecimal Content-Length", post + "Content-Length: 0x5\r\n\r\nhello", "!400 closed"},
	{"empty Content-Length", post + "Content-Length:\r\n\r\n", "!400 closed"},
	{"Content-Length list", post + "Content-Length: 5, 5\r\n\r\nhello", "!400 closed"},
	{"Content-Length with a space", post + "Content-Length: 5 5\r\n\r\nhello", "!400 closed"},
	{"equal Content-Lengths", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "!400 closed"},
	{"different Content-Lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "!400 closed"},
	{"Content-Length and chunked", post + "Content-Length: 5\r\n" + te + "\r\n0\r\n\r\n", "!400 closed"},
	{"chunked and Content-Length", post + te + "Content-Length: 5\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "!501 closed"},
	{"gzip, then chunked", post + "Transfer-Encoding: gzip\r\n" + te + "\r\n0\r\n\r\n", "!501 closed"},
	{"chunked, gzip", post + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"gzip", post + "Transfer-Encoding: gzip\r\n\r\n", "!400 closed"},
	{"identity", post + "Transfer-Encoding: identity\r\n\r\n", "!400 closed"},
	{"almost chunked", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"quoted chunked", post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"chunked with a parameter", post + "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"chunked twice", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"two fields of chunked", post + te + te + "\r\n0\r\n\r\n", "!400 closed"},
	{"empty Transfer-Encoding", post + "Transfer-Encoding:\r\n\r\n", "!400 closed"},
	{"empty element", post + "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"vertical tab before chunked", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "!400 closed"},
	{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + te + "\r\n0\r\n\r\n", "!400 closed"},
	{"CHUNKED", post + "Transfer-Encoding: CHUNKED \r\n\r\n0\r\n\r\n", "POST /|| v11 [host: a,transfer-encoding: CHUNKED]"},

	// Chunks (RFC 9112 7.1).
	{"chunks", post + te + "\r\n5\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0\r\n\r\n", "POST /|| v11 [host: a,transfer-encoding: chunked] hello, world"},
	{"chunk sizes", post + te + "\r\n00a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n", "POST /|| v11 [host: a,transfer-encoding: chunked] 01234567890123456789"},
	{"chunk extensions", post + te + "\r\n1;a\r\nx\r\n1;a=b;c=\"d;e\"\r\ny\r\n0;f\r\n\r\n", "POST /|| v11 [host: a,transfer-encoding: chunked] xy"},
	{"trailers", post + te + "\r\n1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n" + get, "POST /|| v11 [host: a,transfer-encoding: chunked] x; GET /hello||a=b v11 [host: example.com]"},
	{"no chunk size", post + te + "\r\n\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size with a sign", post + te + "\r\n+1\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size with 0x", post + te + "\r\n0x1\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size behind a space", post + te + "\r\n 1\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"white space before an extension", post + te + "\r\n1 ;a\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size before a space", post + te + "\r\n1 \r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size with an underscore", post + te + "\r\n1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size too long", post + te + "\r\n0000000000000001\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"chunk size overflow", post + te + "\r\nffffffffffffffff1\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"LF behind a chunk size", post + te + "\r\n1\nx\r\n0\r\n\r\n", "!400 closed"},
	{"CR behind a chunk size", post + te + "\r\n1\rx\r\n0\r\n\r\n", "!400 closed"},
	{"LF in an extension", post + te + "\r\n1;a\nx\r\n0\r\n\r\n", "!400 closed"},
	{"NUL in an extension", post + te + "\r\n1;a\x00\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"CR in an extension", post + te + "\r\n1;a\rb\r\nx\r\n0\r\n\r\n", "!400 closed"},
	{"no CRLF behind a chunk", post + te + "\r\n1\r\nxy\r\n0\r\n\r\n", "!400 closed"},
	{"LF behind a chunk", post + te + "\r\n1\r\nx\n0\r\n\r\n", "!400 closed"},
	{"CR behind a chunk", post + te + "\r\n1\r\nx\r0\r\n\r\n", "!400 closed"},
	{"LF as the last line", post + te + "\r\n0\r\n\n", "!400 closed"},
	{"CR as the last line", post + te + "\r\n0\r\n\rx", "!400 closed"},
	{"trailer without a colon", post + te + "\r\n0\r\nabc\r\n\r\n", "!400 closed"},
	{"trailer without a name", post + te + "\r\n0\r\n: a\r\n\r\n", "!400 closed"},
	{"folded trailer", post + te + "\r\n0\r\nA: b\r\n c\r\n\r\n", "!400 closed"},
	{"trailer with LF", post + te + "\r\n0\r\nA: b\n\r\n", "!400 closed"},
	{"trailer with NUL", post + te + "\r\n0\r\nA: b\x00\r\n\r\n", "!400 closed"},

	// Persistence (RFC 9112 9.3).
	{"pipelined", get + get + post + "Content-Length: 1\r\n\r\nx" + get, "GET /hello||a=b v11 [host: example.com]; GET /hello||a=b v11 [host: example.com]; POST /|| v11 [host: a,content-length: 1] x; GET /hello||a=b v11 [host: example.com]"},
	{"close", "GET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n" + get, "GET /|| v11 [host: a,connection: close] closed"},
	{"close in a list", "GET / HTTP/1.1\r\n" + host + "Connection: foo,, CLOSE\r\n\r\n" + get, "GET /|| v11 [host: a,connection: foo,, CLOSE] closed"},
	{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" + get, "GET /|| v10 [connection: Keep-Alive]; GET /hello||a=b v11 [host: example.com]"},
	{"HTTP/1.0 keep-alive and close", "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n" + get, "GET /|| v10 [connection: keep-alive,connection: close] closed"},
	{"a bad request behind a good one", get + "GET /\r\n\r\n" + get, "GET /hello||a=b v11 [host: example.com] !400 closed"},

	// Expect (RFC 9110 10.1.1).
	{"other expectation", post + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", "!417 closed"},
	{"more than one expectation", post + "Expect: 100-continue, x\r\nContent-Length: 1\r\n\r\nx", "!417 closed"},
	{"other expectation in HTTP/1.0", "POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\nx", "POST /|| v10 [expect: x,content-length: 1] x closed"},
	{"100-Continue without a body", "GET / HTTP/1.1\r\n" + host + "Expect: 100-Continue\r\n\r\n", "GET /|| v11 [host: a,expect: 100-Continue]"},

	// Upgrades that nobody takes.
	{"h2c", "GET / HTTP/1.1\r\n" + host + "Upgrade: h2c\r\nConnection: upgrade\r\n\r\n", "GET /|| v11 [host: a,upgrade: h2c,connection: upgrade]"},
	{"websocket", "GET / HTTP/1.1\r\n" + host + "Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", "GET /|| v11 [host: a,upgrade: websocket,connection: upgrade]"},
}

// outcome feeds a connection and tells what came of it. An app that answers every call as
// soon as it is complete is part of it.
func outcome(t *testing.T, feed func(r *rig)) (want, output string) {
	t.Helper()
	r := newRig(t)
	r.app.room = 1 << 30
	answered := 0
	answer := func(c *appCall) {
		if c.bodyLast && !c.left {
			answered++
			c.ok(fmt.Sprint(answered))
		}
	}
	r.app.start = func(c *appCall) bool {
		c.onBody = func(c *appCall) { answer(c) }
		answer(c)
		return !c.bodyLast
	}
	feed(r)
	output = r.output()
	var calls []string
	for _, c := range r.app.calls {
		if c.left {
			continue
		}
		s := fmt.Sprintf("%s %s|%s|%s v%d [%s]", c.method, c.path, c.rawPath, c.query, c.version, strings.Join(c.fields, ","))
		if len(c.body) > 0 {
			s += " " + string(c.body)
		}
		calls = append(calls, s)
	}
	want = strings.Join(calls, "; ")
	if len(r.refused) > 0 {
		want += " !" + r.refused[0][:3]
	}
	if r.wire.closed {
		want += " closed"
	}
	if r.wire.aborted {
		want += " aborted"
	}
	if len(r.refused) > 1 {
		t.Errorf("refused %q; want one refusal", r.refused)
	}
	return strings.TrimSpace(want), output
}

// TestVectors feeds every vector whole, byte by byte, and cut in two at every place: what
// comes of it must be the same, to the byte.
func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			got, output := outcome(t, func(r *rig) { r.send(v.in) })
			if got != v.want {
				t.Errorf("got\n%q; want\n%q", got, v.want)
			}
			compare := func(how string, feed func(r *rig)) {
				t.Helper()
				got, out := outcome(t, feed)
				if got != v.want || out != output {
					t.Errorf("%s: got\n%q %q; want\n%q %q", how, got, out, v.want, output)
				}
			}
			for n := 1; n < 8; n++ {
				compare(fmt.Sprintf("%d bytes at a time", n), func(r *rig) { r.sendIn(v.in, n) })
			}
			for i := 1; i < len(v.in); i++ {
				compare(fmt.Sprintf("cut at %d", i), func(r *rig) {
					r.send(v.in[:i])
					if !r.wire.closed {
						r.send(v.in[i:])
					}
				})
			}
		})
	}
}

// TestLimits checks that each limit holds at its value and not one byte earlier, however
// the input is cut.
func TestLimits(t *testing.T) {
	line := func(n int) string { // a request line of n bytes
		return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n"
	}
	fields := func(n int) string { // field lines of n bytes, with the empty line
		return host + "A: " + strings.Repeat("b", n-len(host)-7) + "\r\n\r\n"
	}
	chunked := func(extension, trailers int) string {
		s := post + te + "\r\n1;" + strings.Repeat("e", max(extension-1, 0)) + "\r\nx\r\n0\r\n"
		if trailers > 0 {
			s += "T:" + strings.Repeat("t", trailers-4) + "\r\n"
		}
		return s + "\r\n"
	}
	for _, test := range []struct {
		name, ok, over string
		status         int
		change         func(c *Config)
	}{
		{"request line", line(100) + host + "\r\n", line(101) + host + "\r\n", 414, func(c *Config) { c.LimitRequestLine = 100 }},
		{"target without an end", line(100) + host + "\r\n", "GET /" + strings.Repeat("a", 100), 414, func(c *Config) { c.LimitRequestLine = 100 }},
		{"field bytes", line(50) + fields(200), line(50) + fields(201), 431, func(c *Config) { c.LimitHeaderBytes = 200 }},
		{"value without an end", line(50) + fields(200), line(50) + host + "A: " + strings.Repeat("b", 200), 431, func(c *Config) { c.LimitHeaderBytes = 200 }},
		{"name without an end", line(50) + fields(200), line(50) + host + strings.Repeat("b", 200), 431, func(c *Config) { c.LimitHeaderBytes = 200 }},
		{"field count", line(50) + host + "a:\r\nb:\r\n\r\n", line(50) + host + "a:\r\nb:\r\nc:\r\n\r\n", 431, func(c *Config) { c.LimitHeaderCount = 3 }},
		{"body", post + "Content-Length: 3\r\n\r\nabc", post + "Content-Length: 4\r\n\r\nabcd", 413, func(c *Config) { c.LimitBody = 3 }},
		{"chunked body", post + te + "\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", post + te + "\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", 413, func(c *Config) { c.LimitBody = 3 }},
		{"large chunk", post + te + "\r\n3\r\nabc\r\n0\r\n\r\n", post + te + "\r\nfffffffff\r\n", 413, func(c *Config) { c.LimitBody = 3 }},
		{"chunk extension", chunked(20, 0), chunked(21, 0), 400, func(c *Config) { c.LimitChunkExtensions = 20 }},
		{"trailers", chunked(1, 40), chunked(1, 41), 431, func(c *Config) { c.LimitTrailers = 40 }},
	} {
		for _, n := range []int{1, 3, 1 << 20} {
			t.Run(fmt.Sprintf("%s in pieces of %d", test.name, n), func(t *testing.T) {
				r := newRig(t, test.change)
				r.sendIn(test.ok, n)
				if c := r.last(1); !c.bodyLast || len(r.refused) > 0 {
					t.Errorf("at the limit: %+v, refused %q; want a call", c, r.refused)
				}
				r = newRig(t, test.change)
				r.sendIn(test.over, n)
				r.wantStatus(test.status)
				r.wantEnd(true, false)
				for _, c := range r.app.calls {
					if !c.left {
						t.Error("over the limit, and the call was not left")
					}
				}
			})
		}
	}
}

// TestExtensionsArePaidFor checks that a long upload may have an extension on every chunk,
// and that one of tiny chunks may not.
func TestExtensionsArePaidFor(t *testing.T) {
	extension := ";signature=" + strings.Repeat("0", 64)
	for _, test := range []struct {
		size int
		ok   bool
	}{{1024, true}, {1, false}} {
		r := newRig(t)
		r.app.room = 1 << 30
		r.send(post + te + "\r\n")
		for range 1000 {
			if r.wire.closed {
				break
			}
			r.send(fmt.Sprintf("%x%s\r\n%s\r\n", test.size, extension, strings.Repeat("x", test.size)))
		}
		if ok := !r.wire.closed; ok != test.ok {
			t.Errorf("chunks of %d bytes: accepted %v; want %v", test.size, ok, test.ok)
		}
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Date, c.Server = true, "spvn" })
	r.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	r.wantOutput("HTTP/1.1 400 Bad Request\r\n" + testDate + "server: spvn\r\ncontent-type: text/plain; charset=utf-8\r\n" +
		fmt.Sprintf("content-length: %d\r\nconnection: close\r\n\r\n%s", len(isTLS.Text), isTLS.Text))

	// The refusal of a HEAD has no body.
	r = newRig(t)
	r.send("HEAD / HTTP/1.1\r\n\r\n")
	if out := r.output(); !strings.HasSuffix(out, "\r\n\r\n") || !strings.Contains(out, "content-length: ") {
		t.Errorf("output is %q; want a length and no body", out)
	}

	// That of what follows a HEAD has one.
	r = newRig(t)
	r.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
	r.last(1).ok("")
	r.send("\n")
	if out := r.output(); !strings.HasSuffix(out, badLineEnd.Text) {
		t.Errorf("output is %q; want the reason at its end", out)
	}
}
