/* What the files of spvn._asgi share: the types, the module's state, and each file's functions.
 *
 * Strategy: a Link is one worker's end of the memory that it shares with the core. Its drain()
 * takes records out of the inboxes; a call start becomes a Call, which is a scope, an
 * asyncio.Task and the two callables that the app gets. receive() takes from what the
 * drain left in the Call; send() writes records into the outbox.
 *
 * Rules:
 *   - A Link and its Calls belong to the thread of their event loop. Other threads may create
 *     awaitables (asyncio.run_coroutine_threadsafe(send(...), loop)), which do nothing until
 *     the loop's thread awaits them. So nothing here needs a lock, with or without a GIL.
 *   - The core may be believed, but not across a call into Python: an app can detach the
 *     link, drain it again from a nested loop, or raise anything.
 *   - No static data but constants; everything else hangs on the module's state or on a Link.
 */
#ifndef SPVN_ASGI_H
#define SPVN_ASGI_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "compat.h"
#include "ring.h"

/* Strings that are also C identifiers. */
#define SPVN_NAMES(X)                                                                                                  \
    X(type) X(asgi) X(http_version) X(server) X(client) X(scheme) X(method) X(root_path) X(path) X(raw_path)           \
    X(query_string) X(headers) X(state) X(extensions) X(subprotocols) X(body) X(more_body) X(status) X(trailers)       \
    X(more_trailers) X(links) X(code) X(reason) X(text) X(bytes) X(subprotocol) X(http) X(https) X(websocket) X(ws)    \
    X(wss) X(done) X(exception) X(exceptions) X(cancel) X(cancelled) X(add_done_callback) X(set_result)            \
    X(incomplete) X(drain) X(stop) X(corrupt)

/* Strings that are not. */
#define SPVN_TEXTS(X)                                                                                                  \
    X(http_request, "http.request") X(http_disconnect, "http.disconnect")                                              \
    X(ws_connect, "websocket.connect") X(ws_receive, "websocket.receive") X(ws_disconnect, "websocket.disconnect")     \
    X(version_10, "1.0") X(version_11, "1.1") X(version_2, "2") X(empty, "")                                           \
    X(GET, "GET") X(HEAD, "HEAD") X(POST, "POST") X(PUT, "PUT") X(PATCH, "PATCH") X(DELETE, "DELETE")                  \
    X(OPTIONS, "OPTIONS")

typedef struct {
    PyTypeObject *link_type, *call_type, *wait_type, *done_type, *pool_type, *exchange_type;
    PyObject *client_disconnected; /* the exception class */
    PyObject *done;                /* the awaitable with nothing to wait for and no result */
    PyObject *wrap_awaitable;      /* async def (awaitable): return await awaitable */
    PyObject *empty_bytes;
    PyObject *request_message;     /* {"type": "http.request", "body": b"", "more_body": False} */
#define X(name) PyObject *str_##name;
    SPVN_NAMES(X)
#undef X
#define X(name, text) PyObject *str_##name;
    SPVN_TEXTS(X)
#undef X
} State;

typedef struct Link Link;
typedef struct Call Call;
typedef struct Wait Wait;
typedef struct Pool Pool; /* wsgi.h */

/* cache.c: objects that requests have in common. Each slot holds the last object that fell into it. */

#define SPVN_NAME_SLOTS 256
#define SPVN_FIELD_SLOTS 512
#define SPVN_CLIENT_SLOTS 512

typedef struct {
    PyObject *names[SPVN_NAME_SLOTS];   /* bytes */
    PyObject *fields[SPVN_FIELD_SLOTS]; /* (name, value) */
    struct {
        PyObject *address; /* (host, port) */
        uint64_t hash;
    } clients[SPVN_CLIENT_SLOTS];
} Cache;

/* Returns a new reference to a (name, value) pair of bytes. */
PyObject *cache_field(Cache *cache, const uint8_t *name, uint32_t name_length, const uint8_t *value, uint32_t value_length);
/* Returns a new reference to (host, port). */
PyObject *cache_client(Cache *cache, const uint8_t *host, uint32_t host_length, int32_t port);
void cache_clear(Cache *cache);

/* link.c */

typedef struct {
    Wait *first, *last;
} WaitList;

