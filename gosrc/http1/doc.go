// Package http1 is one HTTP/1.1 connection (RFC 9110, RFC 9112) as a state machine: bytes
// in, calls out; answers in, bytes out. It knows no socket, no goroutine and no clock but
// its carrier's, so all of it can be tested and fuzzed without any of them.
//
// Rules:
//   - A Conn, and the Pool and Config that the connections of one poll loop share, belong
//     to that loop's goroutine. There is no lock and nothing blocks.
//   - An idle Conn holds no buffer. A request that arrives whole is parsed where it lies,
//     in the buffer of the poll loop; only what is incomplete is copied, into a buffer of
//     the Pool.
//   - One call at a time: what a client sends behind a request waits in a bounded buffer,
//     with reading paused, until the answer is complete (RFC 9112 9.3.2).
//   - A message whose framing is in doubt is refused and its connection closed; nothing is
//     repaired (RFC 9112 11.2). A verdict depends on the bytes only, never on how they
//     were cut into reads.
//   - A connection steps forward in one place, Conn.run. Answers that come while it runs
//     change the state and return; it looks again. So nothing recurses, however many
//     requests a client pipelines.
//
// Who reads it: head.go parses the lines of a head, fields.go gives meaning to its fields,
// target.go reads the request-target, body.go takes a body apart; conn.go and run.go are
// the state machine; answer.go and write.go are the way back; refuse.go is what the core
// answers by itself.
package http1
