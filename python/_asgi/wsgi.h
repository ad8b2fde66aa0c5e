/* WSGI (PEP 3333) on a link: what the wsgi_*.c files share, and what the rest calls.
 *
 * Strategy: a Link whose app is a Pool runs no app in its drain. Call starts are copied to the pool's
 * pending list, still the core's to take back, and the pool's threads claim them from there, in order; so
 * parts of bodies, windows and departures behind them are never stuck. Each claimed call
 * is an Exchange, which its thread reads, writes and ends; it waits there for what the drain brings.
 *
 * Rules:
 *   - pool->lock covers everything marked as shared, and every use of the link's rings and slots, by the
 *     loop's thread too: from a record's reservation to its publication nobody else writes.
 *   - It is held for a few copies at most, nothing of Python is called under it (a garbage
 *     collection could come back here), and nobody waits for the GIL while holding it. So it may be taken
 *     with the GIL and without.
 *   - Who waits (for a call, a body, the window, room in a ring) has let go of the GIL.
 *   - After pool_detach no thread touches the memory or rings a bell.
 */
#ifndef SPVN_WSGI_H
#define SPVN_WSGI_H

#include "asgi.h"

#include <pthread.h>

typedef struct Exchange Exchange;

/* A call start as it came. */
typedef struct Pending {
    struct Pending *next;
    uint64_t id;
    uint32_t loop, length; /* of the payload */
    uint16_t flags;
    uint8_t payload[];
} Pending;

/* A part of a request's body. */
typedef struct Piece {
    struct Piece *next;
    uint32_t length, at, room; /* filled and read up to here, and how much fits */
    uint8_t bytes[];
} Piece;

/* A thread without a call. The one that became idle last is woken first: fewer threads stay warm,
 * with fewer of the connections to databases that apps keep for each. */
typedef struct Idle {
    struct Idle *next;
    pthread_cond_t woken;
    bool awake;
} Idle;

#define SPVN_ENVIRON_NAMES 256 /* slots of a table that is less than a quarter full */

struct Pool {
    PyObject_HEAD
    PyObject *environ;    /* what all calls have in common, a dict */
    PyObject *make_input; /* makes wsgi.input of an Exchange whose body is not complete */
    PyObject *bytes_io;   /* io.BytesIO, for bodies that are */
    PyTypeObject *exchange_type;
    unsigned threads;     /* at most */
    struct {
        const char *name;
        PyObject *key; /* "HTTP_..." */
    } names[SPVN_ENVIRON_NAMES]; /* of common fields; never changed once it is made */
    PyObject *key_method, *key_path, *key_query, *key_uri, *key_raw_uri, *key_protocol, *key_scheme, *key_input;
    PyObject *key_address, *key_port, *key_server_name, *key_server_port, *key_type, *key_length;

    pthread_mutex_t lock;
    pthread_cond_t room; /* the core has made room in a ring */

    /* Shared. */
    Link *link;          /* from pool_attach on; owned */
    bool detached;       /* not attached yet, or not any more */
    bool closed;         /* no thread gets a call */
    Pending *first, *last;
    size_t pending, sweep_at;
    Idle *idle;
    size_t idle_count;
    Exchange **calls;    /* by slot; borrowed */
    size_t running;
    unsigned room_waiters;
};

struct Exchange {
    PyObject_HEAD
    Pool *pool;
    Outbox *out;
    uint64_t id; /* as in records; its low half is the slot */

    /* Shared. */
    pthread_cond_t changed;
    Piece *first, *last;
    bool body_last;     /* nothing comes behind what is here */
    bool want_body;     /* the first read has to write WANT_BODY */
    uint64_t credit_due;
    uint32_t window_used;
    bool disconnected;  /* the client left, or the link is gone */
    bool cancelled;
    bool complete;      /* the answer's last record is written */
    bool over;          /* the call's end is written too, or cannot be any more */

    /* Of the thread that writes; `writing` keeps a second one out. */
    atomic_bool writing;
    PyObject *head;         /* bytes: the RESPONSE payload without a body; NULL before start_response() */
    unsigned status;
    int64_t content_length, content_left; /* -1 without one */
    bool head_sent;
    bool bodyless;          /* HEAD, 204, 304 */
    bool head_method;
    uint32_t window;

    uint8_t http_version;
    PyObject *method, *target, *query; /* str: for the request line */
};

PyTypeObject *pool_type_new(PyObject *module);
PyTypeObject *exchange_type_new(PyObject *module);

/* wsgi_pool.c: for the link and its drain, on the loop's thread. */

/* Gives the pool its link. */
int pool_attach(Pool *pool, Link *link);
/* Takes the link away: who waits is told, and nobody touches its memory after this. */
void pool_detach(Pool *pool);
/* Takes a copy of a call start. */
int pool_start(Pool *pool, uint32_t loop, const uint8_t *record, uint32_t length);
/* Takes any other record of a call. -1: it does not fit; no exception is set but for memory. */
int pool_record(Pool *pool, const uint8_t *record, uint32_t length);
/* The core may have made room. */
void pool_room(Pool *pool);
size_t pool_calls(Pool *pool);
/* Has every call's reads and writes raise; returns how many calls there are. */
size_t pool_cancel(Pool *pool);

static inline void pool_lock(Pool *pool)
{
    if (pool != NULL) {
        pthread_mutex_lock(&pool->lock);
    }
}

static inline void pool_unlock(Pool *pool)
{
    if (pool != NULL) {
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Raises in a process that was forked from the worker, where the mapping and the other threads are not. */
int pool_check_fork(Pool *pool);
bool pool_forked(Pool *pool);
/* Under the lock: wakes whoever waits for something of this call. */
static inline void exchange_wake(Exchange *call) { pthread_cond_broadcast(&call->changed); }
/* Under the lock: takes a call out of the table; its end is written. */
void pool_forget(Exchange *call);

/* wsgi_environ.c */

/* Fills the table of names. */
int environ_prepare(Pool *pool);
void environ_clear(Pool *pool);
/* The environ of a call, but for wsgi.input; leaves in the call what its request line needs. */
PyObject *environ_build(Exchange *call, const CallStart *start);

/* wsgi_exchange.c */

Exchange *exchange_new(Pool *pool);
/* What comes of a claimed start: a new reference to the environ. */
PyObject *exchange_begin(Exchange *call, const Pending *pending);
/* Ends a call that could not begin. */
void exchange_abandon(Exchange *call);
void pieces_free(Piece *piece);
/* Raises what tells the app that nobody listens. */
void exchange_gone(Exchange *call);

/* wsgi_read.c */

PyObject *exchange_readinto(PyObject *self, PyObject *buffer);

/* wsgi_start.c */

PyObject *exchange_start_response(PyObject *self, PyObject *args, PyObject *kwargs);

/* wsgi_write.c */

/* Only one thread at a time writes a call's answer: raises in a second one. */
int exchange_enter(Exchange *call);
void exchange_leave(Exchange *call);
PyObject *exchange_write(PyObject *self, PyObject *body);
PyObject *exchange_send(PyObject *self, PyObject *body);
PyObject *exchange_finish(PyObject *self, PyObject *args);
PyObject *exchange_done(PyObject *self, PyObject *unused);
PyObject *exchange_fail(PyObject *self, PyObject *unused);
/* Under the lock: waits for room in the call's outbox; without the GIL. */
void exchange_wait_room(Exchange *call);
/* Under the lock: reserves a record; NULL: there is no room, and the core was asked to ring once there is. */
uint8_t *exchange_reserve(Exchange *call, uint64_t payload, uint16_t type, uint16_t flags);

#endif