struct Link {
    PyObject_HEAD
    State *state;
    uint8_t *memory; /* the mapping */
    size_t memory_size;
    bool shared; /* the mapping is the core's too: the last side to leave unmaps it */
    uint8_t *slot_table;
    volatile uint8_t *fork_guard; /* a page that reads 0 in a forked child, which has no mapping */
    long pid;                     /* 0, or what getpid() must say where there is no such page */
    int bell;
    uint32_t loops, slots; /* slots over all loops */
    Inbox *inboxes;
    Outbox *outboxes;
    uint32_t first_inbox; /* where the next drain begins, so that no inbox starves the others */

    PyObject *app, *loop, *on_error, *on_control, *on_timer; /* on_timer may be NULL */
    Pool *pool; /* the app, if it is one: its threads write into the outboxes too, under its lock */
    PyObject *call_soon, *create_future; /* the loop's */
    PyObject *task_type, *task_options, *cancelled_error;
    PyObject *raised; /* by a call: a SystemExit or KeyboardInterrupt of which link.raised() is to know */
    const void *known; /* the last of them of which it knew before its call had ended */
    PyObject *root_path;       /* str */
    PyObject *root_path_bytes; /* the same as raw_path has it */
    PyObject *app_state;       /* dict, or NULL when the app has no lifespan state */
    PyObject *http_scope, *websocket_scope; /* templates: a scope is a copy with what differs set */
    PyObject *server;          /* the "server" in the templates, (host, port) or None */
    PyObject *asgi, *http_extensions, *websocket_extensions;
    PyObject *controls_due;    /* [(type, payload)] that found outbox 0 full, or NULL */

    Call **calls; /* by slot */
    Call *live;   /* a list of the same; it owns one reference to each */
    Call *spare;  /* an idle call with its receive and send, for the next call; or NULL */
    Py_ssize_t live_count;

    unsigned depth;          /* drains on the stack */
    uint64_t turned_at;      /* when the last drain began, CLOCK_MONOTONIC ns */
    unsigned long thread;    /* of the last drain */
    bool detached;           /* nothing may be written; unmapped once no drain is on the stack */
    bool pathsend;           /* the extension is offered */
    bool alone;              /* no other worker could run what this one has not begun */
    bool resume_scheduled;   /* the loop will call _resume */
    bool flush_scheduled;    /* the loop will call _flush */
    bool batching;           /* the same, and it tells that the drain has ended: until then nobody is rung */
    uint32_t woken;          /* tasks that the drain made ready */
    Cache cache;
};

PyTypeObject *link_type_new(PyObject *module);
/* Raises and returns -1 when nothing can be written to the link any more. */
int link_check(Link *link);
/* The same, and checks that the link was attached and this is its thread: for methods. */
int link_usable_here(Link *link);
/* Whether the memory is there and belongs to this process. */
static inline bool link_usable(const Link *link)
{
    return !link->detached && *link->fork_guard != 0 && (link->pid == 0 || link->pid == (long)getpid());
}
/* Whether the caller runs on the thread of the link's loop. */
bool link_on_thread(const Link *link);
/* Publishes and rings, for what was written outside a drain. */
void link_flush(Link *link);
/* Has the loop call link_flush at its next turn. */
void link_flush_soon(Link *link);
/* The same at the end of a drain, which ends for the core only then. */
void link_batch(Link *link);
/* Writes a record of call 0; payload is bytes or NULL. */
int link_control(Link *link, uint16_t type, PyObject *payload);
/* Tries again to write the ones that found no room. */
void link_control_due(Link *link);
/* Tells on_error. Never raises. */
void link_report(Link *link, PyObject *kind, PyObject *exception, Call *call);
/* Takes the link away from its calls. The memory goes once no drain is on the stack. */
void link_detach(Link *link);
/* Has the loop call a method without arguments at its next turn. */
int link_call_soon(Link *link, PyMethodDef *method);

/* Says whether the core is to look at the heads by itself, every millisecond. */
static inline void link_set_draining(Link *link, bool draining)
{
    *(_Atomic uint32_t *)(void *)(link->memory + SPVN_HEADER_DRAINING) = draining;
}

static inline uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* attach.c */

