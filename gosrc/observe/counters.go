package observe

import "strings"

// Counter names one number that a shard keeps. Its String is its place in the JSON that
// people read: "calls.refused_by.queue_full" is the member queue_full of the object
// refused_by of the object calls.
type Counter uint8

// Calls: one counter for each transition in a call's life; dispatch owns them all. At the
// end of every wake-up of every loop
//
//	arrived = answered + refused + failed + left + in_flight
//
// where refused and failed are the sums of their reasons.
//
// Connections: transport and the protocols own them; accepted = closed + open.
//
// A gauge goes down again with Dec; every other counter only grows.
const (
	CallsArrived      Counter = iota // a protocol handed the call over
	CallsQueued                      // it had to wait for a worker
	CallsOffered                     // a record of it went into a worker's inbox
	CallsClaimed                     // the worker began it
	CallsAnswering                   // the head of its answer was handed to its connection
	CallsTakenBack                   // its offer was withdrawn from a worker before the claim
	CallsRerun                       // it was run again after its worker died (RFC 9110 9.2.2)
	CallsPriority                    // of a priority path
	CallsHealthChecks                // answered by the core: --health-check-path, --liveness-path
	CallsAnswered                    // end: the answer is complete
	CallsLeft                        // end: the client went away

	RefusedQueueFull    // end: 503, the queue is full
	RefusedQueueTimeout // end: 503, it waited for longer than --timeout-queue
	RefusedLimit        // end: 503, --limit-concurrency is reached
	RefusedNoWorker     // end: 503, no worker became ready in time
	RefusedHeadTooLarge // end: 431, its head does not fit a link's record
	RefusedQuarantine   // end: 503, requests like it have killed workers (--quarantine)
	RefusedStopping     // end: 503, it waited still when the time to finish was over

	Failed500 // end: the app failed before it answered
	Failed502 // end: the worker died and the call could not be run again
	Failed504 // end: the worker took too long
	FailedCut // end: the answer had begun; the connection was cut

	TimedOutRequest   // --timeout-request passed
	TimedOutFirstByte // --timeout-first-byte passed
	TimedOutClient    // what --deadline-header allowed passed

	CallsInFlight  // gauge: arrived and not ended
	CallsWaiting   // gauge: in the queue
	CallsHeld      // gauge: offered, claimed or abandoned: a worker's slot is taken
	CallsAbandoned // gauge: ended for the client, and the worker still holds the slot
	CallsMisplaced // moves that the table of a call's life does not have: a bug of the core

	ConnectionsAccepted    // counted once accept returned it
	ConnectionsClosed      // for whatever reason
	ConnectionsShed        // closed early because descriptors ran short
	ConnectionsOverLimit   // how often new ones were made to wait, or closed by the goroutine transport: --limit-connections is reached and none is idle
	ConnectionsOverAddress // closed at once: --limit-connections-per-address is reached
	ConnectionsOverRate    // closed at once: --limit-connection-rate is reached
	ConnectionsReset       // the peer reset it, or a write found it gone
	ConnectionsPaused      // reading was paused because its call had no room
	ConnectionsOutputFull  // its output passed the high-water mark
	ConnectionsOpen        // gauge
	ConnectionsIdle        // gauge: open with no call in flight
	ConnectionsReadsPaused // gauge: reading is paused now
	AcceptErrors           // accept failed for a reason other than that nobody was there
	BytesIn                // taken from the kernel
	BytesOut               // taken by the kernel

	TimedOutHeader    // --timeout-header passed
	TimedOutBody      // --timeout-body passed
	TimedOutBodyRate  // the body came slower than --min-body-rate
	TimedOutKeepAlive // --timeout-keep-alive passed
	TimedOutWrite     // --timeout-write passed

	// What a protocol refused by itself; no call arrived.
	RejectedBadRequest     // 400
	RejectedTimeout        // 408
	RejectedLengthRequired // 411
	RejectedTooLarge       // 413
	RejectedTargetTooLong  // 414
	RejectedExpectation    // 417
	RejectedHeadTooLarge   // 431
	RejectedNotImplemented // 501
	RejectedVersion        // 505
	RejectedOther          // any other status
	RejectedWrongProtocol  // a TLS hello or an HTTP/2 preface on a plaintext HTTP/1.1 port
	RejectedInBody         // the body of a call that had begun broke the rules

	// WebSocket connections; accepted = closed + open, and closing ones are open too.
	WebSocketsAccepted      // a handshake was granted
	WebSocketsClosed        // for whatever reason
	WebSocketsOpen          // gauge
	WebSocketsClosing       // gauge: the peer's close frame is due
	WebSocketsRefused       // the handshake broke the rules: 400, 405 or 426
	WebSocketsMessagesIn    // whole messages
	WebSocketsMessagesOut   //
	WebSocketsPingsIn       //
	WebSocketsPingsOut      //
	WebSocketsTimedOutPing  // --ws-ping-timeout passed
	WebSocketsTimedOutSend  // --timeout-ws-send passed
	WebSocketsTooLarge      // 1009: a message was larger than --ws-max-size
	WebSocketsOverBudget    // 1009: incomplete messages took too much memory
	WebSocketsNotText       // 1007
	WebSocketsProtocolError // 1002

	LinkRecordsIn    // from workers
	LinkRecordsOut   // to workers
	LinkBells        // doorbells rung
	LinkInboxFull    // a record had to wait for room in an inbox
	LinkStaleRecords // records of an older generation, dropped
	LinkViolations   // records that broke the rules; each cost a worker its life

	WorkersStarted // became ready
	WorkersDied    // ended without being asked to
	WorkersStalled // claimed nothing for too long; their offers were taken back

	MemoryReadsPaused     // a client was not read from because too much of all bodies is held
	MemoryWindowsWithheld // an app had to wait because too much of all answers is held

	LoopWakeups // of a poll loop
	LoopPanics  // recovered; each cost one call or connection

	numCounters
)

