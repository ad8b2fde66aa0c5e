package observe

// Timing names one duration that a shard keeps a histogram of. Its String is its key
// under "timings" in the JSON.
type Timing uint8

// Timings of calls.
const (
	QueueWait  Timing = iota // from arrival to the first offer
	ClaimDelay               // from offer to claim: how late the worker's loop is
	FirstByte                // from arrival to the start of the answer
	CallTime                 // from arrival to the end
	numTimings
)

// NumTimings is how many timings there are.
const NumTimings = int(numTimings)

var timingNames = [NumTimings]string{
	QueueWait:  "queue_wait",
	ClaimDelay: "claim_delay",
	FirstByte:  "first_byte",
	CallTime:   "call_time",
}

// String is the timing's key in the JSON.
func (t Timing) String() string {
	if int(t) < NumTimings {
		return timingNames[t]
	}
	return "unknown"
}
