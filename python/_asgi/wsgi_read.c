/* Reading: the request's body, as the app asks for it.
 *
 * The core forwards a window of it; what is read is credited, and only then does the core read more from the
 * client. So an upload is as fast as the app, and takes no more memory than the window.
 */
#include "wsgi.h"

/* Under the lock: asks for the body, and gives credit. False: there is no room for that now. */
static bool write_due(Exchange *call)
{
    if (call->want_body) {
        if (exchange_reserve(call, 0, SPVN_WANT_BODY, 0) == NULL) {
            return false;
        }
        call->want_body = false;
    }
    if (call->credit_due > 0) {
        uint8_t *record = exchange_reserve(call, 8, SPVN_BODY_CREDIT, 0);
        if (record == NULL) {
            return false;
        }
        put64(record + SPVN_RECORD_HEADER_SIZE, call->credit_due);
        call->credit_due = 0;
    }
    outbox_publish(call->out);
    outbox_ring(call->out);
    return true;
}

/* Under the lock. */
static size_t take(Exchange *call, uint8_t *to, size_t size)
{
    size_t taken = 0;
    while (taken < size && call->first != NULL) {
        Piece *piece = call->first;
        size_t n = piece->length - piece->at;
        if (n > size - taken) {
            n = size - taken;
        }
        memcpy(to + taken, piece->bytes + piece->at, n);
        taken += n;
        piece->at += (uint32_t)n;
        if (piece->at == piece->length) {
            call->first = piece->next;
            if (call->first == NULL) {
                call->last = NULL;
            }
            PyMem_RawFree(piece);
        }
    }
    call->credit_due += taken;
    return taken;
}

typedef enum { READ_DONE, READ_WAIT_ROOM, READ_WAIT_BODY, READ_GONE } ReadResult;

/* Under the lock. */
static ReadResult try_read(Exchange *call, uint8_t *to, size_t size, size_t *taken)
{
    if (call->over || call->complete || call->disconnected || call->cancelled || call->pool->detached) {
        return READ_GONE;
    }
    *taken = take(call, to, size);
    bool due = call->want_body ||
               (call->credit_due > 0 && (call->first == NULL || call->credit_due >= SPVN_BODY_WINDOW / 4));
    bool written = !due || write_due(call);
    if (*taken > 0 || (call->body_last && call->first == NULL)) {
        return READ_DONE; /* credit that found no room comes with the next read's */
    }
    return written ? READ_WAIT_BODY : READ_WAIT_ROOM;
}

PyObject *exchange_readinto(PyObject *self, PyObject *object)
{
    Exchange *call = (Exchange *)self;
    Pool *pool = call->pool;
    Py_buffer buffer;
    if (pool_check_fork(pool) < 0 || PyObject_GetBuffer(object, &buffer, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    size_t taken = 0;
    pthread_mutex_lock(&pool->lock);
    ReadResult result = buffer.len == 0 ? READ_DONE : try_read(call, buffer.buf, (size_t)buffer.len, &taken);
    pthread_mutex_unlock(&pool->lock);
    if (result == READ_WAIT_ROOM || result == READ_WAIT_BODY) {
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&pool->lock);
        while ((result = try_read(call, buffer.buf, (size_t)buffer.len, &taken)) == READ_WAIT_ROOM ||
               result == READ_WAIT_BODY) {
            if (result == READ_WAIT_ROOM) {
                exchange_wait_room(call);
            } else {
                pthread_cond_wait(&call->changed, &pool->lock);
            }
        }
        pthread_mutex_unlock(&pool->lock);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&buffer);
    if (result == READ_GONE) {
        pthread_mutex_lock(&pool->lock);
        bool answered = (call->over || call->complete) && !call->disconnected;
        pthread_mutex_unlock(&pool->lock);
        if (answered) {
            PyErr_SetString(PyExc_OSError, "The rest of the request's body cannot be read: it was answered already.");
        } else {
            exchange_gone(call);
        }
        return NULL;
    }
    return PyLong_FromSize_t(taken);
}
