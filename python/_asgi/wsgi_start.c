/* start_response(): the head of the answer, checked while the app is still there to hear of its mistake.
 *
 * It is kept encoded, and may be replaced (with exc_info) until the first block takes it along.
 */
#include "wsgi.h"

#define WHAT "start_response"

static int parse_status(PyObject *status)
{
    if (!PyUnicode_Check(status)) {
        PyErr_Format(PyExc_TypeError, "The status must be a str such as '200 OK', got %s.", Py_TYPE(status)->tp_name);
        return -1;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(status);
    int number = 0;
    for (Py_ssize_t i = 0; i < 3; i++) {
        Py_UCS4 c = i < length ? PyUnicode_READ_CHAR(status, i) : 0;
        number = c >= '0' && c <= '9' && number >= 0 ? number * 10 + (int)(c - '0') : -1;
    }
    if (number < 200 || (length > 3 && PyUnicode_READ_CHAR(status, 3) != ' ')) {
        PyErr_Format(PyExc_ValueError, "The status must be a final one, such as '200 OK', got %R.", status);
        return -1;
    }
    return number;
}

static PyObject *native(PyObject *text, const char *what)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "A header's %s must be a str, got %s: %R.", what, Py_TYPE(text)->tp_name, text);
        return NULL;
    }
    return PyUnicode_AsLatin1String(text);
}

static int append(Fields *fields, PyObject *pair)
{
    PyObject *items = PyUnicode_Check(pair) || PyBytes_Check(pair) ? NULL : PySequence_Tuple(pair);
    if (items == NULL || PyTuple_GET_SIZE(items) != 2) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "Each of the headers must be a pair (name, value) of str, got %R.", pair);
        }
        Py_XDECREF(items);
        return -1;
    }
    PyObject *name = native(PyTuple_GET_ITEM(items, 0), "name");
    PyObject *value = name == NULL ? NULL : native(PyTuple_GET_ITEM(items, 1), "value");
    int result = value == NULL ? -1 : fields_append(fields, name, value, WHAT);
    Py_XDECREF(name);
    Py_XDECREF(value);
    Py_DECREF(items);
    return result;
}

static int collect(Fields *fields, PyObject *headers)
{
    PyObject *sequence = PySequence_Tuple(headers);
    if (sequence == NULL) {
        return -1;
    }
    fields_init(fields);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sequence); i++) {
        if (append(fields, PyTuple_GET_ITEM(sequence, i)) < 0) {
            Py_DECREF(sequence);
            fields_clear(fields);
            return -1;
        }
    }
    Py_DECREF(sequence);
    return 0;
}

static PyObject *encode_head(Exchange *call, int status, const Fields *fields)
{
    size_t size = SPVN_RESPONSE_FIXED_SIZE + fields->bytes;
    size_t most = outbox_max_payload(call->out) - 64; /* a content-length may come in addition */
    if (size > most) {
        PyErr_Format(PyExc_RuntimeError, "The head of the response has %zu bytes of fields; at most %zu can be sent.",
                     fields->bytes, most - SPVN_RESPONSE_FIXED_SIZE);
        return NULL;
    }
    PyObject *head = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (head != NULL) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(head);
        put32(to + SPVN_RESPONSE_STATUS, (uint32_t)status);
        put32(to + SPVN_RESPONSE_FIELD_COUNT, (uint32_t)fields->count);
        put32(to + SPVN_RESPONSE_FIELD_BYTES, (uint32_t)fields->bytes);
        put32(to + SPVN_RESPONSE_BODY_LENGTH, 0);
        fields_write(fields, to + SPVN_RESPONSE_FIXED_SIZE);
    }
    return head;
}

/* Raises the exception of an exc_info triple. */
static void raise_exc_info(PyObject *exc_info)
{
    PyObject *type, *value, *traceback;
    if (!PyTuple_Check(exc_info) || !PyArg_ParseTuple(exc_info, "OOO", &type, &value, &traceback)) {
        PyErr_SetString(PyExc_TypeError, "exc_info must be a triple as sys.exc_info() returns it.");
    } else if (!PyExceptionInstance_Check(value)) {
        PyErr_SetObject(PyExceptionClass_Check(type) ? type : PyExc_TypeError, value == Py_None ? NULL : value);
    } else {
        if (traceback != Py_None && PyException_SetTraceback(value, traceback) < 0) {
            return;
        }
        PyErr_SetObject((PyObject *)Py_TYPE(value), value);
    }
}

static PyObject *start(Exchange *call, PyObject *status, PyObject *headers, PyObject *exc_info)
{
    if (exc_info == Py_None) {
        if (call->head != NULL) {
            PyErr_SetString(PyExc_AssertionError,
                            "start_response() was called a second time without exc_info (PEP 3333).");
            return NULL;
        }
    } else if (call->head_sent) {
        /* Too late for another answer: the app's own error goes up. */
        raise_exc_info(exc_info);
        return NULL;
    }
    if (call->over) {
        PyErr_SetString(PyExc_RuntimeError, "start_response() was called after the call's end.");
        return NULL;
    }
    int number = parse_status(status);
    Fields fields;
    if (number < 0 || collect(&fields, headers) < 0) {
        return NULL;
    }
    PyObject *head = encode_head(call, number, &fields);
    int64_t length = fields.content_length;
    fields_clear(&fields);
    if (head == NULL) {
        return NULL;
    }
    PyObject *old = call->head;
    call->head = head;
    Py_XDECREF(old);
    call->status = (unsigned)number;
    call->bodyless = call->head_method || number == 204 || number == 304;
    call->content_length = length;
    call->content_left = call->bodyless ? -1 : length;
    return PyObject_GetAttrString((PyObject *)call, "write");
}

PyObject *exchange_start_response(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"status", "headers", "exc_info", NULL};
    Exchange *call = (Exchange *)self;
    PyObject *status, *headers, *exc_info = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O:start_response", keywords, &status, &headers, &exc_info) ||
        exchange_enter(call) < 0) {
        return NULL;
    }
    PyObject *write = start(call, status, headers, exc_info);
    exchange_leave(call);
    return write;
}
