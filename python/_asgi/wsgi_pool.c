/* Pool: the threads that run a WSGI app, as far as they share something. The threads themselves are
 * Python's (spvn/wsgi.py): each calls next() for a call, runs the app, and comes back. */
#include "wsgi.h"

/* Starts that the core took back stay in the list until a thread comes by. Beyond twice as many as
 * can stand at the last look, and this, they are looked for. */
#define SWEEP_FROM 128

static _Atomic uint64_t *slot_word(Pool *pool, uint64_t id)
{
    uint8_t *slot = pool->link->slot_table + (size_t)(uint32_t)id * SPVN_SLOT_SIZE;
    return (_Atomic uint64_t *)(void *)(slot + SPVN_SLOT_WORD);
}

static uint64_t word_of(uint64_t id, unsigned state) { return (id & ~(uint64_t)UINT32_MAX) | state; }

bool pool_forked(Pool *pool)
{
    Link *link = pool->link; /* never changes once a thread has got a call */
    return link != NULL && (*link->fork_guard == 0 || (link->pid != 0 && link->pid != (long)getpid()));
}

int pool_check_fork(Pool *pool)
{
    if (pool_forked(pool)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This process was forked from a worker: only the worker itself can answer its calls.");
        return -1;
    }
    return 0;
}

/* Under the lock. */

static Pending *pop(Pool *pool)
{
    Pending *pending = pool->first;
    if (pending != NULL) {
        pool->first = pending->next;
        if (pool->first == NULL) {
            pool->last = NULL;
        }
        pool->pending--;
    }
    return pending;
}

/* Claims the first start that still stands. The core relies on the order: claims are made in that of the offers. */
static Pending *claim_next(Pool *pool, Exchange *call)
{
    while (!pool->detached && pool->first != NULL) {
        Pending *pending = pop(pool);
        _Atomic uint64_t *word = slot_word(pool, pending->id);
        uint64_t offered = word_of(pending->id, SPVN_SLOT_OFFERED);
        /* Looked at first: the slot may be another call's by now, whose stamp is not ours to write. */
        if (*word == offered) {
            uint8_t *slot = pool->link->slot_table + (size_t)(uint32_t)pending->id * SPVN_SLOT_SIZE;
            *(_Atomic uint64_t *)(void *)(slot + SPVN_SLOT_CLAIMED_AT) = monotonic_ns();
            if (atomic_compare_exchange_strong(word, &offered, word_of(pending->id, SPVN_SLOT_CLAIMED))) {
                call->id = pending->id;
                call->out = &pool->link->outboxes[pending->loop];
                call->over = false;
                pool->calls[(uint32_t)pending->id] = call;
                pool->running++;
                return pending;
            }
        }
        PyMem_RawFree(pending);
    }
    return NULL;
}

static void wake_one(Pool *pool)
{
    Idle *idle = pool->idle;
    if (idle != NULL) {
        pool->idle = idle->next;
        pool->idle_count--;
        idle->awake = true;
        pthread_cond_signal(&idle->woken);
    }
}

static void sweep(Pool *pool)
{
    Pending **at = &pool->first;
    pool->last = NULL;
    while (*at != NULL) {
        Pending *pending = *at;
        if (*slot_word(pool, pending->id) == word_of(pending->id, SPVN_SLOT_OFFERED)) {
            pool->last = pending;
            at = &pending->next;
        } else {
            *at = pending->next;
            pool->pending--;
            PyMem_RawFree(pending);
        }
    }
    pool->sweep_at = pool->pending * 2 > SWEEP_FROM ? pool->pending * 2 : SWEEP_FROM;
}

void pool_forget(Exchange *call)
{
    Pool *pool = call->pool;
    call->over = true;
    if (pool->calls != NULL && pool->calls[(uint32_t)call->id] == call) {
        pool->calls[(uint32_t)call->id] = NULL;
        pool->running--;
    }
}

/* On the loop's thread. */