/* Maps the memory and finds the rings in it; loop_bells is a tuple. */
int link_map(Link *link, int memfd, unsigned long long address, PyObject *loop_bells);
/* Takes what it needs of the event loop. */
int link_bind(Link *link, PyObject *loop);
void link_unmap(Link *link);
/* Frees what link_map made but the mapping. */
void link_free(Link *link);

/* drain.c */

PyObject *link_drain(Link *link, bool rung);
/* Gives up a link whose memory makes no sense: raises and returns -1. */
int link_corrupt(Link *link, const char *what);
/* Moves a slot from offered to claimed; false when the core took back what it was offered for. */
bool slot_claim(Link *link, uint64_t id, uint64_t now);

/* timer.c */

/* Takes a TIMER record. -1: on_timer raised. */
int timer_due(Link *link, Inbox *in, const uint8_t *record, uint32_t length);
PyObject *timer_set(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *timer_cancel(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *timer_done(PyObject *self, PyObject *args);

/* scope.c */

/* A record's CALL payload, checked. */
typedef struct {
    bool websocket;
    uint16_t flags;
    uint8_t scheme, http_version;
    uint32_t method_length, path_length, raw_path_length, query_length, field_count, body_length, field_bytes;
    uint32_t client_host_length, server_host_length;
    int32_t client_port, server_port;
    const uint8_t *method, *path, *raw_path, *query, *client_host, *server_host, *fields, *body;
} CallStart;

/* Reads a payload; false when its lengths do not fit. */
bool call_start_read(CallStart *start, const uint8_t *payload, uint32_t length);
/* Builds the templates of a link. */
int scope_prepare(Link *link);
/* Builds a scope, and leaves in the call what its request line needs. */
PyObject *scope_build(Link *link, Call *call, const CallStart *start);

/* call.c */

typedef struct Chunk Chunk; /* receive.c */

typedef enum {
    ANSWER_START,    /* http.response.start comes next */
    ANSWER_BODY,     /* a body message */
    ANSWER_TRAILERS, /* http.response.trailers */
    ANSWER_COMPLETE,
} AnswerPhase;

typedef enum {
    WS_CONNECTING, /* accept, close or a denial comes next */
    WS_OPEN,
    WS_DENYING,    /* the answer's phase says what comes next */
    WS_ENDED,
} WebSocketPhase;

struct Call {
    PyObject_HEAD
    Link *link;
    Outbox *outbox;
    uint64_t id; /* as in records; its low half is the slot */
    Call *next, *previous; /* in link->live */
    Call *blocked_next;    /* in outbox->blocked */
    PyObject *task;        /* while it is not done */
    PyObject *receive, *send; /* while the app is called, and in a spare */

    /* The request. */
    PyObject *method, *target, *query; /* str, bytes, bytes: for the request line */
    PyObject *first;                   /* the body that came with the start, NULL for none */
    Chunk *chunks_first, *chunks_last; /* what came later and was not received */
    uint64_t credit_due;               /* BODY_CREDIT or WS_CREDIT that is to be written */
    WaitList receivers;

    /* The answer. */
    uint64_t open_at, open_fill, open_end; /* the RESPONSE record, as long as a body can be put behind it */
    uint64_t last_record;                  /* where the last record that ends the answer begins */
    int64_t content_left;                  /* of Content-Length; -1 without one */
    uint32_t window, window_used;          /* bytes of body on their way */
    PyObject *held;                        /* bytes of an accepted message that are not yet written */
    size_t held_at;
    uint16_t held_type, held_flags;
    uint32_t ticket;                       /* how many messages were ever held */
    WaitList senders;
    uint32_t burst;                        /* sends since the app last let the loop run */
    uint64_t burst_at;                     /* when the first of those was */

    uint16_t end_due;    /* CALL_DONE or CALL_FAILED that is to be written */
    uint8_t http_version;
    uint8_t answer;      /* AnswerPhase */
    uint8_t ws;          /* WebSocketPhase */
    bool websocket;
    bool first_pending;  /* the first message was not received; for a WebSocket, connect */
    bool body_last;      /* nothing comes behind what is here */
    bool body_credited;  /* received bytes are to be credited */
    bool want_body;      /* the first receive() has to write WANT_BODY */
    bool want_body_due;
    bool head_method;    /* HEAD */
    bool body_dropped;   /* a status that has no body: what the app sends is ignored */
    bool body_begun;     /* a body message was sent */
    bool trailers;       /* were announced */
    bool disconnected;   /* the client left, or the link is gone */
    bool ended;          /* the app returned or raised */
    bool listed;         /* in link->live */
    bool blocked;        /* in outbox->blocked */
    bool cancelled;      /* by Link.cancel */

    /* WebSocket. */
    PyObject *ws_parts;  /* list of bytes: a message that is not complete */
    uint32_t ws_received; /* messages of which WS_CREDIT is to tell */
    bool ws_failing;     /* it will be closed with ws_code; WS_CLOSE is to say that the app has heard so */
    bool ws_close_due;   /* the app returned without one, or has heard */
    uint8_t ws_opcode;
    uint16_t ws_code;    /* for websocket.disconnect */
    PyObject *ws_reason;
};

PyTypeObject *call_type_new(PyObject *module);
Call *call_new(Link *link, Outbox *outbox, uint64_t id);
/* Runs the app; steals scope. -1: it raised what is not for us (SystemExit, KeyboardInterrupt). */
int call_run(Call *call, PyObject *scope);
/* Ends a call for the exception that is set. -1: it is not for us and stays set. */
int call_fail(Call *call);
/* Ends a call whose app returned (failed: or raised). */
void call_end(Call *call, bool failed);
/* Keeps a call that is over as the link's spare, if nobody else holds it. */
void call_recycle(Call *call);
void call_drop_spare(Link *link);
/* The client left, or the link is gone: whoever waits learns it. */
void call_disconnect(Call *call);
/* Takes the call out of the link's tables. */
void call_unlist(Call *call);
/* 'GET /path?query HTTP/1.1' */
PyObject *call_request_line(Call *call);

/* outbox.c */

/* Reserves a record of the call, or makes the call wait for room and returns NULL. */
uint8_t *call_reserve(Call *call, uint64_t payload, uint16_t type, uint16_t flags);
/* Keeps bytes of an accepted message until there is room. Steals the reference. */
void call_hold(Call *call, PyObject *payload, size_t from, uint16_t type, uint16_t flags);
/* How much more of the body may be on its way. While the core is short of memory a complete answer gets no more
 * than a stream, also one that has begun to leave. */
static inline uint32_t link_window(const Link *link, uint32_t window, uint32_t used)
{
    if (window > SPVN_SEND_WINDOW_STREAM && *(_Atomic uint32_t *)(void *)(link->memory + SPVN_HEADER_TIGHT) != 0) {
        window = SPVN_SEND_WINDOW_STREAM;
    }
    return window > used ? window - used : 0;
}
static inline uint32_t call_window(const Call *call) { return link_window(call->link, call->window, call->window_used); }
/* Writes a WebSocket message at once; false, and nothing written, when it has to wait or to be cut. */
bool call_write_message(Call *call, uint16_t opcode, const char *bytes, size_t size);
/* Writes what is due, as far as window and room allow. */
void call_pump(Call *call);
/* Makes what the call wrote visible; outside a drain, rings. */
void call_publish(Call *call);
/* Lets calls that wait for room go on. */
void outbox_unblock(Link *link, Outbox *out);
void call_unblock(Call *call);

/* awaitable.c */

typedef enum {
    WAIT_RECEIVE,  /* for a message */
    WAIT_HELD,     /* until what was held under this ticket is written */
    WAIT_DEFERRED, /* for the messages before this one; then it is sent */
    WAIT_YIELD,    /* for the loop's next turn */
} WaitKind;

struct Wait {
    PyObject_HEAD
    Call *call;
    PyObject *message;            /* WAIT_DEFERRED */
    PyObject *future, *iterator;  /* while it is suspended on a future */
    Wait *next, *previous;        /* in a WaitList */
    WaitList *list;
    uint32_t ticket;              /* WAIT_HELD */
    uint8_t kind;
    bool woken;                   /* its future was resolved and it has not run since */
    bool yielded;
    bool closed;
};

PyTypeObject *wait_type_new(PyObject *module);
PyTypeObject *done_type_new(PyObject *module);
PyObject *done_new(PyTypeObject *type);
PyObject *wait_new(Call *call, WaitKind kind, PyObject *message);
/* Wakes the first that waits, unless one was woken already and will pass it on. */
void waits_wake(WaitList *list);
void waits_wake_all(WaitList *list);

/* orphan.c */

PyObject *exit_when_closed(PyObject *module, PyObject *args);

/* fields.c */

typedef struct {
    PyObject *name, *value; /* bytes; owned */
    bool mixed;             /* the name is not in lower case */
} Field;

typedef struct {
    Py_ssize_t count;
    size_t bytes;            /* as the link encodes them */
    int64_t content_length;  /* -1 without one */
    Field *items, inline_items[24];
} Fields;

/* Takes an iterable of pairs (NULL: none), checks them (RFC 9110 5.1 and 5.5), and leaves out transfer-encoding, which is
 * the server's. what names the message in errors. */
int fields_collect(Fields *fields, PyObject *pairs, const char *what);
int fields_append(Fields *fields, PyObject *name, PyObject *value, const char *what);
void fields_init(Fields *fields);
void fields_clear(Fields *fields);
uint8_t *fields_write(const Fields *fields, uint8_t *to);
/* Whether the text is a token (RFC 9110 5.6.2). */
bool fields_token(const char *text, Py_ssize_t length);

/* receive.c */

PyObject *call_receive(PyObject *self, PyObject *unused);
/* 1: *message is the next one; 0: there is none yet; -1: raised. */
int receive_next(Call *call, PyObject **message);
/* Whether receive_next would find one. */
bool receive_ready(const Call *call);
/* Adds a part of the body. */
int receive_body(Call *call, const uint8_t *bytes, uint32_t length, bool last);
/* Adds a WebSocket message, which is bytes. */
int receive_websocket(Call *call, PyObject *payload, uint8_t opcode);
/* Takes the oldest part; the reference is the caller's. last may be NULL. */
PyObject *receive_pop(Call *call, bool *last);
void receive_clear(Call *call);
void call_credit(Call *call, uint64_t bytes);

/* message.c */

/* A message and the items that most have, NULL where there is none; owned but for dict. */
typedef struct {
    PyObject *dict;
    PyObject *type, *status, *headers, *trailers, *body, *more_body, *text, *bytes;
} Message;

void message_read(Message *message, State *state, PyObject *dict);
void message_clear(Message *message);
/* Another item: a new reference, or NULL: raised if PyErr_Occurred(), else there is none. */
PyObject *message_get(const Message *message, PyObject *key);
/* Whether an item is there and true; -1 raised. */
int item_true(PyObject *item);
bool text_is(PyObject *text, const char *expected);

/* send.c */

typedef enum { SENT, SENT_HELD, SENT_YIELD, SENT_ERROR = -1 } SendResult;

PyObject *call_send(PyObject *self, PyObject *message);
/* Sends a message of any type. */
SendResult send_message(Call *call, PyObject *message);
SendResult send_start(Call *call, const Message *message, const char *what);
SendResult send_body(Call *call, const Message *message, const char *what);
SendResult send_answer(Call *call, unsigned status, const Fields *fields, bool last);
/* Writes a record of a fixed part and fields, or holds it. */
SendResult send_fields(Call *call, uint16_t type, uint16_t flags, const uint8_t *fixed, size_t fixed_size, const Fields *fields);
/* Raises if code that ran while a message was read (a header list's __iter__, say) has sent one itself. */
int send_check(Call *call, uint8_t answer, uint8_t ws);
/* Whether the app has kept the loop waiting for so long that it must let it run. */
bool send_must_yield(Call *call);
/* The answer is complete. */
void send_complete(Call *call);

/* extensions.c */

SendResult send_trailers(Call *call, const Message *message);
SendResult send_early_hint(Call *call, const Message *message);
SendResult send_path(Call *call, const Message *message);

/* websocket.c */

SendResult websocket_send(Call *call, const Message *message);
int websocket_next(Call *call, PyObject **message);
void websocket_return(Call *call);
/* The connection was closed; reason is NULL for none. */
void websocket_closed(Call *call, uint16_t code, PyObject *reason);

#endif
