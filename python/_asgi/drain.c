/* The drain: what the loop runs when the core has rung.
 *
 * Strategy: records are taken one by one. A call start is claimed, copied out and given back to the ring before
 * the app runs, so everything that a busy loop has not begun can still be taken back by the core, and
 * a nested drain (an app that runs the loop itself) finds a consistent link. What a call wrote is
 * published before the next one starts; the core is rung once, at the end: until then it
 * looks by itself every millisecond, as HEADER_DRAINING tells it to. Where the drain made several tasks
 * ready, because messages came that they wait for, that end is behind their next steps. After 64 starts or
 * 2 ms the loop gets its turn.
 */
#include "wsgi.h"

#define LONGEST_DRAIN 2000000u /* nanoseconds */
#define WORTH_A_BATCH 2        /* tasks made ready by one drain, whose answers then share one ring */
/* Without eager tasks the app's first step comes later than its claim. One claim in a turn of
 * the loop keeps what is claimed close to what runs, so that no call is stuck behind one that
 * blocks the loop while another worker could run it. A worker that has no others beside it
 * loses nothing by taking more, and a turn of the loop costs more than a call. */
#define MOST_STARTS(link) (SPVN_EAGER ? 64 : (link)->alone ? 16 : 1)

static PyObject *resume(PyObject *self, PyObject *Py_UNUSED(unused)) { return link_drain((Link *)self, false); }

static PyMethodDef resume_method = {"resume", resume, METH_NOARGS, NULL};

int link_corrupt(Link *link, const char *what)
{
    link_detach(link);
    /* The core may have seen nothing of it: whoever started this worker has to end it. */
    PyObject *told = PyObject_CallOneArg(link->on_control, link->state->str_corrupt);
    if (told == NULL) {
        PyErr_WriteUnraisable(link->on_control);
    }
    Py_XDECREF(told);
    PyErr_Format(PyExc_RuntimeError, "The link to the core is corrupt: %s. The worker must be restarted.", what);
    return -1;
}

bool slot_claim(Link *link, uint64_t id, uint64_t now)
{
    uint8_t *slot = link->slot_table + (size_t)(uint32_t)id * SPVN_SLOT_SIZE;
    uint64_t generation = id & ~(uint64_t)UINT32_MAX;
    uint64_t offered = generation | SPVN_SLOT_OFFERED;
    /* Ordered by the exchange: who sees the claim sees its time. */
    atomic_store_explicit((_Atomic uint64_t *)(void *)(slot + SPVN_SLOT_CLAIMED_AT), now, memory_order_relaxed);
    return atomic_compare_exchange_strong((_Atomic uint64_t *)(void *)(slot + SPVN_SLOT_WORD), &offered,
                                          generation | SPVN_SLOT_CLAIMED);
}

/* 1: started a call; 0: there is none to start; -1: raised. */
static int start_call(Link *link, Inbox *in, const uint8_t *record, uint32_t length, uint64_t now)
{
    uint16_t flags = get16(record + SPVN_RECORD_FLAGS);
    uint64_t id = get64(record + SPVN_RECORD_CALL);
    CallStart start = {.websocket = get16(record + SPVN_RECORD_TYPE) == SPVN_CALL_WEBSOCKET, .flags = flags};
    if ((uint32_t)id >= link->slots || link->calls[(uint32_t)id] != NULL ||
        !call_start_read(&start, record + SPVN_RECORD_HEADER_SIZE, length - SPVN_RECORD_HEADER_SIZE)) {
        return link_corrupt(link, "a call start does not fit");
    }
    if (link->pool != NULL) {
        int kept = pool_start(link->pool, (uint32_t)(in - link->inboxes), record, length);
        if (kept == 0) {
            inbox_advance(in, length);
        }
        return kept;
    }
    Outbox *out = &link->outboxes[in - link->inboxes];
    Call *call = call_new(link, out, id);
    if (call == NULL) {
        return -1; /* out of memory: still offered, another worker gets it */
    }
    Py_INCREF(call);
    if (!slot_claim(link, id, now)) {
        inbox_advance(in, length);
        call_unlist(call);
        call_recycle(call);
        Py_DECREF(call);
        return 0;
    }
    call->websocket = start.websocket;
    call->want_body = (flags & SPVN_FLAG_WANT_BODY) != 0;
    call->body_last = (flags & SPVN_FLAG_LAST) != 0;
    call->body_credited = !call->body_last;
    /* An empty part of a body that goes on is no message. */
    call->first_pending = start.websocket || call->body_last || start.body_length > 0;
    PyObject *scope = scope_build(link, call, &start);
    if (scope != NULL && start.body_length > 0) {
        call->first = PyBytes_FromStringAndSize((const char *)start.body, start.body_length);
        if (call->first == NULL) {
            Py_CLEAR(scope);
        }
    }
    inbox_advance(in, length);
    int result = scope != NULL ? call_run(call, scope) : call_fail(call);
    if (link_usable(link)) {
        outbox_publish(out);
    }
    call_recycle(call);
    Py_DECREF(call);
    return result < 0 ? -1 : 1;
}

