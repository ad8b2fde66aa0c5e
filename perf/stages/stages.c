/* Stages of the Python side on their own, timed in C: compiled together with the sources of spvn._asgi by python_side.py,
 * which calls these through ctypes. Each returns nanoseconds for all rounds, or -1 with an exception set. The link is one whose other
 * end is quiet.
 */
#include "asgi.h"

#define EXPORT __attribute__((visibility("default")))

/* A scope out of the payload of a call start, and its end. */
EXPORT double micro_scope(PyObject *self, const char *payload, uint32_t length, uint16_t flags, long rounds)
{
    Link *link = (Link *)self;
    uint64_t begun = monotonic_ns();
    for (long i = 0; i < rounds; i++) {
        Call call = {0};
        CallStart start = {.flags = flags};
        if (!call_start_read(&start, (const uint8_t *)payload, length)) {
            PyErr_SetString(PyExc_ValueError, "this is no call start");
            return -1;
        }
        PyObject *scope = scope_build(link, &call, &start);
        Py_CLEAR(call.method);
        Py_CLEAR(call.target);
        Py_CLEAR(call.query);
        if (scope == NULL) {
            return -1;
        }
        Py_DECREF(scope);
    }
    return (double)(monotonic_ns() - begun);
}

/* A record through each ring, written and taken by both of its ends. size divides the
 * size of the rings, which are fresh. */
EXPORT double micro_ring(PyObject *self, const char *bytes, uint32_t size, long rounds)
{
    Link *link = (Link *)self;
    Inbox *in = &link->inboxes[0];
    Outbox *out = &link->outboxes[0];
    uint64_t head = *in->ring.head;
    uint64_t begun = monotonic_ns();
    for (long i = 0; i < rounds; i++) {
        uint8_t *room = in->ring.data + (head & (in->ring.size - 1));
        memcpy(room, bytes, size);
        put32(room + SPVN_RECORD_LENGTH, size);
        put16(room + SPVN_RECORD_TYPE, SPVN_BODY);
        head += size;
        *in->ring.head = head;
        uint8_t *record;
        uint32_t length;
        if (inbox_peek(in, &record, &length) != RECORD_THERE) {
            PyErr_SetString(PyExc_RuntimeError, "the inbox has no record");
            return -1;
        }
        inbox_advance(in, length);
        record = outbox_reserve(out, size - SPVN_RECORD_HEADER_SIZE, SPVN_RESPONSE, 0, 1);
        if (record == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "the outbox has no room");
            return -1;
        }
        memcpy(record + SPVN_RECORD_HEADER_SIZE, bytes, size - SPVN_RECORD_HEADER_SIZE);
        outbox_publish(out);
        *out->ring.tail = out->published;
    }
    return (double)(monotonic_ns() - begun);
}
