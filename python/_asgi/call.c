/* Call: one run of the app, from the claim to its CALL_DONE.
 *
 * A call is listed in its link from the claim until its end has been written, which may be
 * after the app returned: what the app sent is still on its way then. The task is a real
 * asyncio.Task, so that anyio, asyncio.timeout and contextvars work, and the call holds it until
 * it is done, as the loop only knows it weakly.
 */
#include "asgi.h"

#define NOWHERE UINT64_MAX

static PyObject *call_done(PyObject *self, PyObject *task);

static PyMethodDef receive_method = {
    "receive", call_receive, METH_NOARGS,
    PyDoc_STR("receive()\n--\n\nThe app's receive callable: an awaitable of the next message."),
};
static PyMethodDef send_method = {
    "send", call_send, METH_O,
    PyDoc_STR("send(message, /)\n--\n\nThe app's send callable: an awaitable that is done once the message was taken."),
};
static PyMethodDef done_method = {"done", call_done, METH_O, NULL};

Call *call_new(Link *link, Outbox *outbox, uint64_t id)
{
    Call *call = link->spare;
    if (call != NULL) {
        link->spare = NULL;
    } else {
        call = (Call *)link->state->call_type->tp_alloc(link->state->call_type, 0);
        if (call == NULL) {
            return NULL;
        }
        call->link = (Link *)Py_NewRef((PyObject *)link);
    }
    call->outbox = outbox;
    call->id = id;
    call->open_at = call->last_record = NOWHERE;
    call->content_left = -1;
    call->window = SPVN_SEND_WINDOW_STREAM;
    call->next = link->live;
    if (link->live != NULL) {
        link->live->previous = call;
    }
    link->live = call;
    link->live_count++;
    link->calls[(uint32_t)id] = call;
    call->listed = true;
    return call;
}

void call_unlist(Call *call)
{
    if (!call->listed) {
        return;
    }
    Link *link = call->link;
    call->listed = false;
    if (call->previous != NULL) {
        call->previous->next = call->next;
    } else {
        link->live = call->next;
    }
    if (call->next != NULL) {
        call->next->previous = call->previous;
    }
    call->next = call->previous = NULL;
    link->live_count--;
    link->calls[(uint32_t)call->id] = NULL;
    Py_DECREF(call);
}

#ifdef Py_GIL_DISABLED
/* Reference counts of other threads are not to be had. */
void call_recycle(Call *call)
{
    Py_CLEAR(call->receive);
    Py_CLEAR(call->send);
}
#else
static bool unshared(PyObject *function)
{
    return Py_REFCNT(function) == 1 && ((PyCFunctionObject *)function)->m_weakreflist == NULL;
}

/* Most calls are over when their first step is, and nobody has kept anything of them: then
 * the call and its two callables serve the next one, which saves three objects for each call. The
 * references are those of the caller, of receive and of send. */
void call_recycle(Call *call)
{
    Link *link = call->link;
    if (link->spare != NULL || call->listed || call->task != NULL || call->blocked || Py_REFCNT(call) != 3 ||
        call->receive == NULL || call->send == NULL || !unshared(call->receive) || !unshared(call->send) || link->detached) {
        Py_CLEAR(call->receive);
        Py_CLEAR(call->send);
        return;
    }
    receive_clear(call);
    Py_CLEAR(call->held);
    Py_CLEAR(call->method);
    Py_CLEAR(call->target);
    Py_CLEAR(call->query);
    Py_CLEAR(call->ws_reason);
    PyObject *receive = call->receive, *send = call->send;
    /* Everything behind the object's header starts anew. */
    memset((char *)call + sizeof(PyObject), 0, sizeof *call - sizeof(PyObject));
    call->link = link;
    call->receive = receive;
    call->send = send;
    link->spare = (Call *)Py_NewRef((PyObject *)call);
}
#endif

void call_drop_spare(Link *link)
{
    Call *call = link->spare;
    link->spare = NULL;
    if (call != NULL) {
        Py_CLEAR(call->receive);
        Py_CLEAR(call->send);
        Py_DECREF(call);
    }
}

void call_disconnect(Call *call)
{
    if (call->disconnected && call->held == NULL) {
        return;
    }
    Py_INCREF(call);
    call->disconnected = true;
    Py_CLEAR(call->held);
    waits_wake_all(&call->receivers);
    waits_wake_all(&call->senders);
    call_pump(call);
    Py_DECREF(call);
}

