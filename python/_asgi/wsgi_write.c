/* Writing: the blocks of the answer, and the call's end.
 *
 * The head waits for the first block that is not empty, as PEP 3333 has it, and goes out with it in
 * one record. Each block is published before the app makes the next. With a Content-Length the block that
 * completes it ends the answer for the client at once, whatever the app does afterwards.
 */
#include "wsgi.h"

/* No chunk smaller than this, unless it is the last: many tiny records would cost more than waiting. */
#define SMALLEST_CHUNK 4096

/* A block on its way: what is left of it. */
typedef struct {
    const uint8_t *head; /* NULL once it is written */
    size_t head_size;
    const uint8_t *bytes;
    size_t size;
    uint16_t flags;      /* of the record that ends it */
    bool empty;          /* a record is due although there are no bytes */
} Block;

typedef enum { WRITE_DONE, WRITE_WAIT_ROOM, WRITE_WAIT_WINDOW, WRITE_GONE } WriteResult;

uint8_t *exchange_reserve(Exchange *call, uint64_t payload, uint16_t type, uint16_t flags)
{
    uint8_t *record = outbox_reserve(call->out, payload, type, flags, call->id);
    if (record == NULL) {
        outbox_want_room(call->out);
        /* The consumer may have made room between the look and the wish for it. */
        record = outbox_reserve(call->out, payload, type, flags, call->id);
    }
    return record;
}

void exchange_wait_room(Exchange *call)
{
    Pool *pool = call->pool;
    pool->room_waiters++;
    pthread_cond_wait(&pool->room, &pool->lock);
    pool->room_waiters--;
}

static void publish(Exchange *call)
{
    outbox_publish(call->out);
    outbox_ring(call->out);
}

/* Under the lock, attached: how many of `want` bytes of body fit behind `before` bytes in one record and in the window; 0 may mean: wait. */
static size_t fitting(const Exchange *call, size_t want, size_t before)
{
    size_t room = link_window(call->pool->link, call->window, call->window_used);
    if (want > room) {
        want = room < SMALLEST_CHUNK ? 0 : room;
    }
    size_t most = outbox_max_payload(call->out) - before;
    return want < most ? want : most;
}

/* Under the lock: writes as much of a block as can be. */
static WriteResult try_write(Exchange *call, Block *block)
{
    while (block->head != NULL || block->size > 0 || block->empty) {
        if (call->over || call->disconnected || call->cancelled || call->pool->detached) {
            return WRITE_GONE;
        }
        bool head = block->head != NULL;
        size_t fixed = head ? block->head_size : SPVN_BODY_FIXED_SIZE;
        size_t n = fitting(call, block->size, fixed);
        if (n == 0 && block->size > 0 && !head) {
            publish(call);
            return WRITE_WAIT_WINDOW;
        }
        uint16_t flags = n == block->size ? block->flags : 0;
        uint8_t *record = exchange_reserve(call, fixed + n, head ? SPVN_RESPONSE : SPVN_RESPONSE_BODY, flags);
        if (record == NULL) {
            return WRITE_WAIT_ROOM;
        }
        uint8_t *payload = record + SPVN_RECORD_HEADER_SIZE;
        if (head) {
            memcpy(payload, block->head, block->head_size);
            put32(payload + SPVN_RESPONSE_BODY_LENGTH, (uint32_t)n);
            block->head = NULL;
        } else {
            put64(payload, n); /* u32 length, u32 0 */
        }
        memcpy(payload + fixed, block->bytes, n);
        block->bytes += n;
        block->size -= n;
        block->empty = false;
        call->window_used += (uint32_t)n;
        if (block->size == 0) {
            /* Who reads in another thread will get no more. */
            call->complete = (flags & SPVN_FLAG_LAST) != 0;
            if (call->complete) {
                exchange_wake(call);
            }
            if (flags & SPVN_FLAG_DONE) {
                pool_forget(call);
            }
        }
    }
    publish(call);
    return WRITE_DONE;
}

