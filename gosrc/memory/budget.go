// Package memory counts the bytes that the core holds on behalf of others, so that many
// slow clients together cannot take more than the server has. It imports nothing of the
// core; who holds bytes says so, and who could take more asks first.
package memory

import "sync/atomic"

// Budget is a bound on bytes held, shared by all loops of a server. Going over it is no
// error: whoever sees Over takes no more than it must until others have given back. A nil
// Budget is never over. Its methods may be called concurrently.
type Budget struct {
	limit  int64
	used   atomic.Int64
	thrift thrift
}

// NewBudget makes a budget of limit bytes; 0 and less: no bound.
func NewBudget(limit int) *Budget { return &Budget{limit: int64(limit)} }

// Add takes n bytes, or gives -n back.
func (b *Budget) Add(n int) {
	if b != nil && n != 0 {
		b.thrift.look(b.used.Add(int64(n)))
	}
}

// Over reports whether more is held than the budget has.
func (b *Budget) Over() bool { return b != nil && b.limit > 0 && b.used.Load() > b.limit }

// Scarce reports whether more than three quarters are held: who asks for much gets less from here on, so that
// there is something left for those who come later.
func (b *Budget) Scarce() bool { return b != nil && b.limit > 0 && b.used.Load() > b.limit-b.limit/4 }

// Roomy reports whether an eighth of the budget is free, so that what was held back may go
// on without stopping again at once.
func (b *Budget) Roomy() bool {
	return b == nil || b.limit <= 0 || b.used.Load() <= b.limit-b.limit/8
}

// Used is how many bytes are held.
func (b *Budget) Used() uint64 {
	if b == nil {
		return 0
	}
	return uint64(max(b.used.Load(), 0))
}