/* Whether an exception only says that the client left. Frameworks turn the OSError of send()
 * and the disconnect message of receive() into their own: Starlette's ClientDisconnect and
 * WebSocketDisconnect for two. */
static bool says_disconnect(Call *call, PyObject *exception, int depth)
{
    State *state = call->link->state;
    if (PyObject_TypeCheck(exception, (PyTypeObject *)state->client_disconnected)) {
        return true;
    }
    if (strstr(Py_TYPE(exception)->tp_name, "Disconnect") != NULL) {
        return true;
    }
    /* An exception group (PEP 654, and its backport) of nothing else. */
    PyObject *members = depth < 8 ? PyObject_GetAttr(exception, state->str_exceptions) : NULL;
    if (members == NULL) {
        PyErr_Clear();
        return false;
    }
    bool all = PyTuple_Check(members) && PyTuple_GET_SIZE(members) > 0;
    for (Py_ssize_t i = 0; all && i < PyTuple_GET_SIZE(members); i++) {
        all = says_disconnect(call, PyTuple_GET_ITEM(members, i), depth + 1);
    }
    Py_DECREF(members);
    return all;
}

static bool answer_complete(const Call *call)
{
    return call->websocket ? call->ws == WS_ENDED : call->answer == ANSWER_COMPLETE;
}

static void call_raised(Call *call, PyObject *exception)
{
    Link *link = call->link;
    if (PyErr_GivenExceptionMatches(exception, PyExc_SystemExit) ||
        PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) {
        if (link->known != exception) {
            Py_XSETREF(link->raised, Py_NewRef(exception));
        }
        link->known = NULL;
    }
    bool cancelled = link->cancelled_error != NULL && PyObject_IsInstance(exception, link->cancelled_error) == 1;
    PyErr_Clear();
    bool quiet = cancelled ? call->cancelled || call->disconnected || answer_complete(call)
                           : call->disconnected && says_disconnect(call, exception, 0);
    if (!quiet) {
        link_report(link, link->state->str_exception, exception, call);
    }
    call_end(call, true);
}

int call_fail(Call *call)
{
    PyObject *exception = error_take();
    if (PyObject_TypeCheck(exception, (PyTypeObject *)PyExc_Exception)) {
        call_raised(call, exception);
        Py_DECREF(exception);
        return 0;
    }
    call_raised(call, exception);
    error_give(exception);
    return -1;
}

static void call_returned(Call *call)
{
    if (call->websocket) {
        websocket_return(call);
    }
    bool failed = !answer_complete(call) && !call->disconnected;
    if (failed) {
        link_report(call->link, call->link->state->str_incomplete, NULL, call);
    }
    call_end(call, failed);
}

void call_end(Call *call, bool failed)
{
    if (call->ended) {
        return;
    }
    Py_INCREF(call);
    call->ended = true;
    Py_CLEAR(call->task);
    receive_clear(call);
    if (!link_usable(call->link)) {
        call_unlist(call);
    } else if (call->listed) {
        Outbox *out = call->outbox;
        if (failed && !answer_complete(call)) {
            Py_CLEAR(call->held);
            if (call->open_at != NOWHERE && call->open_end == out->next && call->open_at >= out->published) {
                /* Nobody has seen the head: the core can still answer in the app's place. */
                out->next = call->open_at;
            }
        }
        call->want_body_due = false;
        call->end_due = failed ? SPVN_CALL_FAILED : SPVN_CALL_DONE;
        call_pump(call);
    }
    waits_wake_all(&call->receivers);
    waits_wake_all(&call->senders);
    Py_DECREF(call);
}

/* The task is done. */
static void call_settle(Call *call, PyObject *task)
{
    PyObject *exception = PyObject_CallMethodNoArgs(task, call->link->state->str_exception);
    if (exception == Py_None) {
        call_returned(call);
    } else {
        if (exception == NULL) {
            exception = error_take(); /* CancelledError */
        }
        call_raised(call, exception);
    }
    Py_XDECREF(exception);
}

static PyObject *call_done(PyObject *self, PyObject *task)
{
    Call *call = (Call *)self;
    Py_INCREF(call);
    call_settle(call, task);
    call_publish(call);
    Py_DECREF(call);
    Py_RETURN_NONE;
}

