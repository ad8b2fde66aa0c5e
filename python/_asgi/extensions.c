/* The extensions of an answer: trailers, early hints, files by path (asgiref, docs/extensions.rst). */
#include "asgi.h"

SendResult send_trailers(Call *call, const Message *message)
{
    PyObject *more_item = message_get(message, call->link->state->str_more_trailers);
    int more = PyErr_Occurred() ? -1 : item_true(more_item);
    Py_XDECREF(more_item);
    Fields fields;
    if (more < 0 || fields_collect(&fields, message->headers, "http.response.trailers") < 0) {
        return SENT_ERROR;
    }
    uint8_t fixed[8];
    put32(fixed, (uint32_t)fields.count);
    put32(fixed + 4, (uint32_t)fields.bytes);
    if (send_check(call, ANSWER_TRAILERS, call->ws) < 0) {
        fields_clear(&fields);
        return SENT_ERROR;
    }
    SendResult result = send_fields(call, SPVN_TRAILERS, more ? 0 : SPVN_FLAG_LAST, fixed, sizeof fixed, &fields);
    fields_clear(&fields);
    if (result != SENT_ERROR && !more) {
        send_complete(call);
    }
    return result;
}

/* 103 (RFC 8297). The specification has it come behind the start message, so a head that nobody has
 * seen yet makes way for it; behind a published head it is too late, and ignored. */
SendResult send_early_hint(Call *call, const Message *message)
{
    State *state = call->link->state;
    uint8_t answer = call->answer;
    Outbox *out = call->outbox;
    PyObject *links = message_get(message, state->str_links);
    PyObject *sequence = links == NULL ? NULL : PySequence_Tuple(links);
    Py_XDECREF(links);
    if (sequence == NULL) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_SetString(PyExc_TypeError, "ASGI message 'http.response.early_hint' must have 'links', an iterable of bytes.");
        }
        return SENT_ERROR;
    }
    Fields fields;
    fields_init(&fields);
    PyObject *name = PyBytes_FromString("link");
    int failed = name == NULL;
    for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(sequence); i++) {
        failed = fields_append(&fields, name, PyTuple_GET_ITEM(sequence, i), "http.response.early_hint") < 0;
    }
    Py_XDECREF(name);
    Py_DECREF(sequence);
    PyObject *head = NULL;
    SendResult result = SENT;
    if (failed || send_check(call, answer, call->ws) < 0) {
        result = SENT_ERROR;
    } else if (call->answer == ANSWER_BODY) {
        bool unseen = call->open_at != UINT64_MAX && call->open_end == out->next && call->open_at >= out->published &&
                      link_usable(call->link);
        if (!unseen) {
            fields_clear(&fields);
            return SENT;
        }
        const uint8_t *record = out->ring.data + (call->open_at & (out->ring.size - 1));
        head = PyBytes_FromStringAndSize((const char *)record + SPVN_RECORD_HEADER_SIZE,
                                         (Py_ssize_t)(call->open_fill - call->open_at - SPVN_RECORD_HEADER_SIZE));
        if (head == NULL) {
            result = SENT_ERROR;
        } else {
            out->next = call->open_at;
        }
    }
    if (result == SENT) {
        uint8_t fixed[SPVN_RESPONSE_FIXED_SIZE] = {0};
        put32(fixed + SPVN_RESPONSE_STATUS, 103);
        put32(fixed + SPVN_RESPONSE_FIELD_COUNT, (uint32_t)fields.count);
        put32(fixed + SPVN_RESPONSE_FIELD_BYTES, (uint32_t)fields.bytes);
        result = send_fields(call, SPVN_INFORMATIONAL, 0, fixed, sizeof fixed, &fields);
        if (result == SENT_HELD && head != NULL) {
            /* A hint is not worth a second message to hold: without room, the head goes alone. */
            Py_CLEAR(call->held);
            result = SENT;
        }
    }
    fields_clear(&fields);
    if (head != NULL) {
        size_t size = (size_t)PyBytes_GET_SIZE(head);
        uint16_t flags = call->trailers ? SPVN_FLAG_TRAILERS : 0;
        uint8_t *record = call_reserve(call, size, SPVN_RESPONSE, flags);
        call->open_at = UINT64_MAX;
        if (record == NULL) {
            call_hold(call, head, 0, SPVN_RESPONSE, flags);
            return result == SENT_ERROR ? SENT_ERROR : SENT_HELD;
        }
        memcpy(record + SPVN_RECORD_HEADER_SIZE, PyBytes_AS_STRING(head), size);
        call->open_end = out->next;
        call->open_at = out->next - record_size(size);
        call->open_fill = call->open_at + SPVN_RECORD_HEADER_SIZE + size;
        Py_DECREF(head);
        if (call->link->depth == 0) {
            link_flush_soon(call->link);
        }
    }
    return result;
}

SendResult send_path(Call *call, const Message *message)
{
    State *state = call->link->state;
    PyObject *path = message_get(message, state->str_path);
    PyObject *encoded = NULL;
    if (path != NULL && PyUnicode_Check(path)) {
        encoded = PyUnicode_EncodeFSDefault(path);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError, "ASGI message 'http.response.pathsend' must have a 'path', a str.");
    }
    Py_XDECREF(path);
    if (encoded == NULL) {
        return SENT_ERROR;
    }
    Fields none;
    fields_init(&none);
    size_t length = (size_t)PyBytes_GET_SIZE(encoded);
    PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 + length));
    SendResult result = SENT_ERROR;
    if (payload != NULL) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(payload);
        put64(to, length); /* u32 length, u32 0 */
        memcpy(to + 8, PyBytes_AS_STRING(encoded), length);
        result = send_fields(call, SPVN_PATHSEND, call->trailers ? 0 : SPVN_FLAG_LAST, to, 8 + length, &none);
        Py_DECREF(payload);
    }
    Py_DECREF(encoded);
    if (result != SENT_ERROR) {
        call->answer = ANSWER_TRAILERS;
        if (!call->trailers) {
            send_complete(call);
        }
    }
    return result;
}
