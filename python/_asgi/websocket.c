/* WebSocket calls: their messages in both directions.
 *
 * The handshake, frames, pings and UTF-8 are the core's. A denial ("websocket.http.response")
 * is an answer as any other; closing before the handshake is the 403 that the specification asks for.
 */
#include "asgi.h"

#define LONGEST_REASON 123 /* bytes: a close frame has 125, RFC 6455 5.5 */

void websocket_closed(Call *call, uint16_t code, PyObject *reason)
{
    if (call->ws_code == 0) {
        call->ws_code = code;
        call->ws_reason = Py_XNewRef(reason);
    }
}

/* The app has taken everything and hears now that the client broke the rules. What it has sent still leaves. */
static void heard_of_failure(Call *call)
{
    call->ws_failing = false;
    call->disconnected = true;
    call->ws_close_due = true;
    waits_wake_all(&call->receivers);
    waits_wake_all(&call->senders);
    call_pump(call);
    call_publish(call);
}

static int message_of(Call *call, PyObject *type, PyObject *key, PyObject *value, PyObject **message)
{
    PyObject *dict = PyDict_New();
    if (dict != NULL && (PyDict_SetItem(dict, call->link->state->str_type, type) < 0 ||
                         (key != NULL && PyDict_SetItem(dict, key, value) < 0))) {
        Py_CLEAR(dict);
    }
    *message = dict;
    return dict != NULL ? 1 : -1;
}

int websocket_next(Call *call, PyObject **message)
{
    State *state = call->link->state;
    if (call->first_pending) {
        call->first_pending = false;
        return message_of(call, state->str_ws_connect, NULL, NULL, message);
    }
    if (call->ws == WS_OPEN && call->chunks_first != NULL) {
        PyObject *payload = receive_pop(call, NULL);
        PyObject *key = PyUnicode_Check(payload) ? state->str_text : state->str_bytes;
        int result = message_of(call, state->str_ws_receive, key, payload, message);
        Py_DECREF(payload);
        return result;
    }
    if (call->ws_failing && call->ws == WS_OPEN) {
        heard_of_failure(call);
    }
    if (!call->disconnected && !call->ended && call->ws != WS_ENDED) {
        return 0;
    }
    /* 1006: there was no close frame (RFC 6455 7.1.5). */
    PyObject *code = PyLong_FromLong(call->ws_code != 0 ? call->ws_code : 1006);
    if (code == NULL || message_of(call, state->str_ws_disconnect, state->str_code, code, message) < 0) {
        Py_XDECREF(code);
        return -1;
    }
    Py_DECREF(code);
    if (PyDict_SetItem(*message, state->str_reason, call->ws_reason != NULL ? call->ws_reason : state->str_empty) < 0) {
        Py_CLEAR(*message);
        return -1;
    }
    return 1;
}

static void ended(Call *call)
{
    call->ws = WS_ENDED;
    receive_clear(call);
    waits_wake_all(&call->receivers);
}

static SendResult unexpected(const char *expected, PyObject *type)
{
    PyErr_Format(PyExc_RuntimeError, "Expected ASGI message %s, but got '%U'.", expected, type);
    return SENT_ERROR;
}

/* A str of the message as UTF-8 bytes; empty without one or with None. NULL: raised. */
static PyObject *text_bytes(const Message *message, PyObject *key, const char *what)
{
    PyObject *text = message_get(message, key);
    PyObject *bytes = NULL;
    if (text == NULL || text == Py_None) {
        bytes = PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize(NULL, 0);
    } else if (PyUnicode_Check(text)) {
        bytes = PyUnicode_AsUTF8String(text);
    } else {
        PyErr_Format(PyExc_TypeError, "%R in '%s' must be a str, got %s.", key, what, Py_TYPE(text)->tp_name);
    }
    Py_XDECREF(text);
    return bytes;
}