static int write_block(Exchange *call, Block *block)
{
    Pool *pool = call->pool;
    WriteResult result = WRITE_WAIT_ROOM;
    if (block->size <= SPVN_SEND_WINDOW_STREAM) { /* more is not copied with the GIL in hand */
        pthread_mutex_lock(&pool->lock);
        result = try_write(call, block);
        pthread_mutex_unlock(&pool->lock);
    }
    if (result == WRITE_WAIT_ROOM || result == WRITE_WAIT_WINDOW) {
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&pool->lock);
        while ((result = try_write(call, block)) == WRITE_WAIT_ROOM || result == WRITE_WAIT_WINDOW) {
            if (result == WRITE_WAIT_ROOM) {
                exchange_wait_room(call);
            } else {
                pthread_cond_wait(&call->changed, &pool->lock);
            }
        }
        pthread_mutex_unlock(&pool->lock);
        Py_END_ALLOW_THREADS
    }
    if (result == WRITE_GONE) {
        exchange_gone(call);
        return -1;
    }
    return 0;
}

int exchange_enter(Exchange *call)
{
    if (pool_check_fork(call->pool) < 0) {
        return -1;
    }
    if (atomic_exchange(&call->writing, true)) {
        PyErr_SetString(PyExc_RuntimeError, "Another thread is writing this call's answer.");
        return -1;
    }
    return 0;
}

void exchange_leave(Exchange *call) { atomic_store(&call->writing, false); }

/* The head with a content-length behind its fields. */
static PyObject *with_length(PyObject *head, size_t length)
{
    char number[24];
    int digits = snprintf(number, sizeof number, "%zu", length);
    Py_ssize_t size = PyBytes_GET_SIZE(head);
    PyObject *whole = PyBytes_FromStringAndSize(NULL, size + 8 + 14 + digits);
    if (whole != NULL) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(whole);
        memcpy(to, PyBytes_AS_STRING(head), (size_t)size);
        put32(to + SPVN_RESPONSE_FIELD_COUNT, get32(to + SPVN_RESPONSE_FIELD_COUNT) + 1);
        put32(to + SPVN_RESPONSE_FIELD_BYTES, get32(to + SPVN_RESPONSE_FIELD_BYTES) + 8 + 14 + (uint32_t)digits);
        to += size;
        put32(to, 14);
        put32(to + 4, (uint32_t)digits);
        memcpy(to + 8, "content-length", 14);
        memcpy(to + 22, number, (size_t)digits);
    }
    return whole;
}

/* A new reference to bytes. */
static PyObject *block_bytes(PyObject *body)
{
    if (PyBytes_CheckExact(body)) {
        return Py_NewRef(body);
    }
    if (PyObject_CheckBuffer(body)) {
        return PyBytes_FromObject(body);
    }
    PyErr_Format(PyExc_TypeError, "A WSGI app must send bytes, got %s.", Py_TYPE(body)->tp_name);
    return NULL;
}

static int too_long(Exchange *call)
{
    PyErr_Format(PyExc_RuntimeError, "Response content longer than Content-Length (%lld)",
                 (long long)call->content_length);
    return -1;
}

