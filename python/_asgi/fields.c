/* Fields: the name and value pairs of an answer, checked and put into a record.
 *
 * What the app sends is checked here because nothing behind this file does it again: a CR
 * or LF that got out would end the field and start what an attacker wants (RFC 9110 5.5).
 */
#include "asgi.h"

#define FIELD_HEADER 8 /* u32 name length, u32 value length */

/* tchar of RFC 9110 5.6.2 in lower case; 0 for all others. */
static const uint8_t token[256] = {
      0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
      0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
      0,  33,   0,  35,  36,  37,  38,  39,   0,   0,  42,  43,   0,  45,  46,   0,
     48,  49,  50,  51,  52,  53,  54,  55,  56,  57,   0,   0,   0,   0,   0,   0,
      0,  97,  98,  99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
    112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122,   0,   0,   0,  94,  95,
     96,  97,  98,  99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
    112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122,   0, 124,   0, 126,   0,
};

typedef enum { NAME_BAD, NAME_LOWER, NAME_MIXED } NameKind;

static NameKind name_kind(const uint8_t *name, Py_ssize_t length)
{
    bool mixed = false;
    for (Py_ssize_t i = 0; i < length; i++) {
        uint8_t lower = token[name[i]];
        if (lower == 0) {
            return NAME_BAD;
        }
        mixed |= lower != name[i];
    }
    return length == 0 ? NAME_BAD : mixed ? NAME_MIXED : NAME_LOWER;
}

bool fields_token(const char *text, Py_ssize_t length)
{
    return name_kind((const uint8_t *)text, length) != NAME_BAD;
}

/* No control character but a tab (RFC 9110 5.5). Without an early exit, so that it vectorizes. */
static bool is_value(const uint8_t *bytes, Py_ssize_t length)
{
    unsigned bad = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        uint8_t c = bytes[i];
        bad |= (unsigned)((c < 32) & (c != '\t')) | (unsigned)(c == 127);
    }
    return bad == 0;
}

/* ASCII, without regard to case; lower is in lower case. */
static bool name_is(const uint8_t *name, Py_ssize_t length, const char *lower, size_t lower_length)
{
    if ((size_t)length != lower_length) {
        return false;
    }
    for (size_t i = 0; i < lower_length; i++) {
        if ((name[i] | 0x20) != (uint8_t)lower[i]) {
            return false;
        }
    }
    return true;
}

/* 1*DIGIT, and no number that overflows; -1 otherwise. */
static int64_t parse_length(const uint8_t *bytes, Py_ssize_t length)
{
    while (length > 0 && (bytes[0] == ' ' || bytes[0] == '\t')) {
        bytes++, length--;
    }
    while (length > 0 && (bytes[length - 1] == ' ' || bytes[length - 1] == '\t')) {
        length--;
    }
    if (length == 0 || length > 18) {
        return -1;
    }
    int64_t n = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        if (bytes[i] < '0' || bytes[i] > '9') {
            return -1;
        }
        n = n * 10 + (bytes[i] - '0');
    }
    return n;
}

void fields_init(Fields *fields)
{
    fields->count = 0;
    fields->bytes = 0;
    fields->content_length = -1;
    fields->items = fields->inline_items;
}

void fields_clear(Fields *fields)
{
    for (Py_ssize_t i = 0; i < fields->count; i++) {
        Py_DECREF(fields->items[i].name);
        Py_DECREF(fields->items[i].value);
    }
    if (fields->items != fields->inline_items) {
        PyMem_Free(fields->items);
    }
    fields_init(fields);
}

static int grow(Fields *fields, Py_ssize_t capacity)
{
    Field *items = PyMem_New(Field, capacity);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(items, fields->items, (size_t)fields->count * sizeof *items);
    if (fields->items != fields->inline_items) {
        PyMem_Free(fields->items);
    }
    fields->items = items;
    return 0;
}

/* A new reference to bytes, made from any buffer but str. */
static PyObject *as_bytes(PyObject *object, const char *what, const char *part)
{
    if (PyBytes_CheckExact(object)) {
        return Py_NewRef(object);
    }
    if (PyObject_CheckBuffer(object)) {
        return PyBytes_FromObject(object);
    }
    PyErr_Format(PyExc_TypeError, "A header %s in '%s' must be bytes, got %s: %R.", part, what,
                 Py_TYPE(object)->tp_name, object);
    return NULL;
}

