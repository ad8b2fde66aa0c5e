/* Writing: what a call has to say, and what happens when there is no room for it.
 *
 * Strategy: a message is written at once when window and ring allow it. What remains is
 * held by its call (one at a time: later ones are deferred), and call_pump goes on when
 * the core has sent bytes (SEND_WINDOW) or has made room (the bell). A call that found the ring
 * full waits in its outbox's list, so that small records queue as fairly as large ones.
 *
 * Inside a drain records stay unpublished until the app's step has ended: the head, the
 * body and the end of a short answer then leave as one record.
 */
#include "asgi.h"

/* No chunk smaller than this, unless it is the last: many tiny records would cost more than waiting. */
#define SMALLEST_CHUNK 4096

static void block(Call *call)
{
    outbox_want_room(call->outbox);
    if (call->blocked) {
        return;
    }
    call->blocked = true;
    Py_INCREF(call);
    call->blocked_next = NULL;
    if (call->outbox->blocked_last != NULL) {
        call->outbox->blocked_last->blocked_next = call;
    } else {
        call->outbox->blocked_first = call;
    }
    call->outbox->blocked_last = call;
}

void call_unblock(Call *call)
{
    if (!call->blocked) {
        return;
    }
    Outbox *out = call->outbox;
    Call *previous = NULL;
    for (Call *c = out->blocked_first; c != call; c = c->blocked_next) {
        previous = c;
    }
    if (previous != NULL) {
        previous->blocked_next = call->blocked_next;
    } else {
        out->blocked_first = call->blocked_next;
    }
    if (out->blocked_last == call) {
        out->blocked_last = previous;
    }
    call->blocked = false;
    call->blocked_next = NULL;
    Py_DECREF(call);
}

void outbox_unblock(Link *link, Outbox *out)
{
    Call *call = out->blocked_first;
    out->blocked_first = out->blocked_last = NULL;
    while (call != NULL) {
        Call *next = call->blocked_next;
        call->blocked = false;
        call->blocked_next = NULL;
        if (link_usable(link)) {
            call_pump(call);
        }
        Py_DECREF(call);
        call = next;
    }
}

uint8_t *call_reserve(Call *call, uint64_t payload, uint16_t type, uint16_t flags)
{
    Outbox *out = call->outbox;
    if (!link_usable(call->link)) {
        return NULL; /* detached by code that ran since the last check */
    }
    uint8_t *record = outbox_reserve(out, payload, type, flags, call->id);
    if (record == NULL) {
        block(call);
        /* The consumer may have made room between the look and the wish for it. */
        record = outbox_reserve(out, payload, type, flags, call->id);
        if (record != NULL) {
            call_unblock(call);
        }
    }
    return record;
}

void call_hold(Call *call, PyObject *payload, size_t from, uint16_t type, uint16_t flags)
{
    call->held = payload;
    call->held_at = from;
    call->held_type = type;
    call->held_flags = flags;
    call->ticket++;
}

/* How many of `want` bytes of body may be written now; 0: wait for the window. */
static size_t window_take(Call *call, size_t want)
{
    size_t room = call_window(call);
    if (want > room) {
        want = room < SMALLEST_CHUNK ? 0 : room;
    }
    size_t most = outbox_max_payload(call->outbox) - SPVN_BODY_FIXED_SIZE;
    return want < most ? want : most;
}

/* How many bytes of body the ring takes now in one record, 0 if less than is worth a record. */
static size_t room_take(Outbox *out, size_t want)
{
    uint64_t offset = out->next & (out->ring.size - 1);
    uint64_t to_end = out->ring.size - offset;
    if (outbox_has_room(out, record_size(SPVN_BODY_FIXED_SIZE + want))) {
        return want; /* or it starts with a pad, and then outbox_reserve knows better */
    }
    uint64_t room = out->ring.size - (out->next - out->tail_seen);
    if (room > to_end) {
        room = to_end;
    }
    if (room < SPVN_RECORD_HEADER_SIZE + SPVN_BODY_FIXED_SIZE + SMALLEST_CHUNK) {
        return want;
    }
    size_t fits = (size_t)room - SPVN_RECORD_HEADER_SIZE - SPVN_BODY_FIXED_SIZE;
    return fits < want ? fits : want;
}

/* Writes parts of a held body. True once all of it is written. */
static bool pump_body(Call *call)
{
    size_t size = (size_t)PyBytes_GET_SIZE(call->held);
    const char *bytes = PyBytes_AS_STRING(call->held);
    do {
        size_t left = size - call->held_at;
        size_t n = window_take(call, left);
        if (n == 0 && left > 0) {
            return false;
        }
        n = room_take(call->outbox, n);
        uint16_t flags = n == left ? call->held_flags : 0;
        uint8_t *record = call_reserve(call, SPVN_BODY_FIXED_SIZE + n, SPVN_RESPONSE_BODY, flags);
        if (record == NULL) {
            return false;
        }
        put64(record + SPVN_RECORD_HEADER_SIZE + SPVN_BODY_LENGTH, n);
        memcpy(record + SPVN_RECORD_HEADER_SIZE + SPVN_BODY_BYTES, bytes + call->held_at, n);
        call->held_at += n;
        call->window_used += (uint32_t)n;
        if (flags & SPVN_FLAG_LAST) {
            call->last_record = call->outbox->next - record_size(SPVN_BODY_FIXED_SIZE + n);
        }
    } while (call->held_at < size);
    return true;
}

