/* receive(): what the client sends, as messages.
 *
 * The drain leaves parts of the body in the call; receive() takes them one by one and
 * tells the core, which reads more from the client only then. Once the body is consumed, http.disconnect
 * comes when the client has left or the answer is complete.
 */
#include "asgi.h"

struct Chunk {
    Chunk *next;
    PyObject *payload; /* bytes; or str, a WebSocket message */
    uint32_t credit;   /* bytes that receiving it gives back */
    bool last;
};

static int push(Call *call, PyObject *payload, uint32_t credit, bool last)
{
    Chunk *chunk = payload == NULL ? NULL : PyMem_New(Chunk, 1);
    if (chunk == NULL) {
        Py_XDECREF(payload);
        if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        return -1;
    }
    *chunk = (Chunk){.payload = payload, .credit = credit, .last = last};
    if (call->chunks_last != NULL) {
        call->chunks_last->next = chunk;
    } else {
        call->chunks_first = chunk;
    }
    call->chunks_last = chunk;
    waits_wake(&call->receivers);
    return 0;
}

PyObject *receive_pop(Call *call, bool *last)
{
    Chunk *chunk = call->chunks_first;
    PyObject *payload = chunk->payload;
    if (last != NULL) {
        *last = chunk->last;
    }
    call->chunks_first = chunk->next;
    if (call->chunks_first == NULL) {
        call->chunks_last = NULL;
    }
    uint32_t credit = chunk->credit;
    PyMem_Free(chunk);
    if (call->websocket) {
        /* Told with whatever is written next, or once it is worth a record; see call_pump. */
        call->ws_received++;
        call->credit_due += credit;
        if (call->ws_received >= SPVN_WS_CREDIT_MESSAGES || call->credit_due >= SPVN_WS_CREDIT_BYTES) {
            call_pump(call);
            call_publish(call);
        }
    } else {
        call_credit(call, credit);
    }
    return payload;
}

void receive_clear(Call *call)
{
    Py_CLEAR(call->first);
    Py_CLEAR(call->ws_parts);
    while (call->chunks_first != NULL) {
        Chunk *chunk = call->chunks_first;
        call->chunks_first = chunk->next;
        Py_DECREF(chunk->payload);
        PyMem_Free(chunk);
    }
    call->chunks_last = NULL;
}

void call_credit(Call *call, uint64_t bytes)
{
    if (bytes == 0 || call->ended) {
        return;
    }
    call->credit_due += bytes;
    call_pump(call);
    call_publish(call);
}

/* A small part is put behind one that waits: what a part costs beside its bytes is no business of the client's. */
#define JOINED 4096

static int join(Chunk *chunk, const uint8_t *bytes, uint32_t length)
{
    Py_ssize_t size = PyBytes_GET_SIZE(chunk->payload);
    PyObject *both = PyBytes_FromStringAndSize(NULL, size + length);
    if (both == NULL) {
        return -1;
    }
    memcpy(PyBytes_AS_STRING(both), PyBytes_AS_STRING(chunk->payload), (size_t)size);
    memcpy(PyBytes_AS_STRING(both) + size, bytes, length);
    Py_SETREF(chunk->payload, both);
    chunk->credit += length;
    return 0;
}

int receive_body(Call *call, const uint8_t *bytes, uint32_t length, bool last)
{
    if (call->ended || call->disconnected || call->answer == ANSWER_COMPLETE || call->body_last) {
        return 0;
    }
    call->body_last = last;
    if (length == 0 && call->chunks_last != NULL) {
        call->chunks_last->last = last;
        return 0;
    }
    if (length == 0 && !last) {
        return 0;
    }
    Chunk *before = call->chunks_last;
    bool several = call->receivers.first != NULL && call->receivers.first->next != NULL; /* wait for one each */
    if (before != NULL && !several && (size_t)PyBytes_GET_SIZE(before->payload) + length <= JOINED) {
        before->last = last;
        return join(before, bytes, length);
    }
    return push(call, PyBytes_FromStringAndSize((const char *)bytes, length), length, last);
}

int receive_websocket(Call *call, PyObject *payload, uint8_t opcode)
{
    uint32_t credit = (uint32_t)PyBytes_GET_SIZE(payload);
    if (call->ended || call->disconnected || call->ws == WS_ENDED) {
        return 0;
    }
    if (opcode == 1) {
        /* The core has checked that it is UTF-8 (RFC 6455 8.1). */
        PyObject *text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), "replace");
        return push(call, text, credit, false);
    }
    return push(call, Py_NewRef(payload), credit, false);
}

bool receive_ready(const Call *call)
{
    return call->first_pending || call->chunks_first != NULL || call->disconnected || call->ended ||
           (call->websocket ? call->ws == WS_ENDED || call->ws_failing : call->answer == ANSWER_COMPLETE);
}

/* {"type": "http.request", ...}; steals body, which is NULL for none. */
static int request_message(Call *call, PyObject *body, bool last, PyObject **message)
{
    State *state = call->link->state;
    PyObject *dict = PyDict_Copy(state->request_message);
    if (dict != NULL && ((body != NULL && PyDict_SetItem(dict, state->str_body, body) < 0) ||
                         (!last && PyDict_SetItem(dict, state->str_more_body, Py_True) < 0))) {
        Py_CLEAR(dict);
    }
    Py_XDECREF(body);
    *message = dict;
    return dict != NULL ? 1 : -1;
}

static int disconnect_message(Call *call, PyObject **message)
{
    State *state = call->link->state;
    PyObject *dict = PyDict_New();
    if (dict != NULL && PyDict_SetItem(dict, state->str_type, state->str_http_disconnect) < 0) {
        Py_CLEAR(dict);
    }
    *message = dict;
    return dict != NULL ? 1 : -1;
}

int receive_next(Call *call, PyObject **message)
{
    if (call->websocket) {
        return websocket_next(call, message);
    }
    if (call->disconnected || call->ended || call->answer == ANSWER_COMPLETE) {
        receive_clear(call);
        call->first_pending = false;
        return disconnect_message(call, message);
    }
    if (call->want_body) {
        call->want_body = false;
        call->want_body_due = true;
        call_pump(call);
        call_publish(call);
    }
    if (call->first_pending) {
        PyObject *body = call->first;
        bool last = call->body_last && call->chunks_first == NULL;
        call->first = NULL;
        call->first_pending = false;
        if (call->body_credited && body != NULL) {
            call_credit(call, (uint64_t)PyBytes_GET_SIZE(body));
        }
        return request_message(call, body, last, message);
    }
    if (call->chunks_first != NULL) {
        bool last;
        PyObject *body = receive_pop(call, &last);
        return request_message(call, body, last, message);
    }
    return 0;
}

PyObject *call_receive(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return wait_new((Call *)self, WAIT_RECEIVE, NULL);
}
