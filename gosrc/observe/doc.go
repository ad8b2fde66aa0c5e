// Package observe is what people can learn about a running core: counters, durations,
// the access log, the core's own log, and the socket that answers questions about them.
//
// Rules:
//   - It imports none of the core's other packages, so that any of them may count.
//   - A poll loop pays a few nanoseconds for a count and about a hundred for an access
//     line, and it never waits: neither for a reader of the counters nor for whoever
//     should read the log.
//   - Everything is bounded. What a bound cost (lines, records) is counted, and the loss
//     is said in the place where the lost thing would have been.
//   - Nothing here writes to file descriptors 1 and 2: they belong to Python.
//
// Goroutines: each AccessLog has one writer and each Control one acceptor with a
// goroutine for each open connection; their Close ends them. Registry and Log have none.
package observe
