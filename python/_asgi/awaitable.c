/* Awaitables: what receive() and send() return.
 *
 * Done is the one for send() that had nothing to wait for: a shared object, already done.
 * Wait does its work when it is awaited, never when it is made, so that cancelling a task
 * around receive() loses no message. Both are collections.abc.Coroutine, for
 * asyncio.create_task(receive()).
 *
 * A Wait that must wait makes a future of the loop and suspends on it as `await future` would. It
 * looks again after it was woken, as another may have been quicker; and a woken one that is
 * cancelled before it ran wakes the next.
 */
#include "asgi.h"

/* throw(type[, value[, traceback]]) of generators; only the newer form, throw(exception), is left in 3.12+. */
static void raise_thrown(PyObject *arguments)
{
    PyObject *type, *value = NULL, *traceback = NULL;
    if (!PyArg_UnpackTuple(arguments, "throw", 1, 3, &type, &value, &traceback)) {
        return;
    }
    if (PyExceptionInstance_Check(type)) {
        if (traceback != NULL && traceback != Py_None) {
            PyException_SetTraceback(type, traceback);
        }
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyObject *exception = value != NULL && PyExceptionInstance_Check(value) ? Py_NewRef(value)
                              : value == NULL || value == Py_None               ? PyObject_CallNoArgs(type)
                                                                                : PyObject_CallOneArg(type, value);
        if (exception == NULL) {
            return;
        }
        if (traceback != NULL && traceback != Py_None) {
            PyException_SetTraceback(exception, traceback);
        }
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    } else {
        PyErr_Format(PyExc_TypeError, "throw() takes an exception, got %s.", Py_TYPE(type)->tp_name);
    }
}

static void raise_stop_iteration(PyObject *value)
{
    /* Results are None or dicts; a tuple or an exception would have to be wrapped first. */
    if (value == Py_None) {
        PyErr_SetNone(PyExc_StopIteration);
    } else {
        PyErr_SetObject(PyExc_StopIteration, value);
    }
}

/* Done. */

static PyObject *done_next(PyObject *Py_UNUSED(self)) { return NULL; /* StopIteration(None) */ }

static PyObject *done_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value))
{
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *done_throw(PyObject *Py_UNUSED(self), PyObject *arguments)
{
    raise_thrown(arguments);
    return NULL;
}

static PyObject *done_close(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused)) { Py_RETURN_NONE; }

#ifdef SPVN_HAVE_AM_SEND
static PySendResult done_am_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}
#endif

static void done_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef done_methods[] = {
    {"send", done_send, METH_O, NULL},
    {"throw", done_throw, METH_VARARGS, NULL},
    {"close", done_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot done_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An awaitable that is done: its result is None.")},
    {Py_tp_dealloc, done_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, done_next},
    {Py_tp_methods, done_methods},
    {Py_am_await, PyObject_SelfIter},
#ifdef SPVN_HAVE_AM_SEND
    {Py_am_send, done_am_send},
#endif
    {0, NULL},
};

static PyType_Spec done_spec = {
    .name = "spvn._asgi.Done",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = done_slots,
};

PyTypeObject *done_type_new(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &done_spec, NULL);
}

PyObject *done_new(PyTypeObject *type) { return type->tp_alloc(type, 0); }

/* Lists of Waits. They borrow: a Wait leaves its list before it dies. */

static void enlist(Wait *wait, WaitList *list, bool first)
{
    wait->list = list;
    wait->next = first ? list->first : NULL;
    wait->previous = first ? NULL : list->last;
    *(wait->next != NULL ? &wait->next->previous : &list->last) = wait;
    *(wait->previous != NULL ? &wait->previous->next : &list->first) = wait;
}

static void delist(Wait *wait)
{
    WaitList *list = wait->list;
    if (list == NULL) {
        return;
    }
    *(wait->next != NULL ? &wait->next->previous : &list->last) = wait->previous;
    *(wait->previous != NULL ? &wait->previous->next : &list->first) = wait->next;
    wait->next = wait->previous = NULL;
    wait->list = NULL;
}

/* Resolves its future; false when that is cancelled already. Either way it counts as woken: a
 * cancelled one passes on as well, once its task throws the cancellation into it. */