static SendResult accept(Call *call, const Message *message)
{
    static const char what[] = "websocket.accept";
    State *state = call->link->state;
    PyObject *subprotocol = text_bytes(message, state->str_subprotocol, what);
    Fields fields;
    if (subprotocol == NULL || fields_collect(&fields, message->headers, what) < 0) {
        Py_XDECREF(subprotocol);
        return SENT_ERROR;
    }
    SendResult result = SENT_ERROR;
    size_t length = (size_t)PyBytes_GET_SIZE(subprotocol);
    if (length > 0 && !fields_token(PyBytes_AS_STRING(subprotocol), (Py_ssize_t)length)) {
        PyErr_Format(PyExc_RuntimeError, "'subprotocol' in '%s' must be a token (RFC 9110 5.6.2), got %R.", what, subprotocol);
        Py_DECREF(subprotocol);
        fields_clear(&fields);
        return SENT_ERROR;
    }
    PyObject *fixed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(16 + length));
    if (fixed != NULL && send_check(call, call->answer, WS_CONNECTING) == 0) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(fixed);
        put32(to, (uint32_t)length);
        put32(to + 4, (uint32_t)fields.count);
        put32(to + 8, (uint32_t)fields.bytes);
        put32(to + 12, 0);
        memcpy(to + 16, PyBytes_AS_STRING(subprotocol), length);
        result = send_fields(call, SPVN_WS_ACCEPT, 0, to, 16 + length, &fields);
    }
    if (result != SENT_ERROR) {
        call->ws = WS_OPEN;
        if (call->chunks_first != NULL) {
            waits_wake(&call->receivers);
        }
    }
    Py_XDECREF(fixed);
    Py_DECREF(subprotocol);
    fields_clear(&fields);
    return result;
}

static SendResult deny(Call *call)
{
    Fields fields;
    fields_init(&fields);
    SendResult result = send_answer(call, 403, &fields, true);
    if (result != SENT_ERROR) {
        call->answer = ANSWER_COMPLETE;
        websocket_closed(call, 1006, NULL);
        ended(call);
        if (call->link->depth == 0) {
            call_publish(call);
        }
    }
    return result;
}

/* The codes that a close frame may have (RFC 6455 7.4, and the registry that it made). */
static bool sendable(long code)
{
    return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999);
}

static SendResult close_open(Call *call, const Message *message)
{
    static const char what[] = "websocket.close";
    State *state = call->link->state;
    long code = 1000;
    PyObject *code_object = message_get(message, state->str_code);
    if (code_object != NULL && code_object != Py_None) {
        code = PyLong_AsLong(code_object);
    }
    Py_XDECREF(code_object);
    if (PyErr_Occurred()) {
        return SENT_ERROR;
    }
    if (!sendable(code)) {
        PyErr_Format(PyExc_RuntimeError,
                     "'code' in '%s' must be from 1000 to 1014 (but 1004, 1005 and 1006) or from 3000 to 4999, got %ld.", what,
                     code);
        return SENT_ERROR;
    }
    PyObject *reason = text_bytes(message, state->str_reason, what);
    if (reason == NULL) {
        return SENT_ERROR;
    }
    SendResult result = SENT_ERROR;
    Py_ssize_t length = PyBytes_GET_SIZE(reason);
    if (length > LONGEST_REASON) {
        PyErr_Format(PyExc_RuntimeError, "'reason' in '%s' must have at most %d bytes of UTF-8, got %zd.", what,
                     LONGEST_REASON, length);
    } else if (send_check(call, call->answer, WS_OPEN) == 0) {
        uint8_t fixed[8 + LONGEST_REASON] = {0};
        Fields none;
        fields_init(&none);
        put16(fixed, (uint16_t)code);
        put16(fixed + 2, (uint16_t)length);
        memcpy(fixed + 8, PyBytes_AS_STRING(reason), (size_t)length);
        result = send_fields(call, SPVN_WS_CLOSE, 0, fixed, 8 + (size_t)length, &none);
    }
    if (result != SENT_ERROR) {
        PyObject *text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(reason), length, "replace");
        PyErr_Clear();
        websocket_closed(call, (uint16_t)code, text);
        Py_XDECREF(text);
        ended(call);
    }
    Py_DECREF(reason);
    return result;
}

