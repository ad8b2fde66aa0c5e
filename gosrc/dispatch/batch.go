package dispatch

import "time"

const (
	batchDelay = 5 * time.Millisecond // how long the last offer of a batch may have to wait for the others
	leastBatch = 2                    // one that is begun next and one behind it
)

// batch bounds the offers that are unclaimed at once. The time to a claim must tell how
// late the loop is, not how many offers stand before this one: with a framework that needs
// a millisecond to begin a call, sixty-four offers at once would look like a loop that is
// late by as many milliseconds, and the window would shut on an app that only waits.
type batch struct {
	lastClaim int64
	cost      int64 // ns from one claim to the next while an offer waits; a moving mean
}

// note takes note of a claim.
func (b *batch) note(offered, claimed int64) {
	cost := max(claimed-max(offered, b.lastClaim), 0)
	b.lastClaim = claimed
	b.cost += (cost - b.cost) / 8
}

// limit is how many offers may be unclaimed.
func (b *batch) limit() int {
	if b.cost*maxUnclaimed <= int64(batchDelay) {
		return maxUnclaimed
	}
	return max(leastBatch, int(int64(batchDelay)/b.cost))
}