static bool wake(Wait *wait)
{
    State *state = wait->call->link->state;
    PyObject *future = Py_NewRef(wait->future);
    wait->woken = true;
    PyObject *set = PyObject_CallMethodOneArg(future, state->str_set_result, Py_None);
    bool pending = set != NULL;
    if (!pending) {
        PyObject *exception = error_take();
        PyObject *cancelled = PyObject_CallMethodNoArgs(future, state->str_cancelled);
        if (cancelled == Py_True) {
            Py_CLEAR(exception);
        } else {
            PyErr_Clear();
            error_give(exception);
            PyErr_WriteUnraisable(future); /* the loop is closed, for one */
        }
        Py_XDECREF(cancelled);
    }
    Py_XDECREF(set);
    Py_DECREF(future);
    wait->call->link->woken += pending;
    return pending;
}

void waits_wake(WaitList *list)
{
    Wait *wait = list->first;
    while (wait != NULL && !wait->woken) {
        Py_INCREF(wait);
        bool woken = wake(wait);
        Wait *next = wait->list == list ? wait->next : list->first;
        Py_DECREF(wait);
        if (woken) {
            return;
        }
        wait = next;
    }
}

void waits_wake_all(WaitList *list)
{
    /* From the start each time: the loop's methods may be Python, and free others of the list. */
    for (Wait *wait = list->first; wait != NULL;) {
        if (wait->woken) {
            wait = wait->next;
            continue;
        }
        Py_INCREF(wait);
        wake(wait);
        Py_DECREF(wait);
        wait = list->first;
    }
}

/* Wait. */

PyObject *wait_new(Call *call, WaitKind kind, PyObject *message)
{
    PyTypeObject *type = call->link->state->wait_type;
    Wait *wait = (Wait *)type->tp_alloc(type, 0);
    if (wait != NULL) {
        wait->call = (Call *)Py_NewRef((PyObject *)call);
        wait->kind = (uint8_t)kind;
        wait->message = Py_XNewRef(message);
        wait->ticket = call->ticket;
    }
    return (PyObject *)wait;
}

/* Wakes the next in line if there is something for it. */
static void pass_on(Wait *wait)
{
    Call *call = wait->call;
    if (wait->kind == WAIT_RECEIVE) {
        if (call->receivers.first != NULL && receive_ready(call)) {
            waits_wake(&call->receivers);
        }
    } else if (call->senders.first != NULL && call->held == NULL) {
        waits_wake(&call->senders);
    }
}

static void finish(Wait *wait)
{
    delist(wait);
    wait->closed = true;
    Py_CLEAR(wait->message);
    Py_CLEAR(wait->iterator);
    Py_CLEAR(wait->future);
    pass_on(wait);
}

static int raise_disconnected(Call *call)
{
    PyErr_SetString(call->link->state->client_disconnected, "The client left: nothing more can be sent to it.");
    return -1;
}

/* Whether the Wait is done: 1 with its result, 0 when it must (still) wait, -1 raised. */
static int attempt(Wait *wait, PyObject **result)
{
    Call *call = wait->call;
    switch ((WaitKind)wait->kind) {
    case WAIT_RECEIVE:
        return receive_next(call, result);
    case WAIT_DEFERRED:
        if (call->held != NULL || (call->senders.first != NULL && !wait->woken)) {
            return 0;
        }
        switch (send_message(call, wait->message)) {
        case SENT_ERROR:
            return -1;
        case SENT_HELD:
            Py_CLEAR(wait->message);
            wait->kind = WAIT_HELD;
            wait->ticket = call->ticket;
            return 0;
        case SENT_YIELD:
            Py_CLEAR(wait->message);
            wait->kind = WAIT_YIELD;
            return 0;
        case SENT:
            break;
        }
        break;
    case WAIT_HELD:
        if (call->disconnected) {
            return raise_disconnected(call);
        }
        if (call->held != NULL && call->ticket == wait->ticket) {
            return 0;
        }
        break;
    case WAIT_YIELD:
        if (!wait->yielded) {
            return 0;
        }
        break;
    }
    *result = Py_NewRef(Py_None);
    return 1;
}

/* Suspends on a new future; *result is what the task gets to see. */
static PySendResult suspend(Wait *wait, PyObject **result)
{
    Call *call = wait->call;
    call->burst = 0; /* the loop will run */
    if (wait->kind == WAIT_YIELD) {
        /* A bare yield: the task goes on at the loop's next turn. */
        wait->yielded = true;
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    }
    PyObject *future = PyObject_CallNoArgs(call->link->create_future);
    if (future == NULL) {
        return PYGEN_ERROR;
    }
    PyAsyncMethods *async = Py_TYPE(future)->tp_as_async;
    PyObject *iterator = async != NULL && async->am_await != NULL ? async->am_await(future) : NULL;
    if (iterator == NULL || !PyIter_Check(iterator)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "The event loop's create_future() returned what cannot be awaited.");
        }
        Py_XDECREF(iterator);
        Py_DECREF(future);
        return PYGEN_ERROR;
    }
    wait->future = future;
    wait->iterator = iterator;
    /* One that had been woken keeps its place; the sender of what is held comes before those that wait for that. */
    enlist(wait, wait->kind == WAIT_RECEIVE ? &call->receivers : &call->senders, wait->woken || wait->kind == WAIT_HELD);
    wait->woken = false;
    *result = Py_TYPE(iterator)->tp_iternext(iterator);
    return *result != NULL ? PYGEN_NEXT : PYGEN_ERROR;
}