/* Sends a block of an answer; with last it is the last, with done the app has returned. Steals body. */
static int send_block(Exchange *call, PyObject *body, bool last, bool done)
{
    Block block = {.bytes = (const uint8_t *)PyBytes_AS_STRING(body), .size = (size_t)PyBytes_GET_SIZE(body)};
    size_t whole = block.size;
    bool excess = false;
    int result = -1;
    if (call->over) {
        PyErr_SetString(PyExc_RuntimeError, "The call is over: nothing more can be sent.");
        goto out;
    }
    if (call->head == NULL) {
        PyErr_SetString(PyExc_AssertionError, last ? "The WSGI app returned without calling start_response()."
                                                   : "The WSGI app sent a body before it called start_response().");
        goto out;
    }
    if (call->complete) {
        result = whole > 0 && !call->bodyless ? too_long(call) : 0;
        goto out;
    }
    if (call->content_left >= 0) {
        excess = block.size > (uint64_t)call->content_left;
        if (excess) {
            block.size = (size_t)call->content_left;
        }
        if (last && block.size < (uint64_t)call->content_left) {
            PyErr_Format(PyExc_RuntimeError, "Response content shorter than Content-Length (%lld)",
                         (long long)call->content_length);
            goto out;
        }
        call->content_left -= (int64_t)block.size;
    }
    if (!last && whole == 0) {
        result = 0;
        goto out;
    }
    if (call->bodyless) {
        block.size = 0;
    }
    bool complete = last || call->bodyless || call->content_left == 0;
    if (complete) {
        block.flags = (uint16_t)(SPVN_FLAG_LAST | (done && !excess ? SPVN_FLAG_DONE : 0));
        block.empty = true;
    }
    PyObject *head = NULL;
    if (!call->head_sent) {
        /* The only block says how long the answer is; to HEAD, too, unless the app left it out there. */
        bool measured = last && call->content_length < 0 && call->status != 204 && call->status != 304 &&
                        (whole > 0 || !call->head_method);
        head = measured ? with_length(call->head, whole) : Py_NewRef(call->head);
        if (head == NULL) {
            goto out;
        }
        block.head = (const uint8_t *)PyBytes_AS_STRING(head);
        block.head_size = (size_t)PyBytes_GET_SIZE(head);
        call->head_sent = true;
        if (complete) {
            call->window = SPVN_SEND_WINDOW_COMPLETE;
        }
    }
    result = write_block(call, &block);
    Py_XDECREF(head);
    if (result == 0 && excess) {
        result = too_long(call);
    }
out:
    Py_DECREF(body);
    return result;
}

/* Writes the record that ends the call, when nothing says so yet. */
static void end(Exchange *call, uint16_t type)
{
    Pool *pool = call->pool;
    pthread_mutex_lock(&pool->lock);
    bool written = call->over || pool->detached || exchange_reserve(call, 0, type, 0) != NULL;
    if (!written) {
        pthread_mutex_unlock(&pool->lock);
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&pool->lock);
        while (!pool->detached && exchange_reserve(call, 0, type, 0) == NULL) {
            exchange_wait_room(call);
        }
        if (!pool->detached) {
            publish(call);
        }
        pool_forget(call);
        exchange_wake(call);
        pthread_mutex_unlock(&pool->lock);
        Py_END_ALLOW_THREADS
        return;
    }
    if (!call->over) {
        if (!pool->detached) {
            publish(call);
        }
        pool_forget(call);
        exchange_wake(call);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* Methods. */

static int send_one(Exchange *call, PyObject *object)
{
    PyObject *body = block_bytes(object);
    if (body == NULL) {
        return -1;
    }
    if (exchange_enter(call) < 0) {
        Py_DECREF(body);
        return -1;
    }
    int result = send_block(call, body, false, false);
    exchange_leave(call);
    return result;
}

PyObject *exchange_write(PyObject *self, PyObject *object)
{
    if (send_one((Exchange *)self, object) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *exchange_send(PyObject *self, PyObject *object)
{
    Exchange *call = (Exchange *)self;
    return send_one(call, object) < 0 ? NULL : PyBool_FromLong(call->bodyless && call->complete);
}

PyObject *exchange_finish(PyObject *self, PyObject *args)
{
    Exchange *call = (Exchange *)self;
    PyObject *object = NULL;
    int done = 0;
    if (!PyArg_ParseTuple(args, "|Op:finish", &object, &done)) {
        return NULL;
    }
    PyObject *body = object == NULL ? PyBytes_FromStringAndSize(NULL, 0) : block_bytes(object);
    if (body == NULL) {
        return NULL;
    }
    if (exchange_enter(call) < 0) {
        Py_DECREF(body);
        return NULL;
    }
    int result = send_block(call, body, true, done);
    exchange_leave(call);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *exchange_done(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Exchange *call = (Exchange *)self;
    if (pool_check_fork(call->pool) < 0) {
        return NULL;
    }
    end(call, call->complete ? SPVN_CALL_DONE : SPVN_CALL_FAILED);
    Py_RETURN_NONE;
}

PyObject *exchange_fail(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Exchange *call = (Exchange *)self;
    if (pool_check_fork(call->pool) < 0) {
        return NULL;
    }
    end(call, SPVN_CALL_FAILED);
    Py_RETURN_NONE;
}
