package memory

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// percents is the collector's GOGC by how many quarters of a budget are held; the first is not used. What is held
// has no pointers and costs the collector next to nothing; as much again for its usual leisure would be the budget
// twice. Each leaves it about an eighth of the budget to go on with, so that it does not come too often either.
var percents = [...]int{100, 40, 20, 12}

// calm is how long less has to be held until the collector gets its leisure back, and the system its memory.
const calm = time.Second

// thrift has Go's garbage collector come sooner while a budget holds much. Its zero value does nothing.
type thrift struct {
	quarter int64 // of the budget
	level   atomic.Int32
	applied int32 // level as the collector knows it; guarded by collector.mu
}

// collector is the one of this process, which several budgets may share.
var collector struct {
	mu      sync.Mutex
	budgets [len(percents)]int // by level; guarded by mu
	level   int                // the highest; guarded by mu
	usual   int                // GOGC while that is 0; guarded by mu
}

// Thrifty has Go's garbage collector come sooner the more of the budget is held. It is called before anything is.
func (b *Budget) Thrifty() *Budget {
	b.thrift.quarter = b.limit / 4
	return b
}

// look is called with the bytes that are held now.
func (t *thrift) look(used int64) {
	if t.quarter <= 0 {
		return
	}
	level := t.level.Load()
	switch now := int32(min(used/t.quarter, int64(len(percents)-1))); {
	case now > level:
		if t.level.CompareAndSwap(level, now) {
			go t.apply() // it waits for a collection that is under way
		}
	case now < level && used < int64(level)*t.quarter-t.quarter/2:
		if t.level.CompareAndSwap(level, now) {
			time.AfterFunc(calm, t.apply)
		}
	}
}

// apply tells the collector what look saw.
func (t *thrift) apply() {
	collector.mu.Lock()
	defer collector.mu.Unlock()
	collector.budgets[t.applied]--
	t.applied = t.level.Load()
	collector.budgets[t.applied]++
	highest := len(percents) - 1
	for highest > 0 && collector.budgets[highest] <= 0 {
		highest--
	}
	before := collector.level
	collector.level = highest
	switch {
	case highest == before:
	case highest == 0:
		debug.SetGCPercent(collector.usual)
		debug.FreeOSMemory() // what was held would stay until as much again is allocated
	default:
		was := debug.SetGCPercent(percents[highest])
		if before == 0 {
			collector.usual = was
		}
		if usual := collector.usual; usual >= 0 && usual < percents[highest] {
			debug.SetGCPercent(usual) // somebody wants it thriftier still
		}
	}
}
