/* Exchange: one run of a WSGI app, from the claim to the end. */
#include "wsgi.h"

Exchange *exchange_new(Pool *pool)
{
    PyTypeObject *type = pool->exchange_type;
    Exchange *call = (Exchange *)type->tp_alloc(type, 0);
    if (call != NULL) {
        call->pool = (Pool *)Py_NewRef((PyObject *)pool);
        pthread_cond_init(&call->changed, NULL);
        call->content_length = call->content_left = -1;
        call->window = SPVN_SEND_WINDOW_STREAM;
        call->over = true; /* until it is claimed */
    }
    return call;
}

void pieces_free(Piece *piece)
{
    while (piece != NULL) {
        Piece *next = piece->next;
        PyMem_RawFree(piece);
        piece = next;
    }
}

/* wsgi.input of a call, once the pieces of its body can be read. */
static PyObject *input_of(Exchange *call, const CallStart *start)
{
    Pool *pool = call->pool;
    if ((start->flags & SPVN_FLAG_LAST) != 0) {
        PyObject *body = PyBytes_FromStringAndSize((const char *)start->body, start->body_length);
        PyObject *input = body == NULL ? NULL : PyObject_CallOneArg(pool->bytes_io, body);
        Py_XDECREF(body);
        return input;
    }
    if (start->body_length > 0) {
        Piece *piece = PyMem_RawMalloc(sizeof *piece + start->body_length);
        if (piece == NULL) {
            return PyErr_NoMemory();
        }
        *piece = (Piece){.length = start->body_length, .room = start->body_length};
        memcpy(piece->bytes, start->body, start->body_length);
        /* What the core has forwarded since the claim comes behind it. */
        pthread_mutex_lock(&pool->lock);
        piece->next = call->first;
        call->first = piece;
        if (call->last == NULL) {
            call->last = piece;
        }
        pthread_mutex_unlock(&pool->lock);
    }
    return PyObject_CallOneArg(pool->make_input, (PyObject *)call);
}

PyObject *exchange_begin(Exchange *call, const Pending *pending)
{
    CallStart start = {.flags = pending->flags};
    if (!call_start_read(&start, pending->payload, pending->length)) {
        PyErr_SetString(PyExc_SystemError, "spvn: a call start does not fit");
        return NULL;
    }
    PyObject *environ = environ_build(call, &start);
    if (environ == NULL) {
        return NULL;
    }
    call->bodyless = call->head_method;
    pthread_mutex_lock(&call->pool->lock);
    call->want_body = (start.flags & SPVN_FLAG_WANT_BODY) != 0;
    pthread_mutex_unlock(&call->pool->lock);
    PyObject *input = input_of(call, &start);
    if (input == NULL || PyDict_SetItem(environ, call->pool->key_input, input) < 0) {
        Py_CLEAR(environ);
    }
    Py_XDECREF(input);
    return environ;
}

void exchange_abandon(Exchange *call)
{
    PyObject *ended = exchange_fail((PyObject *)call, NULL);
    if (ended == NULL) {
        PyErr_WriteUnraisable((PyObject *)call);
    }
    Py_XDECREF(ended);
}

void exchange_gone(Exchange *call)
{
    Pool *pool = call->pool;
    pthread_mutex_lock(&pool->lock);
    bool cancelled = call->cancelled, detached = pool->detached;
    pthread_mutex_unlock(&pool->lock);
    PyErr_SetString(pool->link->state->client_disconnected,
                    detached    ? "The link to the core is closed: nothing more can be read or sent."
                    : cancelled ? "The server is shutting down: this call was cancelled."
                                : "The client left: nothing more can be read from it or sent to it.");
}

static PyObject *get_disconnected(PyObject *self, void *Py_UNUSED(closure))
{
    Exchange *call = (Exchange *)self;
    pthread_mutex_lock(&call->pool->lock);
    bool gone = call->disconnected || call->cancelled || call->pool->detached;
    pthread_mutex_unlock(&call->pool->lock);
    return PyBool_FromLong(gone);
}

