/* The app's timers, as far as they go over the link: what the worker asks for, and what is due.
 *
 * Strategy: the core keeps the timers; spvn.schedule has the functions. A due time comes as a
 * record with a call slot, which is claimed like a call's before on_timer hears of it, so that
 * a due time that the core gave to another worker meanwhile is never run here. What
 * on_timer starts ends with timer_done. Timers and calls share nothing but the slots.
 */
#include "asgi.h"

/* The longest time that the core takes, and far above any use: sums with a clock do not overflow. */
#define MOST_SECONDS 3.0e9

int timer_due(Link *link, Inbox *in, const uint8_t *record, uint32_t length)
{
    const uint8_t *payload = record + SPVN_RECORD_HEADER_SIZE;
    uint64_t id = get64(record + SPVN_RECORD_CALL);
    uint32_t rest = length - SPVN_RECORD_HEADER_SIZE;
    if (rest < SPVN_TIMER_FIXED_SIZE || (uint32_t)id >= link->slots) {
        return link_corrupt(link, "a timer does not fit");
    }
    rest -= SPVN_TIMER_FIXED_SIZE;
    uint32_t key_length = get32(payload + SPVN_TIMER_KEY_LENGTH), data_length = get32(payload + SPVN_TIMER_DATA_LENGTH);
    if (key_length > rest || data_length > rest - key_length) {
        return link_corrupt(link, "a timer does not fit");
    }
    const char *key = (const char *)payload + SPVN_TIMER_FIXED_SIZE;
    PyObject *arguments = Py_BuildValue("(KKdy#y#)", (unsigned long long)id, (unsigned long long)get64(payload + SPVN_TIMER_NUMBER),
                                        (double)(int64_t)get64(payload + SPVN_TIMER_DUE) / 1e9, key, (Py_ssize_t)key_length,
                                        key + key_length, (Py_ssize_t)data_length);
    if (arguments == NULL) {
        return -1; /* out of memory: still offered, another worker gets it */
    }
    inbox_advance(in, length);
    int result = 0;
    /* Without on_timer nobody here has set a timer; the core takes it back. */
    if (link->on_timer != NULL && slot_claim(link, id, monotonic_ns())) {
        PyObject *returned = PyObject_CallObject(link->on_timer, arguments);
        result = returned != NULL ? 0 : -1;
        Py_XDECREF(returned);
    }
    Py_DECREF(arguments);
    return result;
}

static int nanoseconds(double seconds, const char *what, uint64_t *result)
{
    if (!(seconds >= 0) || seconds > MOST_SECONDS) { /* NaN too */
        PyErr_Format(PyExc_ValueError, "%s must be between 0 and 3e9 seconds.", what);
        return -1;
    }
    *result = (uint64_t)(seconds * 1e9);
    return 0;
}

static PyObject *send(Link *link, uint16_t type, PyObject *payload)
{
    int failed = payload == NULL || link_control(link, type, payload) < 0;
    Py_XDECREF(payload);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *timer_set(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"key", "data", "interval", "first", "jitter", "all", "overlap", "local", "any", NULL};
    Link *link = (Link *)self;
    const char *key, *data;
    Py_ssize_t key_length, data_length;
    double interval, first, jitter;
    int all = 0, overlap = 0, local = 0, any = 0;
    uint64_t interval_ns, first_ns, jitter_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#y#ddd|$pppp:timer_set", keywords, &key, &key_length, &data, &data_length,
                                     &interval, &first, &jitter, &all, &overlap, &local, &any) ||
        nanoseconds(interval, "interval", &interval_ns) < 0 || nanoseconds(first, "first", &first_ns) < 0 ||
        nanoseconds(jitter, "jitter", &jitter_ns) < 0 || link_usable_here(link) < 0) {
        return NULL;
    }
    Py_ssize_t most = (Py_ssize_t)outbox_max_payload(&link->outboxes[0]) - SPVN_TIMER_SET_FIXED_SIZE;
    if (key_length > most || data_length > most - key_length) {
        PyErr_Format(PyExc_ValueError, "A timer's key and data may take %zd bytes, got %zd.", most, key_length + data_length);
        return NULL;
    }
    PyObject *payload = PyBytes_FromStringAndSize(NULL, SPVN_TIMER_SET_FIXED_SIZE + key_length + data_length);
    if (payload != NULL) {
        uint8_t *p = (uint8_t *)PyBytes_AS_STRING(payload);
        memset(p, 0, SPVN_TIMER_SET_FIXED_SIZE);
        put64(p + SPVN_TIMER_SET_INTERVAL, interval_ns);
        put64(p + SPVN_TIMER_SET_FIRST, first_ns);
        put64(p + SPVN_TIMER_SET_JITTER, jitter_ns);
        put32(p + SPVN_TIMER_SET_FLAGS, (all ? SPVN_TIMER_ALL : 0) | (overlap ? SPVN_TIMER_OVERLAP : 0) |
                                            (local ? SPVN_TIMER_LOCAL : 0) | (any ? SPVN_TIMER_ANY : 0));
        put32(p + SPVN_TIMER_SET_KEY_LENGTH, (uint32_t)key_length);
        put32(p + SPVN_TIMER_SET_DATA_LENGTH, (uint32_t)data_length);
        memcpy(p + SPVN_TIMER_SET_FIXED_SIZE, key, (size_t)key_length);
        memcpy(p + SPVN_TIMER_SET_FIXED_SIZE + key_length, data, (size_t)data_length);
    }
    return send(link, SPVN_TIMER_SET, payload);
}

PyObject *timer_cancel(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"key", "local", NULL};
    Link *link = (Link *)self;
    const char *key;
    Py_ssize_t length;
    int local = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y#|$p:timer_cancel", keywords, &key, &length, &local) ||
        link_usable_here(link) < 0) {
        return NULL;
    }
    Py_ssize_t most = (Py_ssize_t)outbox_max_payload(&link->outboxes[0]) - 8;
    if (length > most) {
        PyErr_Format(PyExc_ValueError, "A timer's key may take %zd bytes, got %zd.", most, length);
        return NULL;
    }
    PyObject *payload = PyBytes_FromStringAndSize(NULL, 8 + length);
    if (payload != NULL) {
        uint8_t *p = (uint8_t *)PyBytes_AS_STRING(payload);
        put32(p, local ? SPVN_TIMER_LOCAL : 0);
        put32(p + 4, (uint32_t)length);
        memcpy(p + 8, key, (size_t)length);
    }
    return send(link, SPVN_TIMER_CANCEL, payload);
}

PyObject *timer_done(PyObject *self, PyObject *args)
{
    Link *link = (Link *)self;
    unsigned long long id;
    int failed;
    if (!PyArg_ParseTuple(args, "Kp:timer_done", &id, &failed) || link_usable_here(link) < 0) {
        return NULL;
    }
    PyObject *payload = PyBytes_FromStringAndSize(NULL, 16);
    if (payload != NULL) {
        put64((uint8_t *)PyBytes_AS_STRING(payload), id);
        put64((uint8_t *)PyBytes_AS_STRING(payload) + 8, failed ? 1 : 0);
    }
    return send(link, SPVN_TIMER_DONE, payload);
}