int fields_append(Fields *fields, PyObject *name, PyObject *value, const char *what)
{
    Field field = {as_bytes(name, what, "name"), NULL, false};
    if (field.name == NULL) {
        return -1;
    }
    field.value = as_bytes(value, what, "value");
    if (field.value == NULL) {
        goto failed;
    }
    const uint8_t *name_bytes = (const uint8_t *)PyBytes_AS_STRING(field.name);
    const uint8_t *value_bytes = (const uint8_t *)PyBytes_AS_STRING(field.value);
    Py_ssize_t name_length = PyBytes_GET_SIZE(field.name), value_length = PyBytes_GET_SIZE(field.value);
    NameKind kind = name_kind(name_bytes, name_length);
    field.mixed = kind == NAME_MIXED;
    if (kind == NAME_BAD) {
        PyErr_Format(PyExc_RuntimeError,
                     "Invalid HTTP header name %R in '%s': a name is made of letters, digits and !#$%%&'*+-.^_`|~.",
                     field.name, what);
        goto failed;
    }
    if (!is_value(value_bytes, value_length)) {
        PyErr_Format(PyExc_RuntimeError,
                     "Invalid HTTP header value %R of %R in '%s': a value has no control characters (CR, LF, NUL).",
                     field.value, field.name, what);
        goto failed;
    }
    if (name_is(name_bytes, name_length, "transfer-encoding", 17)) {
        Py_DECREF(field.name);
        Py_DECREF(field.value);
        return 0;
    }
    if (name_is(name_bytes, name_length, "content-length", 14)) {
        int64_t n = parse_length(value_bytes, value_length);
        if (n < 0 || (fields->content_length >= 0 && fields->content_length != n)) {
            PyErr_Format(PyExc_RuntimeError, "Invalid Content-Length %R in '%s': %s.", field.value, what,
                         n < 0 ? "it is not a number" : "it differs from the one before");
            goto failed;
        }
        fields->content_length = n;
    }
    Py_ssize_t inline_count = (Py_ssize_t)(sizeof fields->inline_items / sizeof *fields->inline_items);
    if (fields->count >= inline_count && (fields->count & (fields->count - 1)) == 0) {
        if (grow(fields, fields->count * 2) < 0) {
            goto failed;
        }
    } else if (fields->count == inline_count && grow(fields, 32) < 0) {
        goto failed;
    }
    fields->items[fields->count++] = field;
    fields->bytes += FIELD_HEADER + (size_t)name_length + (size_t)value_length;
    return 0;
failed:
    Py_DECREF(field.name);
    Py_XDECREF(field.value);
    return -1;
}

static int append_pair(Fields *fields, PyObject *pair, const char *what)
{
#ifndef Py_GIL_DISABLED
    /* The objects stay alive until they are counted: nothing of Python runs in between. */
    if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
        return fields_append(fields, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1), what);
    }
    if (PyList_Check(pair) && PyList_GET_SIZE(pair) == 2 && PyBytes_CheckExact(PyList_GET_ITEM(pair, 0)) &&
        PyBytes_CheckExact(PyList_GET_ITEM(pair, 1))) {
        return fields_append(fields, PyList_GET_ITEM(pair, 0), PyList_GET_ITEM(pair, 1), what);
    }
#endif
    PyObject *items = PyUnicode_Check(pair) || PyBytes_Check(pair) ? NULL : PySequence_Tuple(pair);
    if (items == NULL || PyTuple_GET_SIZE(items) != 2) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "Each of the headers in '%s' must be a pair (name, value) of bytes, got %R.", what, pair);
        }
        Py_XDECREF(items);
        return -1;
    }
    int result = fields_append(fields, PyTuple_GET_ITEM(items, 0), PyTuple_GET_ITEM(items, 1), what);
    Py_DECREF(items);
    return result;
}

int fields_collect(Fields *fields, PyObject *pairs, const char *what)
{
    fields_init(fields);
    if (pairs == NULL) {
        return 0;
    }
#ifdef Py_GIL_DISABLED
    PyObject *sequence = PySequence_Tuple(pairs); /* another thread may change a list */
#else
    PyObject *sequence = PySequence_Fast(pairs, "");
#endif
    if (sequence == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "'headers' in '%s' must be an iterable of pairs (name, value) of bytes, got %s.",
                         what, Py_TYPE(pairs)->tp_name);
        }
        return -1;
    }
    /* The size is read again each time: an error's repr() may run code that changes the list. */
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); i++) {
        PyObject *pair = Py_NewRef(PySequence_Fast_GET_ITEM(sequence, i));
        int result = append_pair(fields, pair, what);
        Py_DECREF(pair);
        if (result < 0) {
            Py_DECREF(sequence);
            fields_clear(fields);
            return -1;
        }
    }
    Py_DECREF(sequence);
    return 0;
}

/* Names go out in lower case, as HTTP/2 demands (RFC 9113 8.2.1). */
uint8_t *fields_write(const Fields *fields, uint8_t *to)
{
    for (Py_ssize_t i = 0; i < fields->count; i++) {
        PyObject *name = fields->items[i].name, *value = fields->items[i].value;
        uint32_t name_length = (uint32_t)PyBytes_GET_SIZE(name), value_length = (uint32_t)PyBytes_GET_SIZE(value);
        put32(to, name_length);
        put32(to + 4, value_length);
        to += FIELD_HEADER;
        const uint8_t *from = (const uint8_t *)PyBytes_AS_STRING(name);
        if (fields->items[i].mixed) {
            for (uint32_t j = 0; j < name_length; j++) {
                to[j] = token[from[j]];
            }
        } else {
            memcpy(to, from, name_length);
        }
        to += name_length;
        memcpy(to, PyBytes_AS_STRING(value), value_length);
        to += value_length;
    }
    return to;
}
