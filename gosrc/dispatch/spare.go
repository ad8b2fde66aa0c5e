package dispatch

// Bodies and messages wait here only while an inbox is full, which then is the case for many calls in turn, or until
// their call is begun: the shard keeps a few buffers for that.
const (
	keepPending  = 128 << 10 // bytes; a larger one is not kept
	pendingsKept = 64
)

// spareBuffer returns an empty buffer for at least n bytes.
func (s *Shard) spareBuffer(n int) []byte {
	last := len(s.spare) - 1
	for i := last; i >= 0; i-- {
		if b := s.spare[i]; cap(b) >= n {
			s.spare[i], s.spare[last] = s.spare[last], nil
			s.spare = s.spare[:last]
			return b
		}
	}
	return make([]byte, 0, n)
}

// keepBuffer takes a buffer back. Of too many the larger ones are kept, or small ones would be in their way for ever.
func (s *Shard) keepBuffer(b []byte) {
	if cap(b) > keepPending {
		return
	}
	b = b[:0]
	if len(s.spare) < pendingsKept {
		s.spare = append(s.spare, b)
		return
	}
	for i, kept := range s.spare {
		if cap(kept) < cap(b) {
			s.spare[i] = b
			return
		}
	}
}
