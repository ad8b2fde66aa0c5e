package http1

// Pooled buffers come in these sizes: what is left of a read, a large head, a head up to
// the default limits. Steps of four to six bound what a slow client can pin for the bytes
// that it sent. What needs more is allocated and dropped.
var (
	bufferSizes = [...]int{4 << 10, 16 << 10, 96 << 10}
	buffersKept = [...]int{1024, 128, 32}
)

const headsKept = 64

// Pool has what connections need only while a request arrives. It belongs to one poll
// loop's goroutine.
type Pool struct {
	buffers [len(bufferSizes)][][]byte
	heads   []*head
}

// NewPool makes an empty Pool.
func NewPool() *Pool { return &Pool{} }

// buffer returns an empty buffer for at least n bytes.
func (p *Pool) buffer(n int) []byte {
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		free := p.buffers[i]
		if last := len(free) - 1; last >= 0 {
			b := free[last]
			p.buffers[i] = free[:last]
			return b
		}
		return make([]byte, 0, size)
	}
	// Half as much again, so that growing stays linear.
	return make([]byte, 0, n+n/2)
}

// recycle takes a buffer back.
func (p *Pool) recycle(b []byte) {
	for i, size := range bufferSizes {
		if cap(b) == size && len(p.buffers[i]) < buffersKept[i] {
			p.buffers[i] = append(p.buffers[i], b[:0])
		}
	}
}

// head returns a parser that is ready for a new head.
func (p *Pool) head() *head {
	if last := len(p.heads) - 1; last >= 0 {
		h := p.heads[last]
		p.heads = p.heads[:last]
		return h
	}
	h := new(head)
	h.reset()
	return h
}

// recycleHead takes a parser back.
func (p *Pool) recycleHead(h *head) {
	if len(p.heads) < headsKept {
		h.reset()
		p.heads = append(p.heads, h)
	}
}