static PyObject *get_started(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Exchange *)self)->head != NULL);
}

static PyObject *get_request_line(PyObject *self, void *Py_UNUSED(closure))
{
    Exchange *call = (Exchange *)self;
    if (call->method == NULL || call->target == NULL || call->query == NULL) {
        return PyUnicode_FromString("");
    }
    const char *version = call->http_version == 10 ? "1.0" : call->http_version == 20 ? "2" : "1.1";
    return PyUnicode_FromFormat("%U %U%s%U HTTP/%s", call->method, call->target,
                                PyUnicode_GET_LENGTH(call->query) > 0 ? "?" : "", call->query, version);
}

static PyObject *exchange_repr(PyObject *self)
{
    PyObject *line = get_request_line(self, NULL);
    PyObject *repr = line == NULL ? NULL : PyUnicode_FromFormat("<spvn call %R>", line);
    Py_XDECREF(line);
    return repr;
}

static int exchange_traverse(PyObject *self, visitproc visit, void *arg)
{
    Exchange *call = (Exchange *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(call->pool);
    return 0;
}

static void exchange_dealloc(PyObject *self)
{
    Exchange *call = (Exchange *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (!call->over && !pool_forked(call->pool)) {
        /* Its thread never ended it; nobody must find it any more. */
        pthread_mutex_lock(&call->pool->lock);
        if (!call->pool->detached) {
            exchange_reserve(call, 0, SPVN_CALL_FAILED, 0);
            outbox_publish(call->out);
            outbox_ring(call->out);
        }
        pool_forget(call);
        pthread_mutex_unlock(&call->pool->lock);
    }
    pieces_free(call->first);
    pthread_cond_destroy(&call->changed);
    Py_CLEAR(call->head);
    Py_CLEAR(call->method);
    Py_CLEAR(call->target);
    Py_CLEAR(call->query);
    Py_CLEAR(call->pool);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef exchange_methods[] = {
    {"start_response", (PyCFunction)(void (*)(void))exchange_start_response, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("start_response(status, headers, exc_info=None)\n--\n\nPEP 3333's: returns write.")},
    {"write", exchange_write, METH_O,
     PyDoc_STR("write(body, /)\n--\n\nPEP 3333's: sends a block, and waits while the client takes none.")},
    {"send", exchange_send, METH_O,
     PyDoc_STR("send(body, /)\n--\n\nAs write(); True if no block that follows would be sent (HEAD, 204, 304).")},
    {"finish", exchange_finish, METH_VARARGS,
     PyDoc_STR("finish(body=b'', done=False, /)\n--\n\nSends the last block; with done the app has returned, too.")},
    {"done", exchange_done, METH_NOARGS, PyDoc_STR("done()\n--\n\nEnds the call: the app has returned.")},
    {"fail", exchange_fail, METH_NOARGS,
     PyDoc_STR("fail()\n--\n\nEnds the call: the app raised. The core answers 500, or cuts the connection.")},
    {"readinto", exchange_readinto, METH_O,
     PyDoc_STR("readinto(buffer, /)\n--\n\nWaits for a part of the request's body; 0 is its end.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef exchange_getset[] = {
    {"disconnected", get_disconnected, NULL, PyDoc_STR("Whether nobody waits for the answer any more."), NULL},
    {"started", get_started, NULL, PyDoc_STR("Whether start_response() was called."), NULL},
    {"request_line", get_request_line, NULL, PyDoc_STR("Such as 'GET /path?query HTTP/1.1'."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot exchange_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One run of a WSGI app.")},
    {Py_tp_traverse, exchange_traverse},
    {Py_tp_dealloc, exchange_dealloc},
    {Py_tp_repr, exchange_repr},
    {Py_tp_methods, exchange_methods},
    {Py_tp_getset, exchange_getset},
    {0, NULL},
};

static PyType_Spec exchange_spec = {
    .name = "spvn._asgi.Exchange",
    .basicsize = sizeof(Exchange),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = exchange_slots,
};

PyTypeObject *exchange_type_new(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &exchange_spec, NULL);
}
