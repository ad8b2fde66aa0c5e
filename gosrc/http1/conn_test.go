package http1

import "testing"

func TestGet(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Date, c.Server = true, "spvn" })
	for i := 1; i <= 3; i++ {
		r.send(get)
		c := r.last(i)
		if c.method != "GET" || c.path != "/hello" || c.query != "a=b" || c.rawPath != "" || c.version != 11 || !c.bodyLast {
			t.Errorf("call is %+v", c)
		}
		if r.wire.idle {
			t.Error("idle while a call is in flight")
		}
		r.wire.taken = nil
		c.ok("hi")
		r.wantOutput("HTTP/1.1 200 OK\r\n" + testDate + "server: spvn\r\ncontent-length: 2\r\n\r\nhi")
		if !r.wire.idle || r.wire.deadline != r.wire.now+int64(DefaultKeepAliveTimeout) {
			t.Error("not idle, or no keep-alive deadline")
		}
	}
	r.wantEnd(false, false)
}
