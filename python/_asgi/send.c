/* send(): what the app answers, as records.
 *
 * The head of an answer is written into the ring as soon as it comes, but not published
 * before the app's step ends: if the first part of the body follows at once, it is put
 * behind the head in the same record. What the app may send, and in which order, is in AnswerPhase; errors
 * are those that uvicorn raises, so that frameworks find what they know.
 */
#include "asgi.h"

#define BURST_SENDS 128             /* sends after which the loop gets a turn */
#define BURST_TIME 3000000u         /* nanoseconds after which it does */
#define MESSAGE_START "http.response.start"
#define MESSAGE_BODY "http.response.body"

static SendResult unexpected(const char *expected, PyObject *type)
{
    PyErr_Format(PyExc_RuntimeError, "Expected ASGI message '%s', but got '%U'.", expected, type);
    return SENT_ERROR;
}

int send_check(Call *call, uint8_t answer, uint8_t ws)
{
    if (call->answer == answer && call->ws == ws && call->held == NULL && !call->disconnected && !call->ended) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "An ASGI message was sent while send() was still reading another one.");
    return -1;
}

bool send_must_yield(Call *call)
{
    Link *link = call->link;
    uint64_t now = monotonic_ns();
    /* The loop runs drains itself: one that began since means that it had a turn. */
    if (call->burst == 0 || (link->depth == 0 && link->turned_at > call->burst_at)) {
        call->burst = 0;
        call->burst_at = now;
    }
    return ++call->burst >= BURST_SENDS || now - call->burst_at >= BURST_TIME;
}

void send_complete(Call *call)
{
    call->answer = ANSWER_COMPLETE;
    receive_clear(call);
    call->first_pending = false;
    waits_wake_all(&call->receivers);
}

/* Writes the head. With last, there is no body. */
SendResult send_answer(Call *call, unsigned status, const Fields *fields, bool last)
{
    Outbox *out = call->outbox;
    uint64_t payload = SPVN_RESPONSE_FIXED_SIZE + fields->bytes;
    uint16_t flags = (uint16_t)((call->trailers ? SPVN_FLAG_TRAILERS : 0) | (last ? SPVN_FLAG_LAST : 0));
    if (payload > outbox_max_payload(out)) {
        PyErr_Format(PyExc_RuntimeError, "The head of the response has %zu bytes of fields; at most %llu can be sent.",
                     fields->bytes, (unsigned long long)(outbox_max_payload(out) - SPVN_RESPONSE_FIXED_SIZE));
        return SENT_ERROR;
    }
    uint8_t *to;
    uint8_t *record = call_reserve(call, payload, SPVN_RESPONSE, flags);
    PyObject *held = NULL;
    if (record != NULL) {
        to = record + SPVN_RECORD_HEADER_SIZE;
    } else {
        held = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)payload);
        if (held == NULL) {
            return SENT_ERROR;
        }
        to = (uint8_t *)PyBytes_AS_STRING(held);
    }
    put32(to + SPVN_RESPONSE_STATUS, status);
    put32(to + SPVN_RESPONSE_FIELD_COUNT, (uint32_t)fields->count);
    put32(to + SPVN_RESPONSE_FIELD_BYTES, (uint32_t)fields->bytes);
    put32(to + SPVN_RESPONSE_BODY_LENGTH, 0);
    fields_write(fields, to + SPVN_RESPONSE_FIXED_SIZE);
    if (held != NULL) {
        call_hold(call, held, 0, SPVN_RESPONSE, flags);
        return SENT_HELD;
    }
    call->open_end = out->next;
    call->open_at = out->next - record_size(payload);
    call->open_fill = call->open_at + SPVN_RECORD_HEADER_SIZE + payload;
    if (last) {
        call->last_record = call->open_at;
    }
    return SENT;
}

SendResult send_start(Call *call, const Message *message, const char *what)
{
    uint8_t ws = call->ws;
    if (message->status == NULL) {
        PyErr_Format(PyExc_RuntimeError, "ASGI message '%s' must have a 'status', an int.", what);
        return SENT_ERROR;
    }
    int overflow;
    long status = PyLong_AsLongAndOverflow(message->status, &overflow);
    if (status == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "'status' in '%s' must be an int, got %s.", what, Py_TYPE(message->status)->tp_name);
        }
        return SENT_ERROR;
    }
    if (status < 200 || status > 999) { /* -1 if it overflowed */
        PyErr_Format(PyExc_RuntimeError, "'status' in '%s' must be a final status, from 200 to 999, got %R.", what,
                     message->status);
        return SENT_ERROR;
    }
    int trailers = item_true(message->trailers);
    Fields fields;
    if (trailers < 0 || fields_collect(&fields, message->headers, what) < 0) {
        return SENT_ERROR;
    }
    if (send_check(call, ANSWER_START, ws) < 0) {
        fields_clear(&fields);
        return SENT_ERROR;
    }
    call->trailers = trailers;
    SendResult result = send_answer(call, (unsigned)status, &fields, false);
    if (result != SENT_ERROR) {
        call->body_dropped = status == 204 || status == 304;
        call->content_left = call->head_method || call->body_dropped ? -1 : fields.content_length;
        call->answer = ANSWER_BODY;
        /* Inside a drain the step's end publishes it; else the loop's next turn does, unless a body comes first. */
        if (result == SENT && call->link->depth == 0) {
            link_flush_soon(call->link);
        }
    }
    fields_clear(&fields);
    return result;
}