/* asyncio.Task takes coroutines only; ASGI asks for an awaitable. Steals the reference. */
static PyObject *as_coroutine(Call *call, PyObject *result)
{
    if (PyCoro_CheckExact(result)) {
        return result;
    }
    PyObject *coroutine = NULL;
    PyAsyncMethods *async = Py_TYPE(result)->tp_as_async;
    if (async != NULL && async->am_await != NULL) {
        coroutine = PyObject_CallOneArg(call->link->state->wrap_awaitable, result);
    } else {
        PyErr_Format(PyExc_TypeError,
                     "The app must be an async callable (scope, receive, send): calling it returned %s, which cannot be awaited.",
                     Py_TYPE(result)->tp_name);
    }
    Py_DECREF(result);
    return coroutine;
}

static PyObject *start_task(Call *call, PyObject *scope)
{
    Link *link = call->link;
    PyObject *coroutine = NULL, *task = NULL;
    if (call->receive == NULL) {
        call->receive = PyCFunction_New(&receive_method, (PyObject *)call);
        call->send = PyCFunction_New(&send_method, (PyObject *)call);
    }
    if (call->receive != NULL && call->send != NULL) {
        PyObject *arguments[] = {NULL, scope, call->receive, call->send};
        coroutine = PyObject_Vectorcall(link->app, arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_DECREF(scope);
    if (coroutine != NULL) {
        coroutine = as_coroutine(call, coroutine);
    }
    if (coroutine == NULL) {
        return NULL;
    }
    PyObject *arguments = PyTuple_New(1);
    if (arguments == NULL) {
        Py_DECREF(coroutine);
        return NULL;
    }
    PyTuple_SET_ITEM(arguments, 0, coroutine);
    task = PyObject_Call(link->task_type, arguments, link->task_options);
    Py_DECREF(arguments);
    return task;
}

int call_run(Call *call, PyObject *scope)
{
    State *state = call->link->state;
    PyObject *task = start_task(call, scope);
    if (task == NULL) {
        /* The app raised before there was a task, or, from its first step, what asyncio
         * does not keep in a task. */
        return call_fail(call);
    }
    PyObject *done = SPVN_EAGER ? PyObject_CallMethodNoArgs(task, state->str_done) : Py_NewRef(Py_False);
    if (done == Py_True) {
        call_settle(call, task);
    } else {
        PyErr_Clear();
        PyObject *callback = PyCFunction_New(&done_method, (PyObject *)call);
        PyObject *added = callback == NULL ? NULL : PyObject_CallMethodOneArg(task, state->str_add_done_callback, callback);
        Py_XDECREF(callback);
        Py_XDECREF(added);
        if (added == NULL) {
            /* Out of memory: nobody would hear of the task's end. */
            PyErr_WriteUnraisable(task);
            call_end(call, true);
        } else {
            call->task = Py_NewRef(task);
        }
    }
    Py_XDECREF(done);
    Py_DECREF(task);
    return 0;
}

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
    Call *call = (Call *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(call->link);
    Py_VISIT(call->task);
    Py_VISIT(call->receive);
    Py_VISIT(call->send);
    return 0;
}

static int call_clear(PyObject *self)
{
    Call *call = (Call *)self;
    Py_CLEAR(call->task);
    Py_CLEAR(call->receive);
    Py_CLEAR(call->send);
    return 0;
}

static void call_dealloc(PyObject *self)
{
    Call *call = (Call *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(call->task);
    receive_clear(call);
    Py_CLEAR(call->held);
    Py_CLEAR(call->method);
    Py_CLEAR(call->target);
    Py_CLEAR(call->query);
    Py_CLEAR(call->ws_reason);
    Py_CLEAR(call->link);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *call_repr(PyObject *self)
{
    Call *call = (Call *)self;
    PyObject *line = call_request_line(call);
    PyObject *repr = line == NULL ? NULL : PyUnicode_FromFormat("<spvn call %R>", line);
    Py_XDECREF(line);
    return repr;
}

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One run of the app; what receive and send are bound to.")},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_repr, call_repr},
    {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "spvn._asgi.Call",
    .basicsize = sizeof(Call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = call_slots,
};

PyTypeObject *call_type_new(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &call_spec, NULL);
}