static int control(Link *link, PyObject *name)
{
    PyObject *result = PyObject_CallOneArg(link->on_control, name);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* A part of a WebSocket message: u32 opcode, u32 length, bytes. */
static int take_message(Call *call, const uint8_t *payload, uint32_t length, bool more)
{
    Link *link = call->link;
    uint32_t size = length >= 8 ? get32(payload + 4) : 0;
    if (length < 8 || size > length - 8) {
        return link_corrupt(link, "a WebSocket message does not fit");
    }
    PyObject *part = PyBytes_FromStringAndSize((const char *)payload + 8, size);
    if (part == NULL) {
        return -1;
    }
    if (call->ws_parts == NULL) {
        call->ws_opcode = (uint8_t)get32(payload);
        call->ws_parts = more ? PyList_New(0) : NULL;
    }
    int result = 0;
    if (call->ws_parts != NULL) {
        result = PyList_Append(call->ws_parts, part);
        Py_DECREF(part);
        if (more || result < 0) {
            return result;
        }
        part = PyObject_CallMethod(link->state->empty_bytes, "join", "O", call->ws_parts);
        Py_CLEAR(call->ws_parts);
        if (part == NULL) {
            return -1;
        }
    } else if (more) {
        Py_DECREF(part);
        return -1;
    }
    result = receive_websocket(call, part, call->ws_opcode);
    Py_DECREF(part);
    return result;
}

static int take_close(Call *call, const uint8_t *payload, uint32_t length, bool later)
{
    uint16_t size = length >= 8 ? get16(payload + 2) : 0;
    if (length < 8 || size > length - 8) {
        return link_corrupt(call->link, "a WebSocket close does not fit");
    }
    PyObject *reason = PyUnicode_DecodeUTF8((const char *)payload + 8, size, "replace");
    if (reason == NULL) {
        return -1;
    }
    websocket_closed(call, get16(payload), reason);
    Py_DECREF(reason);
    if (!later) {
        call_disconnect(call);
    } else if (!call->disconnected && !call->ended && call->ws == WS_OPEN) {
        call->ws_failing = true;
        waits_wake(&call->receivers);
    }
    return 0;
}

/* Handles a record of a call. */
static int take_record(Link *link, const uint8_t *record, uint32_t length)
{
    uint16_t type = get16(record + SPVN_RECORD_TYPE), flags = get16(record + SPVN_RECORD_FLAGS);
    uint64_t id = get64(record + SPVN_RECORD_CALL);
    const uint8_t *payload = record + SPVN_RECORD_HEADER_SIZE;
    if (link->pool != NULL) {
        int taken = pool_record(link->pool, record, length);
        return taken < 0 && !PyErr_Occurred() ? link_corrupt(link, "a part of a body does not fit") : taken;
    }
    length -= SPVN_RECORD_HEADER_SIZE;
    Call *call = (uint32_t)id < link->slots ? link->calls[(uint32_t)id] : NULL;
    if (call == NULL || call->id != id) {
        return 0; /* of a call that is over */
    }
    int result = 0;
    Py_INCREF(call);
    switch (type) {
    case SPVN_BODY: {
        uint32_t size = length >= SPVN_BODY_FIXED_SIZE ? get32(payload + SPVN_BODY_LENGTH) : 0;
        if (length < SPVN_BODY_FIXED_SIZE || size > length - SPVN_BODY_FIXED_SIZE) {
            result = link_corrupt(link, "a part of a body does not fit");
        } else {
            result = receive_body(call, payload + SPVN_BODY_BYTES, size, (flags & SPVN_FLAG_LAST) != 0);
        }
        break;
    }
    case SPVN_SEND_WINDOW: {
        uint64_t bytes = length >= 8 ? get64(payload) : 0;
        call->window_used -= bytes < call->window_used ? (uint32_t)bytes : call->window_used;
        call_pump(call);
        break;
    }
    case SPVN_DISCONNECT:
        call_disconnect(call);
        break;
    case SPVN_WS_MESSAGE:
        result = take_message(call, payload, length, (flags & SPVN_FLAG_MORE) != 0);
        break;
    case SPVN_WS_CLOSED:
        result = take_close(call, payload, length, (flags & SPVN_FLAG_MORE) != 0);
        break;
    }
    if (result < 0 && link_usable(link) && (type == SPVN_BODY || type == SPVN_WS_MESSAGE)) {
        /* Out of memory: what was lost is no part of what the app receives, so nothing of it must seem whole. */
        PyObject *exception = error_take();
        call_disconnect(call);
        error_give(exception);
    }
    Py_DECREF(call);
    return result;
}

/* Takes what is in the inboxes. *more: something is left for the loop's next turn. */
static int take(Link *link, bool *more)
{
    uint64_t begun = link->turned_at;
    int starts = 0;
    for (;;) {
        bool any = false;
        for (uint32_t i = 0; i < link->loops; i++) {
            Inbox *in = &link->inboxes[(link->first_inbox + i) % link->loops];
            uint8_t *record;
            uint32_t length;
            RecordState found;
            while ((found = inbox_peek(in, &record, &length)) == RECORD_THERE) {
                any = true;
                uint16_t type = get16(record + SPVN_RECORD_TYPE);
                int result;
                if (type == SPVN_CALL_HTTP || type == SPVN_CALL_WEBSOCKET) {
                    uint64_t now = monotonic_ns();
                    if (starts == MOST_STARTS(link) || (starts > 0 && now - begun >= LONGEST_DRAIN)) {
                        link->first_inbox = (link->first_inbox + i + 1) % link->loops;
                        *more = true;
                        return 0;
                    }
                    result = start_call(link, in, record, length, now);
                    starts += result > 0;
                } else if (type == SPVN_DRAIN || type == SPVN_STOP) {
                    inbox_advance(in, length);
                    result = control(link, type == SPVN_DRAIN ? link->state->str_drain : link->state->str_stop);
                } else if (type == SPVN_TIMER) {
                    result = timer_due(link, in, record, length);
                } else {
                    /* Nothing in here runs the app, so the record stays where it is while it is read. */
                    result = take_record(link, record, length);
                    if (link_usable(link)) {
                        inbox_advance(in, length);
                    }
                }
                if (result < 0 || !link_usable(link)) {
                    return result;
                }
            }
            if (found == RECORD_CORRUPT) {
                return link_corrupt(link, "a record has an impossible length");
            }
        }
        if (any) {
            continue;
        }
        bool armed = true;
        for (uint32_t i = 0; i < link->loops; i++) {
            armed = inbox_arm(&link->inboxes[i]) && armed;
        }
        if (armed) {
            return 0;
        }
    }
}

PyObject *link_drain(Link *link, bool rung)
{
    if (link->detached) {
        Py_RETURN_NONE;
    }
    if (link_check(link) < 0) {
        return NULL;
    }
    Py_INCREF(link);
    if (rung) {
        /* Before the rings are looked at, or a ring in between would be lost. */
        uint64_t count;
        while (read(link->bell, &count, sizeof count) < 0 && errno == EINTR) {
        }
    } else {
        link->resume_scheduled = false;
    }
    link->thread = PyThread_get_thread_ident();
    link->turned_at = monotonic_ns();
    link->depth++;
    link->woken = 0;
    /* In this order: the core takes "a new turn, and not draining" for the end of a drain. */
    link_set_draining(link, true);
    (*(_Atomic uint64_t *)(void *)(link->memory + SPVN_HEADER_TURNS))++;
    *(_Atomic uint64_t *)(void *)(link->memory + SPVN_HEADER_TURNED_AT) = link->turned_at;
    for (uint32_t i = 0; i < link->loops; i++) {
        inbox_disarm(&link->inboxes[i]);
    }
    if (link->depth > 1) {
        link_flush(link); /* the loop may be about to sleep inside an app's call */
    }
    for (uint32_t i = 0; i < link->loops; i++) {
        outbox_unblock(link, &link->outboxes[i]);
    }
    if (link->pool != NULL) {
        pool_room(link->pool);
    }
    link_control_due(link);

    bool more = false;
    int result = take(link, &more);
    PyObject *exception = result < 0 ? error_take() : NULL;

    if (link_usable(link)) {
        link_flush(link);
        if ((more || result < 0) && !link->resume_scheduled) {
            if (link_call_soon(link, &resume_method) == 0) {
                link->resume_scheduled = true;
            } else if (exception == NULL) {
                exception = error_take();
            } else {
                PyErr_WriteUnraisable((PyObject *)link);
            }
        }
        if (link->depth == 1 && link->woken >= WORTH_A_BATCH) {
            link_batch(link);
        }
        if (link->depth == 1 && !link->resume_scheduled && !link->batching) {
            link_set_draining(link, false);
        }
    }
    link->depth--;
    if (link->depth == 0 && link->detached) {
        link_unmap(link);
    }
    Py_DECREF(link);
    if (exception != NULL) {
        error_give(exception);
        return NULL;
    }
    Py_RETURN_NONE;
}