/* Puts the first part of the body behind the head; returns how many bytes it took. */
static size_t extend_head(Call *call, const char *bytes, size_t size, uint16_t flags)
{
    Outbox *out = call->outbox;
    uint64_t at = call->open_at;
    call->open_at = UINT64_MAX; /* only once */
    if (at == UINT64_MAX || call->open_end != out->next || at < out->published || !link_usable(call->link)) {
        return 0;
    }
    uint64_t offset = at & (out->ring.size - 1);
    uint64_t head = call->open_fill - at;
    uint64_t room = out->ring.size - offset; /* a record does not wrap */
    if (room > out->ring.size / 4) {
        room = out->ring.size / 4;
    }
    size_t n = size;
    size_t window = call_window(call);
    if (n > window) {
        n = window;
    }
    if (n > room - head) {
        n = (size_t)(room - head);
    }
    uint64_t length = (head + n + 7) & ~(uint64_t)7;
    if (!outbox_has_room(out, length - (call->open_end - at))) {
        return 0;
    }
    uint8_t *record = out->ring.data + offset;
    memcpy(record + head, bytes, n);
    put32(record + SPVN_RECORD_HEADER_SIZE + SPVN_RESPONSE_BODY_LENGTH, (uint32_t)n);
    put32(record + SPVN_RECORD_LENGTH, (uint32_t)length);
    out->next = at + length;
    call->window_used += (uint32_t)n;
    if (n == size && (flags & SPVN_FLAG_LAST)) {
        put16(record + SPVN_RECORD_FLAGS, get16(record + SPVN_RECORD_FLAGS) | SPVN_FLAG_LAST);
        call->last_record = at;
    }
    return n;
}

/* A new reference to bytes. */
static PyObject *body_bytes(PyObject *body, const char *what, PyObject *empty)
{
    if (body == NULL) {
        return Py_NewRef(empty);
    }
    if (PyBytes_CheckExact(body)) {
        return Py_NewRef(body);
    }
    if (PyObject_CheckBuffer(body)) {
        return PyBytes_FromObject(body);
    }
    PyErr_Format(PyExc_TypeError, "'body' in '%s' must be bytes, got %s.", what, Py_TYPE(body)->tp_name);
    return NULL;
}

SendResult send_body(Call *call, const Message *message, const char *what)
{
    State *state = call->link->state;
    int more = item_true(message->more_body);
    PyObject *body = more < 0 ? NULL : body_bytes(message->body, what, state->empty_bytes);
    if (body == NULL) {
        return SENT_ERROR;
    }
    if (send_check(call, ANSWER_BODY, call->ws) < 0) {
        goto failed;
    }
    size_t size = (size_t)PyBytes_GET_SIZE(body);
    if (call->content_left >= 0) {
        if (size > (uint64_t)call->content_left) {
            PyErr_SetString(PyExc_RuntimeError, "Response content longer than Content-Length");
            goto failed;
        }
        if (!more && size < (uint64_t)call->content_left) {
            PyErr_SetString(PyExc_RuntimeError, "Response content shorter than Content-Length");
            goto failed;
        }
        call->content_left -= (int64_t)size;
    }
    if (call->body_dropped) {
        size = 0;
    }
    if (!more && !call->body_begun) {
        call->window = SPVN_SEND_WINDOW_COMPLETE;
    }
    call->body_begun = true;
    /* With trailers announced, those end the answer. */
    uint16_t flags = !more && !call->trailers ? SPVN_FLAG_LAST : 0;
    if (!more) {
        call->answer = ANSWER_TRAILERS;
        if (!call->trailers) {
            send_complete(call);
        }
    }
    uint64_t last_record = call->last_record;
    size_t written = extend_head(call, PyBytes_AS_STRING(body), size, flags);
    SendResult result = SENT;
    if (written < size || (flags != 0 && call->last_record == last_record)) {
        call_hold(call, size == (size_t)PyBytes_GET_SIZE(body) ? body : Py_NewRef(state->empty_bytes), written,
                  SPVN_RESPONSE_BODY, flags);
        if (call->held != body) {
            Py_DECREF(body);
        }
        body = NULL;
        call_pump(call);
        result = call->held != NULL ? SENT_HELD : SENT;
    }
    Py_XDECREF(body);
    if (call->link->depth == 0 || more) {
        call_publish(call);
    }
    return result == SENT && more && send_must_yield(call) ? SENT_YIELD : result;
failed:
    Py_DECREF(body);
    return SENT_ERROR;
}