static PySendResult advance(Wait *wait, PyObject **result)
{
    if (wait->closed) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited receive() or send()");
        return PYGEN_ERROR;
    }
    if (!link_on_thread(wait->call->link)) {
        PyErr_SetString(PyExc_RuntimeError, "receive() and send() must be awaited on the event loop that runs the app.");
        return PYGEN_ERROR;
    }
    if (wait->iterator != NULL) {
        if (!wait->woken) {
            PyObject *again = Py_TYPE(wait->iterator)->tp_iternext(wait->iterator);
            if (again != NULL) {
                *result = again; /* resumed by someone else; the future is still pending */
                return PYGEN_NEXT;
            }
            if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_StopIteration)) {
                goto failed;
            }
            PyErr_Clear();
        }
        delist(wait);
        Py_CLEAR(wait->iterator);
        Py_CLEAR(wait->future);
    }
    switch (attempt(wait, result)) {
    case 1:
        finish(wait);
        return PYGEN_RETURN;
    case 0:
        if (suspend(wait, result) == PYGEN_NEXT) {
            return PYGEN_NEXT;
        }
        break;
    }
failed:;
    PyObject *exception = error_take();
    finish(wait);
    error_give(exception);
    return PYGEN_ERROR;
}

#ifdef SPVN_HAVE_AM_SEND
static PySendResult wait_am_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = NULL;
    return advance((Wait *)self, result);
}
#endif

static PyObject *wait_next(PyObject *self)
{
    PyObject *result = NULL;
    if (advance((Wait *)self, &result) == PYGEN_RETURN) {
        if (result != Py_None) {
            raise_stop_iteration(result);
        }
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *wait_send(PyObject *self, PyObject *Py_UNUSED(value))
{
    PyObject *result = wait_next(self);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *wait_throw(PyObject *self, PyObject *arguments)
{
    if (!((Wait *)self)->closed) {
        finish((Wait *)self);
    }
    raise_thrown(arguments);
    return NULL;
}

static PyObject *wait_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!((Wait *)self)->closed) {
        finish((Wait *)self);
    }
    Py_RETURN_NONE;
}

static int wait_traverse(PyObject *self, visitproc visit, void *arg)
{
    Wait *wait = (Wait *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(wait->call);
    Py_VISIT(wait->message);
    Py_VISIT(wait->future);
    Py_VISIT(wait->iterator);
    return 0;
}

static int wait_clear(PyObject *self)
{
    Wait *wait = (Wait *)self;
    /* Not the call: methods use it as long as somebody can call them. */
    Py_CLEAR(wait->message);
    return 0;
}

static void wait_dealloc(PyObject *self)
{
    Wait *wait = (Wait *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (!wait->closed) {
        bool suspended = wait->list != NULL;
        delist(wait);
        Py_CLEAR(wait->message);
        Py_CLEAR(wait->iterator);
        Py_CLEAR(wait->future);
        if (suspended && link_on_thread(wait->call->link)) {
            PyObject *exception = error_take();
            pass_on(wait);
            if (exception != NULL) {
                error_give(exception);
            }
        }
    }
    Py_CLEAR(wait->call);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef wait_methods[] = {
    {"send", wait_send, METH_O, NULL},
    {"throw", wait_throw, METH_VARARGS, NULL},
    {"close", wait_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An awaitable that receives or sends a message when it is awaited.")},
    {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},
    {Py_tp_dealloc, wait_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wait_next},
    {Py_tp_methods, wait_methods},
    {Py_am_await, PyObject_SelfIter},
#ifdef SPVN_HAVE_AM_SEND
    {Py_am_send, wait_am_send},
#endif
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "spvn._asgi.Wait",
    .basicsize = sizeof(Wait),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wait_slots,
};

PyTypeObject *wait_type_new(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &wait_spec, NULL);
}
