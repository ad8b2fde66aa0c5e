// Package listen turns what a user wrote about addresses into listening sockets.
//
// Rules:
//   - All or nothing: Open returns every listener that was asked for or none, and then
//     one *Error that says which option and value was wrong, and what to do.
//   - A socket is a bare file descriptor, non-blocking and close-on-exec; who accepts
//     from it, and how, is transport's business.
//   - What was inherited (fd://N, systemd's sockets) is duplicated; the original is left
//     alone. What was created in the file system is removed again, if it is still ours.
//
// Nothing here runs on its own: no goroutine outlives a call, and the only wait is for
// the resolver, which is bounded.
package listen