SendResult send_fields(Call *call, uint16_t type, uint16_t flags, const uint8_t *fixed, size_t fixed_size, const Fields *fields)
{
    uint64_t payload = fixed_size + fields->bytes;
    if (payload > outbox_max_payload(call->outbox)) {
        PyErr_Format(PyExc_RuntimeError, "A message has %zu bytes of fields; at most %llu can be sent.", fields->bytes,
                     (unsigned long long)(outbox_max_payload(call->outbox) - fixed_size));
        return SENT_ERROR;
    }
    uint8_t *record = call_reserve(call, payload, type, flags);
    PyObject *held = NULL;
    uint8_t *to = record != NULL ? record + SPVN_RECORD_HEADER_SIZE : NULL;
    if (to == NULL) {
        held = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)payload);
        if (held == NULL) {
            return SENT_ERROR;
        }
        to = (uint8_t *)PyBytes_AS_STRING(held);
    }
    memcpy(to, fixed, fixed_size);
    fields_write(fields, to + fixed_size);
    if (held != NULL) {
        call_hold(call, held, 0, type, flags);
        return SENT_HELD;
    }
    call_publish(call);
    return SENT;
}

static SendResult send_http(Call *call, const Message *message)
{
    PyObject *type = message->type;
    switch ((AnswerPhase)call->answer) {
    case ANSWER_START:
        if (text_is(type, MESSAGE_START)) {
            return send_start(call, message, MESSAGE_START);
        }
        if (text_is(type, "http.response.early_hint")) {
            return send_early_hint(call, message);
        }
        return unexpected(MESSAGE_START, type);
    case ANSWER_BODY:
        if (text_is(type, MESSAGE_BODY)) {
            return send_body(call, message, MESSAGE_BODY);
        }
        if (text_is(type, "http.response.early_hint")) {
            return send_early_hint(call, message);
        }
        if (call->link->pathsend && text_is(type, "http.response.pathsend")) {
            return send_path(call, message);
        }
        return unexpected(MESSAGE_BODY, type);
    case ANSWER_TRAILERS:
        if (text_is(type, "http.response.trailers")) {
            return send_trailers(call, message);
        }
        return unexpected("http.response.trailers", type);
    case ANSWER_COMPLETE:
        break;
    }
    PyErr_Format(PyExc_RuntimeError, "Unexpected ASGI message '%U' sent, after response already completed.", type);
    return SENT_ERROR;
}

SendResult send_message(Call *call, PyObject *dict)
{
    if (!PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "send() takes an ASGI message, a dict with a 'type', got %s.", Py_TYPE(dict)->tp_name);
        return SENT_ERROR;
    }
    Message message;
    message_read(&message, call->link->state, dict);
    SendResult result = SENT_ERROR;
    bool complete = call->websocket ? call->ws == WS_ENDED : call->answer == ANSWER_COMPLETE;
    if (message.type == NULL || !PyUnicode_Check(message.type)) {
        PyErr_Format(PyExc_TypeError, "An ASGI message must have a 'type', a str, got %R.", dict);
    } else if (call->disconnected && (call->websocket || !complete)) {
        PyErr_SetString(call->link->state->client_disconnected, "The client left: nothing more can be sent to it.");
    } else if (link_check(call->link) == 0) {
        if (call->ended && !complete) {
            PyErr_Format(PyExc_RuntimeError, "Unexpected ASGI message '%U' sent, after the app returned.", message.type);
        } else {
            result = call->websocket ? websocket_send(call, &message) : send_http(call, &message);
        }
    }
    message_clear(&message);
    return result;
}

PyObject *call_send(PyObject *self, PyObject *message)
{
    Call *call = (Call *)self;
    if (call->held != NULL || call->senders.first != NULL || !link_on_thread(call->link)) {
        return wait_new(call, WAIT_DEFERRED, message);
    }
    switch (send_message(call, message)) {
    case SENT:
        return Py_NewRef(call->link->state->done);
    case SENT_HELD:
        return wait_new(call, WAIT_HELD, NULL);
    case SENT_YIELD:
        return wait_new(call, WAIT_YIELD, NULL);
    case SENT_ERROR:
        break;
    }
    return NULL;
}
