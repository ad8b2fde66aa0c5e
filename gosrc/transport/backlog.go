package transport

// pieceSize is how much output a connection has at least before what follows goes into a buffer of its own.
const pieceSize = 16 << 10

// backlog is the output of a connection behind conn.out, in pieces. Nearly all connections have none: it is for
// those whose clients are slow, and who hold most of the memory. One buffer would be copied as it grows, have a
// quarter more room than it needs, and shrink only once everything has left.
type backlog struct {
	pieces [][]byte
	bytes  int // of all pieces
}

// last is the buffer that more output is appended to: the last piece, or a new one if that is large already. It
// may be nil: what is appended to that takes no more memory than it needs.
func (q *backlog) last() []byte {
	n := len(q.pieces)
	if n == 0 || len(q.pieces[n-1]) >= pieceSize {
		q.pieces = append(q.pieces, nil)
		return nil
	}
	return q.pieces[n-1]
}

// commit puts b in the place of the last piece.
func (q *backlog) commit(b []byte) {
	n := len(q.pieces) - 1
	q.bytes += len(b) - len(q.pieces[n])
	q.pieces[n] = b
}

// next takes the first piece out. It is nil if there is none.
func (q *backlog) next() []byte {
	for len(q.pieces) > 0 {
		b := q.pieces[0]
		q.pieces[0] = nil
		q.pieces = q.pieces[1:]
		if len(b) > 0 {
			q.bytes -= len(b)
			return b
		}
	}
	return nil
}