static SendResult send_data(Call *call, const Message *message)
{
    uint16_t opcode = 2;
    PyObject *payload = message->bytes;
    if (payload == NULL || payload == Py_None) {
        opcode = 1;
        payload = message->text;
    }
    /* ASCII text lies there as it leaves; anything else is made into bytes first, if it is not. */
    const char *plain = NULL;
    Py_ssize_t size = 0;
    PyObject *bytes = NULL;
    if (opcode == 1 && payload != NULL && PyUnicode_Check(payload)) {
        if (PyUnicode_IS_COMPACT_ASCII(payload)) {
            plain = (const char *)PyUnicode_1BYTE_DATA(payload);
            size = PyUnicode_GET_LENGTH(payload);
        } else {
            bytes = PyUnicode_AsUTF8String(payload);
        }
    } else if (opcode == 2 && PyObject_CheckBuffer(payload)) {
        bytes = PyBytes_FromObject(payload);
    } else {
        PyErr_SetString(PyExc_TypeError, "ASGI message 'websocket.send' must have 'bytes', which are bytes, or 'text', a str.");
    }
    if (bytes != NULL) {
        plain = PyBytes_AS_STRING(bytes);
        size = PyBytes_GET_SIZE(bytes);
    }
    if (plain == NULL || send_check(call, call->answer, WS_OPEN) < 0) {
        Py_XDECREF(bytes);
        return SENT_ERROR;
    }
    if (call_write_message(call, opcode, plain, (size_t)size)) {
        Py_XDECREF(bytes);
    } else {
        if (bytes == NULL && (bytes = PyBytes_FromStringAndSize(plain, size)) == NULL) {
            return SENT_ERROR;
        }
        call_hold(call, bytes, 0, SPVN_WS_SEND, opcode);
        call_pump(call);
    }
    call_publish(call);
    return call->held != NULL ? SENT_HELD : send_must_yield(call) ? SENT_YIELD : SENT;
}

SendResult websocket_send(Call *call, const Message *message)
{
    PyObject *type = message->type;
    switch ((WebSocketPhase)call->ws) {
    case WS_CONNECTING:
        if (text_is(type, "websocket.accept")) {
            return accept(call, message);
        }
        if (text_is(type, "websocket.close")) {
            return deny(call);
        }
        if (text_is(type, "websocket.http.response.start")) {
            SendResult result = send_start(call, message, "websocket.http.response.start");
            if (result != SENT_ERROR) {
                call->ws = WS_DENYING;
            }
            return result;
        }
        return unexpected("'websocket.accept', 'websocket.close' or 'websocket.http.response.start'", type);
    case WS_DENYING:
        if (text_is(type, "websocket.http.response.body") && call->answer == ANSWER_BODY) {
            SendResult result = send_body(call, message, "websocket.http.response.body");
            if (call->answer == ANSWER_COMPLETE) {
                websocket_closed(call, 1006, NULL);
                ended(call);
            }
            return result;
        }
        return unexpected("'websocket.http.response.body'", type);
    case WS_OPEN:
        if (text_is(type, "websocket.send")) {
            return send_data(call, message);
        }
        if (text_is(type, "websocket.close")) {
            return close_open(call, message);
        }
        return unexpected("'websocket.send' or 'websocket.close'", type);
    case WS_ENDED:
        if (text_is(type, "websocket.send")) {
            /* A task beside the one that closed: it cannot know. */
            PyErr_SetString(call->link->state->client_disconnected, "The WebSocket was closed: nothing more can be sent.");
            return SENT_ERROR;
        }
        break;
    }
    PyErr_Format(PyExc_RuntimeError, "Unexpected ASGI message '%U', after sending 'websocket.close' or a response.", type);
    return SENT_ERROR;
}

/* An app that returns closes its connection, normally. */
void websocket_return(Call *call)
{
    if (call->ws == WS_OPEN && !call->disconnected) {
        call->ws_close_due = true;
        websocket_closed(call, 1000, NULL); /* for tasks that go on, and wait in receive() */
        ended(call);
    }
}
