// Package websocket is one WebSocket connection (RFC 6455, RFC 7692) as a state machine:
// bytes in, messages out; messages in, bytes out. Fragments, control frames, closing and
// compression are gorilla/websocket's; this package drives it from a poll loop, without a
// goroutine for each connection and without ever letting it wait.
//
// Strategy: a scanner takes frames apart as bytes come. It refuses what RFC 6455 5 forbids,
// and keeps the unmasked payload of a message that is not complete. A message of one frame
// that is not compressed, as most are, is unmasked where it lies and handed on; one to send
// is a header and its bytes behind the output. Everything else goes through gorilla. Only a
// whole message or control frame is fed to it, from memory, so that its reads never block:
// an error of a read is final for it. What came in parts is fed as one frame.
//
// Rules:
//   - A Conn, and the Config and Pool that the connections of one poll loop share, belong to
//     that loop's goroutine. There is no lock and nothing blocks.
//   - An idle Conn holds no buffer: the reader, the writer and the scratch memory of a loop
//     serve all of its connections in turn.
//   - Everything is bounded: a message by MaxSize, before and after decompression; all
//     incomplete messages of a loop by Config.Budget; messages that the app has not
//     received by the call's Ready; output by the app's window and SendTimeout.
//   - A violation is final, but the messages before it are the app's: it is given FailTimeout
//     to answer them, ahead of the close frame.
//   - Pings are answered here, and sent from here, so that no app can delay one.
//
// Who reads it: handshake.go and deflate.go judge a handshake; scan.go reads frame headers,
// read.go what is behind them; gorilla.go is the memory that gorilla takes for a socket;
// write.go, close.go and timers.go are what their names say; budget.go bounds the memory of
// incomplete messages.
package websocket