/* Writes parts of a held WebSocket message: u32 opcode, u32 length, bytes; then, with FLAG_MORE, the next. */
static bool pump_message(Call *call)
{
    size_t size = (size_t)PyBytes_GET_SIZE(call->held);
    size_t most = outbox_max_payload(call->outbox) - 8;
    do {
        /* What fits into one record leaves as one frame, however full the window is then. */
        if (call->window_used >= call->window) {
            return false;
        }
        size_t left = size - call->held_at;
        size_t n = left;
        if (n > SPVN_SEND_WINDOW_STREAM && (call->held_at > 0 || n > most)) {
            n = SPVN_SEND_WINDOW_STREAM;
        }
        if (n > most) {
            n = most;
        }
        uint8_t *record = call_reserve(call, 8 + n, SPVN_WS_SEND, n < left ? SPVN_FLAG_MORE : 0);
        if (record == NULL) {
            return false;
        }
        put32(record + SPVN_RECORD_HEADER_SIZE, call->held_flags); /* the opcode */
        put32(record + SPVN_RECORD_HEADER_SIZE + 4, (uint32_t)n);
        memcpy(record + SPVN_RECORD_HEADER_SIZE + 8, PyBytes_AS_STRING(call->held) + call->held_at, n);
        call->held_at += n;
        call->window_used += (uint32_t)n + SPVN_WS_SEND_COST;
    } while (call->held_at < size);
    return true;
}

/* Tells how much of what the client sent the app has received, unless that is not worth a record now. */
static bool pump_credit(Call *call, bool more_follows)
{
    if (!call->websocket) {
        uint8_t *record = call->credit_due == 0 ? NULL : call_reserve(call, 8, SPVN_BODY_CREDIT, 0);
        if (record != NULL) {
            put64(record + SPVN_RECORD_HEADER_SIZE, call->credit_due);
            call->credit_due = 0;
        }
        return call->credit_due == 0;
    }
    if (call->ws_received == 0 || call->ws == WS_ENDED ||
        (!more_follows && call->ws_received < SPVN_WS_CREDIT_MESSAGES && call->credit_due < SPVN_WS_CREDIT_BYTES)) {
        return true;
    }
    uint8_t *record = call_reserve(call, 8, SPVN_WS_CREDIT, 0);
    if (record == NULL) {
        return false;
    }
    put32(record + SPVN_RECORD_HEADER_SIZE, call->ws_received);
    put32(record + SPVN_RECORD_HEADER_SIZE + 4, (uint32_t)call->credit_due);
    call->ws_received = 0;
    call->credit_due = 0;
    return true;
}

static bool pump_held(Call *call)
{
    if (call->held_type == SPVN_RESPONSE_BODY) {
        return pump_body(call);
    }
    if (call->held_type == SPVN_WS_SEND) {
        return pump_message(call);
    }
    size_t size = (size_t)PyBytes_GET_SIZE(call->held);
    uint8_t *record = call_reserve(call, size, call->held_type, call->held_flags);
    if (record == NULL) {
        return false;
    }
    memcpy(record + SPVN_RECORD_HEADER_SIZE, PyBytes_AS_STRING(call->held), size);
    return true;
}

bool call_write_message(Call *call, uint16_t opcode, const char *bytes, size_t size)
{
    if (call->held != NULL || call->window_used >= call->window || size > outbox_max_payload(call->outbox) - 8 ||
        !call->listed || !link_usable(call->link) || !pump_credit(call, true)) {
        return false;
    }
    uint8_t *record = call_reserve(call, 8 + size, SPVN_WS_SEND, 0);
    if (record == NULL) {
        return false;
    }
    put32(record + SPVN_RECORD_HEADER_SIZE, opcode);
    put32(record + SPVN_RECORD_HEADER_SIZE + 4, (uint32_t)size);
    memcpy(record + SPVN_RECORD_HEADER_SIZE + 8, bytes, size);
    call->window_used += (uint32_t)size + SPVN_WS_SEND_COST;
    return true;
}

void call_pump(Call *call)
{
    if (!call->listed || !link_usable(call->link)) {
        return;
    }
    if (call->want_body_due) {
        if (call_reserve(call, 0, SPVN_WANT_BODY, 0) == NULL) {
            return;
        }
        call->want_body_due = false;
    }
    if (!pump_credit(call, call->held != NULL)) {
        return;
    }
    if (call->held != NULL) {
        if (!pump_held(call)) {
            return;
        }
        Py_CLEAR(call->held);
        waits_wake(&call->senders);
    }
    if (call->ws_close_due) {
        uint8_t *record = call_reserve(call, 8, SPVN_WS_CLOSE, 0);
        if (record == NULL) {
            return;
        }
        put64(record + SPVN_RECORD_HEADER_SIZE, 1000); /* u16 code, u16 reason length, u32 0 */
        call->ws_close_due = false;
    }
    if (call->end_due != 0) {
        if (call->end_due == SPVN_CALL_DONE && call->last_record >= call->outbox->published &&
            call->last_record < call->outbox->next) {
            uint8_t *record = call->outbox->ring.data + (call->last_record & (call->outbox->ring.size - 1));
            put16(record + SPVN_RECORD_FLAGS, get16(record + SPVN_RECORD_FLAGS) | SPVN_FLAG_DONE);
        } else if (call_reserve(call, 0, call->end_due, 0) == NULL) {
            return;
        }
        call->end_due = 0;
        call_unlist(call);
    }
}

void call_publish(Call *call)
{
    Link *link = call->link;
    if (!link_usable(link)) {
        return;
    }
    outbox_publish(call->outbox);
    /* Tasks that became ready together, as their timers were due, share one ring. */
    if (link->depth == 0 && !link->batching && !outbox_ring_sleeper(call->outbox)) {
        link_flush_soon(link);
    }
}