// NumCounters is how many counters there are.
const NumCounters = int(numCounters)

var counterNames = [NumCounters]string{
	CallsArrived:      "calls.arrived",
	CallsQueued:       "calls.queued",
	CallsOffered:      "calls.offered",
	CallsClaimed:      "calls.claimed",
	CallsAnswering:    "calls.answering",
	CallsTakenBack:    "calls.taken_back",
	CallsRerun:        "calls.rerun",
	CallsPriority:     "calls.priority",
	CallsHealthChecks: "calls.health_checks",
	CallsAnswered:     "calls.answered",
	CallsLeft:         "calls.left",

	RefusedQueueFull:    "calls.refused_by.queue_full",
	RefusedQueueTimeout: "calls.refused_by.queue_timeout",
	RefusedLimit:        "calls.refused_by.limit_concurrency",
	RefusedNoWorker:     "calls.refused_by.no_worker",
	RefusedHeadTooLarge: "calls.refused_by.head_too_large",
	RefusedQuarantine:   "calls.refused_by.quarantine",
	RefusedStopping:     "calls.refused_by.stopping",

	Failed500: "calls.failed_by.500",
	Failed502: "calls.failed_by.502",
	Failed504: "calls.failed_by.504",
	FailedCut: "calls.failed_by.cut",

	TimedOutRequest:   "calls.timed_out.request",
	TimedOutFirstByte: "calls.timed_out.first_byte",
	TimedOutClient:    "calls.timed_out.deadline_header",

	CallsInFlight:  "calls.in_flight",
	CallsWaiting:   "calls.waiting",
	CallsHeld:      "calls.held",
	CallsAbandoned: "calls.abandoned",
	CallsMisplaced: "calls.misplaced",

	ConnectionsAccepted:    "connections.accepted",
	ConnectionsClosed:      "connections.closed",
	ConnectionsShed:        "connections.shed",
	ConnectionsOverLimit:   "connections.over_limit",
	ConnectionsOverAddress: "connections.over_limit_per_address",
	ConnectionsOverRate:    "connections.over_rate",
	ConnectionsReset:       "connections.reset",
	ConnectionsPaused:      "connections.paused",
	ConnectionsOutputFull:  "connections.output_full",
	AcceptErrors:           "connections.accept_errors",
	TimedOutHeader:         "connections.timed_out.header",
	TimedOutBody:           "connections.timed_out.body",
	TimedOutBodyRate:       "connections.timed_out.body_rate",
	TimedOutKeepAlive:      "connections.timed_out.keep_alive",
	TimedOutWrite:          "connections.timed_out.write",
	RejectedBadRequest:     "connections.rejected.400",
	RejectedTimeout:        "connections.rejected.408",
	RejectedLengthRequired: "connections.rejected.411",
	RejectedTooLarge:       "connections.rejected.413",
	RejectedTargetTooLong:  "connections.rejected.414",
	RejectedExpectation:    "connections.rejected.417",
	RejectedHeadTooLarge:   "connections.rejected.431",
	RejectedNotImplemented: "connections.rejected.501",
	RejectedVersion:        "connections.rejected.505",
	RejectedOther:          "connections.rejected.other",
	RejectedWrongProtocol:  "connections.rejected.wrong_protocol",
	RejectedInBody:         "connections.rejected.in_body",
	BytesIn:                "connections.bytes_in",
	BytesOut:               "connections.bytes_out",
	ConnectionsOpen:        "connections.open",
	ConnectionsIdle:        "connections.idle",
	ConnectionsReadsPaused: "connections.reads_paused",

	WebSocketsAccepted:      "websockets.accepted",
	WebSocketsClosed:        "websockets.closed",
	WebSocketsOpen:          "websockets.open",
	WebSocketsClosing:       "websockets.closing",
	WebSocketsRefused:       "websockets.refused",
	WebSocketsMessagesIn:    "websockets.messages_in",
	WebSocketsMessagesOut:   "websockets.messages_out",
	WebSocketsPingsIn:       "websockets.pings_in",
	WebSocketsPingsOut:      "websockets.pings_out",
	WebSocketsTimedOutPing:  "websockets.timed_out.ping",
	WebSocketsTimedOutSend:  "websockets.timed_out.send",
	WebSocketsTooLarge:      "websockets.failed_by.too_large",
	WebSocketsOverBudget:    "websockets.failed_by.over_budget",
	WebSocketsNotText:       "websockets.failed_by.not_text",
	WebSocketsProtocolError: "websockets.failed_by.protocol_error",

	LinkRecordsIn:         "link.records_in",
	LinkRecordsOut:        "link.records_out",
	LinkBells:             "link.bells",
	LinkInboxFull:         "link.inbox_full",
	LinkStaleRecords:      "link.stale_records",
	LinkViolations:        "link.violations",
	WorkersStarted:        "workers.started",
	WorkersDied:           "workers.died",
	WorkersStalled:        "workers.stalled",
	MemoryReadsPaused:     "memory.reads_paused",
	MemoryWindowsWithheld: "memory.windows_withheld",
	LoopWakeups:           "loops.wakeups",
	LoopPanics:            "loops.panics",
}

// String is the counter's place in the JSON, its parts joined by dots.
func (c Counter) String() string {
	if int(c) < NumCounters {
		return counterNames[c]
	}
	return "unknown"
}

// The ends of a call that come with a reason.
var (
	refusals = counterGroup("calls.refused_by.")
	failures = counterGroup("calls.failed_by.")
)

func counterGroup(prefix string) []Counter {
	var group []Counter
	for c := Counter(0); c < numCounters; c++ {
		if strings.HasPrefix(c.String(), prefix) {
			group = append(group, c)
		}
	}
	return group
}

// Rejected is the counter of requests that a protocol refused by itself with this status.
func Rejected(status int) Counter {
	switch status {
	case 400:
		return RejectedBadRequest
	case 408:
		return RejectedTimeout
	case 411:
		return RejectedLengthRequired
	case 413:
		return RejectedTooLarge
	case 414:
		return RejectedTargetTooLong
	case 417:
		return RejectedExpectation
	case 431:
		return RejectedHeadTooLarge
	case 501:
		return RejectedNotImplemented
	case 505:
		return RejectedVersion
	}
	return RejectedOther
}