int pool_attach(Pool *pool, Link *link)
{
    if (pool->link != NULL || pool->environ == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "A Pool serves one Link, and must be initialised before.");
        return -1;
    }
    Exchange **calls = PyMem_RawCalloc(link->slots, sizeof *calls);
    if (calls == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    pthread_mutex_lock(&pool->lock);
    pool->link = (Link *)Py_NewRef((PyObject *)link);
    pool->calls = calls;
    pool->detached = false;
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

static void drop_pending(Pool *pool)
{
    for (Pending *pending; (pending = pop(pool)) != NULL;) {
        PyMem_RawFree(pending);
    }
}

void pool_detach(Pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->detached = true;
    pool->closed = true;
    drop_pending(pool);
    while (pool->idle != NULL) {
        wake_one(pool);
    }
    pthread_cond_broadcast(&pool->room);
    for (uint32_t i = 0; pool->running > 0 && i < pool->link->slots; i++) {
        if (pool->calls[i] != NULL) {
            pool->calls[i]->disconnected = true;
            exchange_wake(pool->calls[i]);
        }
    }
    pthread_mutex_unlock(&pool->lock);
}

int pool_start(Pool *pool, uint32_t loop, const uint8_t *record, uint32_t length)
{
    length -= SPVN_RECORD_HEADER_SIZE;
    Pending *pending = PyMem_RawMalloc(sizeof *pending + length);
    if (pending == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    pending->next = NULL;
    pending->id = get64(record + SPVN_RECORD_CALL);
    pending->loop = loop;
    pending->flags = get16(record + SPVN_RECORD_FLAGS);
    pending->length = length;
    memcpy(pending->payload, record + SPVN_RECORD_HEADER_SIZE, length);
    pthread_mutex_lock(&pool->lock);
    if (pool->pending >= pool->sweep_at) {
        sweep(pool);
    }
    if (pool->last != NULL) {
        pool->last->next = pending;
    } else {
        pool->first = pending;
    }
    pool->last = pending;
    pool->pending++;
    wake_one(pool);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

/* The call of a record, under the lock; NULL for one that is over. */
static Exchange *find(Pool *pool, uint64_t id)
{
    Exchange *call = (uint32_t)id < pool->link->slots ? pool->calls[(uint32_t)id] : NULL;
    return call != NULL && call->id == id ? call : NULL;
}

/* Small pieces have room for more: what one costs beside its bytes is no business of the client's. */
#define LEAST_ROOM 4096

/* Puts bytes behind what was not read. The pool's lock is held. */
static int add_piece(Exchange *call, const uint8_t *bytes, uint32_t size)
{
    Piece *last = call->last;
    if (last == NULL || last->room - last->length < size) {
        uint32_t room = size < LEAST_ROOM && last != NULL ? LEAST_ROOM : size;
        Piece *piece = PyMem_RawMalloc(sizeof *piece + room);
        if (piece == NULL) {
            return -1;
        }
        *piece = (Piece){.room = room};
        if (last != NULL) {
            last->next = piece;
        } else {
            call->first = piece;
        }
        call->last = last = piece;
    }
    memcpy(last->bytes + last->length, bytes, size);
    last->length += size;
    return 0;
}

static int take_body(Pool *pool, uint64_t id, const uint8_t *payload, uint32_t length, bool last)
{
    uint32_t size = length >= SPVN_BODY_FIXED_SIZE ? get32(payload + SPVN_BODY_LENGTH) : 0;
    if (length < SPVN_BODY_FIXED_SIZE || size > length - SPVN_BODY_FIXED_SIZE) {
        return -1;
    }
    int result = 0;
    pthread_mutex_lock(&pool->lock);
    Exchange *call = find(pool, id);
    if (call != NULL && !call->body_last) {
        result = size > 0 ? add_piece(call, payload + SPVN_BODY_BYTES, size) : 0;
        call->body_last = last && result == 0;
        call->disconnected = call->disconnected || result < 0; /* what was lost is never missing from what it reads */
        exchange_wake(call);
    }
    pthread_mutex_unlock(&pool->lock);
    if (result < 0) {
        PyErr_NoMemory();
    }
    return result;
}

int pool_record(Pool *pool, const uint8_t *record, uint32_t length)
{
    uint16_t type = get16(record + SPVN_RECORD_TYPE), flags = get16(record + SPVN_RECORD_FLAGS);
    uint64_t id = get64(record + SPVN_RECORD_CALL);
    const uint8_t *payload = record + SPVN_RECORD_HEADER_SIZE;
    length -= SPVN_RECORD_HEADER_SIZE;
    if (type == SPVN_BODY) {
        return take_body(pool, id, payload, length, (flags & SPVN_FLAG_LAST) != 0);
    }
    pthread_mutex_lock(&pool->lock);
    Exchange *call = find(pool, id);
    if (call != NULL && type == SPVN_SEND_WINDOW) {
        uint64_t bytes = length >= 8 ? get64(payload) : 0;
        call->window_used -= bytes < call->window_used ? (uint32_t)bytes : call->window_used;
        exchange_wake(call);
    } else if (call != NULL && type == SPVN_DISCONNECT) {
        call->disconnected = true;
        exchange_wake(call);
        pthread_cond_broadcast(&pool->room);
    }
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

void pool_room(Pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    if (pool->room_waiters > 0) {
        pthread_cond_broadcast(&pool->room);
    }
    pthread_mutex_unlock(&pool->lock);
}

size_t pool_calls(Pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    size_t running = pool->running;
    pthread_mutex_unlock(&pool->lock);
    return running;
}

size_t pool_cancel(Pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; pool->running > 0 && i < pool->link->slots; i++) {
        if (pool->calls[i] != NULL) {
            pool->calls[i]->cancelled = true;
            exchange_wake(pool->calls[i]);
        }
    }
    pthread_cond_broadcast(&pool->room);
    size_t running = pool->running;
    pthread_mutex_unlock(&pool->lock);
    return running;
}

/* Methods. */

static Pending *wait_for_call(Pool *pool, Exchange *call)
{
    Idle me = {.awake = false};
    Pending *pending = NULL;
    pthread_cond_init(&me.woken, NULL);
    pthread_mutex_lock(&pool->lock);
    while (!pool->closed && (pending = claim_next(pool, call)) == NULL) {
        me.awake = false;
        me.next = pool->idle;
        pool->idle = &me;
        pool->idle_count++;
        while (!me.awake) {
            pthread_cond_wait(&me.woken, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_destroy(&me.woken);
    return pending;
}

static PyObject *pool_next(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Pool *pool = (Pool *)self;
    if (pool_check_fork(pool) < 0) {
        return NULL;
    }
    Exchange *call = exchange_new(pool);
    if (call == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&pool->lock);
    Pending *pending = pool->closed ? NULL : claim_next(pool, call);
    pthread_mutex_unlock(&pool->lock);
    if (pending == NULL) {
        Py_BEGIN_ALLOW_THREADS
        pending = wait_for_call(pool, call);
        Py_END_ALLOW_THREADS
    }
    if (pending == NULL) {
        Py_DECREF(call);
        Py_RETURN_NONE;
    }
    PyObject *environ = exchange_begin(call, pending);
    PyMem_RawFree(pending);
    PyObject *pair = environ == NULL ? NULL : PyTuple_Pack(2, (PyObject *)call, environ);
    Py_XDECREF(environ);
    if (pair == NULL) {
        PyObject *exception = error_take();
        exchange_abandon(call);
        error_give(exception);
    }
    Py_DECREF(call);
    return pair;
}

static PyObject *pool_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Pool *pool = (Pool *)self;
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    while (pool->idle != NULL) {
        wake_one(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    Py_RETURN_NONE;
}

static PyObject *get_idle(PyObject *self, void *Py_UNUSED(closure))
{
    Pool *pool = (Pool *)self;
    pthread_mutex_lock(&pool->lock);
    size_t idle = pool->idle_count;
    pthread_mutex_unlock(&pool->lock);
    return PyLong_FromSize_t(idle);
}

static PyObject *get_pending(PyObject *self, void *Py_UNUSED(closure))
{
    Pool *pool = (Pool *)self;
    pthread_mutex_lock(&pool->lock);
    size_t pending = pool->pending;
    pthread_mutex_unlock(&pool->lock);
    return PyLong_FromSize_t(pending);
}

/* Life. */

static PyObject *pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Pool *pool = (Pool *)type->tp_alloc(type, 0);
    if (pool != NULL) {
        pthread_mutex_init(&pool->lock, NULL);
        pthread_cond_init(&pool->room, NULL);
        pool->detached = true;
        pool->sweep_at = SWEEP_FROM;
    }
    return (PyObject *)pool;
}

static int pool_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"environ", "make_input", "threads", NULL};
    Pool *pool = (Pool *)self;
    PyObject *environ, *make_input;
    int threads;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!Oi:Pool", keywords, &PyDict_Type, &environ, &make_input,
                                     &threads)) {
        return -1;
    }
    if (threads < 1) {
        PyErr_Format(PyExc_ValueError, "A Pool needs at least one thread, got %d.", threads);
        return -1;
    }
    if (pool->environ != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "A Pool is initialised once.");
        return -1;
    }
    State *state = PyType_GetModuleState(Py_TYPE(self));
    if (state == NULL) {
        PyErr_SetString(PyExc_TypeError, "Pool cannot be subclassed."); /* a subclass's module is another one */
        return -1;
    }
    pool->exchange_type = (PyTypeObject *)Py_NewRef((PyObject *)state->exchange_type);
    PyObject *io = PyImport_ImportModule("io");
    pool->bytes_io = io == NULL ? NULL : PyObject_GetAttrString(io, "BytesIO");
    Py_XDECREF(io);
    if (pool->bytes_io == NULL || environ_prepare(pool) < 0) {
        return -1;
    }
    pool->make_input = Py_NewRef(make_input);
    pool->threads = (unsigned)threads;
    pool->environ = PyDict_Copy(environ);
    return pool->environ == NULL ? -1 : 0;
}

static int pool_traverse(PyObject *self, visitproc visit, void *arg)
{
    Pool *pool = (Pool *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(pool->link);
    Py_VISIT(pool->environ);
    Py_VISIT(pool->make_input);
    Py_VISIT(pool->bytes_io);
    Py_VISIT(pool->exchange_type);
    return 0;
}

/* Nothing reaches the pool any more, so no thread is in it. The link is kept to the last: its memory is ours too. */
static int pool_clear(PyObject *self)
{
    Pool *pool = (Pool *)self;
    Py_CLEAR(pool->environ);
    Py_CLEAR(pool->make_input);
    Py_CLEAR(pool->bytes_io);
    Py_CLEAR(pool->exchange_type);
    pool->detached = true;
    Py_CLEAR(pool->link);
    return 0;
}

static void pool_dealloc(PyObject *self)
{
    Pool *pool = (Pool *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pool_clear(self);
    environ_clear(pool);
    drop_pending(pool);
    PyMem_RawFree(pool->calls);
    pthread_cond_destroy(&pool->room);
    pthread_mutex_destroy(&pool->lock);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(pool_doc,
"Pool(environ, make_input, threads)\n"
"--\n\n"
"What the threads of a WSGI app share: give it to a Link as its app, then call next() in each thread.\n\n"
"environ is what the environ of every call begins with. make_input(exchange) makes the wsgi.input of a call\n"
"whose body has not come as a whole; it reads by exchange.readinto(). threads is how many of them\n"
"there may be, as the core is told.");

static PyMethodDef pool_methods[] = {
    {"next", pool_next, METH_NOARGS,
     PyDoc_STR("next()\n--\n\nWaits for a call and claims it: (exchange, environ), or None once the pool is closed.")},
    {"close", pool_close, METH_NOARGS,
     PyDoc_STR("close()\n--\n\nHas next() return None, in every thread that waits in it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"idle", get_idle, NULL, PyDoc_STR("How many threads wait in next()."), NULL},
    {"pending", get_pending, NULL,
     PyDoc_STR("How many calls wait for a thread; the core may have taken some back."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)pool_doc},
    {Py_tp_new, pool_new},
    {Py_tp_init, pool_init},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "spvn._asgi.Pool",
    .basicsize = sizeof(Pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

PyTypeObject *pool_type_new(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &pool_spec, NULL);
}
