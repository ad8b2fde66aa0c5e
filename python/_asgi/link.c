/* Link: the worker's end of the memory that it shares with the core, and what Python sees of it. */
#include "wsgi.h"

bool link_on_thread(const Link *link) { return link->thread == PyThread_get_thread_ident(); }

int link_check(Link *link)
{
    if (link->detached) {
        PyErr_SetString(link->state->client_disconnected, "The link to the core is closed: nothing more can be sent.");
        return -1;
    }
    if (!link_usable(link)) {
        PyErr_SetString(PyExc_RuntimeError, "This process was forked from a worker: only the worker itself can answer its calls.");
        return -1;
    }
    return 0;
}

int link_call_soon(Link *link, PyMethodDef *method)
{
    PyObject *callback = PyCFunction_New(method, (PyObject *)link);
    PyObject *handle = callback == NULL ? NULL : PyObject_CallOneArg(link->call_soon, callback);
    Py_XDECREF(callback);
    Py_XDECREF(handle);
    return handle != NULL ? 0 : -1;
}

void link_flush(Link *link)
{
    if (!link_usable(link)) {
        return;
    }
    pool_lock(link->pool);
    for (uint32_t i = 0; i < link->loops; i++) {
        outbox_publish(&link->outboxes[i]);
        outbox_ring(&link->outboxes[i]);
    }
    pool_unlock(link->pool);
}

static PyObject *flush(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Link *link = (Link *)self;
    link->flush_scheduled = false;
    link_flush(link);
    Py_RETURN_NONE;
}

static PyMethodDef flush_method = {"flush", flush, METH_NOARGS, NULL};

void link_flush_soon(Link *link)
{
    if (link->flush_scheduled) {
        return;
    }
    if (link_call_soon(link, &flush_method) == 0) {
        link->flush_scheduled = true;
    } else {
        PyErr_Clear(); /* the loop is closing */
        link_flush(link);
    }
}

static PyObject *end_batch(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Link *link = (Link *)self;
    link->batching = false;
    link_flush(link);
    if (link->depth == 0 && !link->resume_scheduled && link_usable(link)) {
        link_set_draining(link, false);
    }
    Py_RETURN_NONE;
}

static PyMethodDef batch_method = {"batch", end_batch, METH_NOARGS, NULL};

void link_batch(Link *link)
{
    if (!link->batching) {
        link->batching = link_call_soon(link, &batch_method) == 0;
        PyErr_Clear(); /* the loop is closing: everything is rung for by itself, as ever */
    }
}

void link_report(Link *link, PyObject *kind, PyObject *exception, Call *call)
{
    PyObject *line = call_request_line(call);
    PyObject *result = NULL;
    if (line != NULL && link->on_error != NULL) {
        result = PyObject_CallFunctionObjArgs(link->on_error, kind, exception != NULL ? exception : Py_None, line, NULL);
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(link->on_error);
    }
    Py_XDECREF(result);
    Py_XDECREF(line);
}

/* Control records: those of call 0 go through outbox 0. */

static bool write_control(Link *link, uint16_t type, PyObject *payload)
{
    size_t size = payload == NULL || payload == Py_None ? 0 : (size_t)PyBytes_GET_SIZE(payload);
    pool_lock(link->pool);
    uint8_t *record = outbox_reserve(&link->outboxes[0], size, type, 0, 0);
    if (record == NULL) {
        outbox_want_room(&link->outboxes[0]);
        record = outbox_reserve(&link->outboxes[0], size, type, 0, 0); /* room may have come meanwhile */
    }
    if (record != NULL && size > 0) {
        memcpy(record + SPVN_RECORD_HEADER_SIZE, PyBytes_AS_STRING(payload), size);
    }
    pool_unlock(link->pool);
    return record != NULL;
}

int link_control(Link *link, uint16_t type, PyObject *payload)
{
    if (link_check(link) < 0) {
        return -1;
    }
    if (link->controls_due != NULL || !write_control(link, type, payload)) {
        PyObject *due = Py_BuildValue("(iO)", (int)type, payload != NULL ? payload : Py_None);
        if (link->controls_due == NULL) {
            link->controls_due = PyList_New(0);
        }
        int failed = due == NULL || link->controls_due == NULL || PyList_Append(link->controls_due, due) < 0;
        Py_XDECREF(due);
        return failed ? -1 : 0;
    }
    link_flush(link);
    return 0;
}

void link_control_due(Link *link)
{
    while (link->controls_due != NULL) {
        PyObject *due = PyList_GET_ITEM(link->controls_due, 0);
        if (!write_control(link, (uint16_t)PyLong_AsLong(PyTuple_GET_ITEM(due, 0)), PyTuple_GET_ITEM(due, 1))) {
            return;
        }
        if (PyList_GET_SIZE(link->controls_due) == 1) {
            Py_CLEAR(link->controls_due);
        } else if (PySequence_DelItem(link->controls_due, 0) < 0) {
            PyErr_WriteUnraisable((PyObject *)link);
            return;
        }
    }
}

static int link_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"memfd",     "bell",  "loop_bells", "app",        "loop",     "root_path",
                               "state",     "on_error", "on_control", "on_timer", "pathsend", "alone", "address", NULL};
    Link *link = (Link *)self;
    int memfd, bell, pathsend = 0, alone = 0;
    unsigned long long address = 0;
    PyObject *bells, *app, *loop, *root_path = NULL, *app_state = Py_None, *on_error = NULL, *on_control = NULL,
             *on_timer = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iiOOO|$UOOOOppK:Link", keywords, &memfd, &bell, &bells, &app, &loop,
                                     &root_path, &app_state, &on_error, &on_control, &on_timer, &pathsend, &alone,
                                     &address)) {
        return -1;
    }
    if (link->memory != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "A Link is attached once.");
        return -1;
    }
    if (on_timer != Py_None && !PyCallable_Check(on_timer)) {
        PyErr_Format(PyExc_TypeError, "on_timer must be a callable or None, got %s.", Py_TYPE(on_timer)->tp_name);
        return -1;
    }
    if (app_state != Py_None && !PyDict_Check(app_state)) {
        PyErr_Format(PyExc_TypeError, "state must be a dict or None, got %s.", Py_TYPE(app_state)->tp_name);
        return -1;
    }
    State *state = PyType_GetModuleState(Py_TYPE(self));
    if (state == NULL) {
        /* A subclass: its module is another one. */
        PyErr_SetString(PyExc_TypeError, "Link cannot be subclassed.");
        return -1;
    }
    bool pooled = PyObject_TypeCheck(app, state->pool_type);
    if ((!pooled && !PyCallable_Check(app)) || on_error == NULL || !PyCallable_Check(on_error) || on_control == NULL ||
        !PyCallable_Check(on_control)) {
        PyErr_SetString(PyExc_TypeError,
                        "Link needs app, on_error and on_control, which are callables; or a Pool as its app.");
        return -1;
    }
    link->state = state;
    link->bell = bell;
    link->pathsend = pathsend != 0;
    link->alone = alone != 0;
    link->app = Py_NewRef(app);
    link->on_error = Py_NewRef(on_error);
    link->on_control = Py_NewRef(on_control);
    link->on_timer = on_timer != Py_None ? Py_NewRef(on_timer) : NULL;
    link->app_state = app_state != Py_None ? Py_NewRef(app_state) : NULL;
    link->root_path = Py_NewRef(root_path != NULL ? root_path : state->str_empty);
    link->root_path_bytes = PyUnicode_AsUTF8String(link->root_path);
    PyObject *loop_bells = link->root_path_bytes == NULL ? NULL : PySequence_Tuple(bells);
    if (loop_bells == NULL) {
        return -1;
    }
    int failed = link_map(link, memfd, address, loop_bells) < 0 || link_bind(link, loop) < 0 || scope_prepare(link) < 0 ||
                 (pooled && pool_attach((Pool *)app, link) < 0);
    Py_DECREF(loop_bells);
    if (failed) {
        return -1;
    }
    link->pool = pooled ? (Pool *)app : NULL;
    link->thread = PyThread_get_thread_ident();
    link->detached = false;
    /* What the core wrote before this is found by whoever drains next: ring ourselves. */
    bool there = false;
    for (uint32_t i = 0; i < link->loops; i++) {
        there = !inbox_arm(&link->inboxes[i]) || there;
    }
    if (there) {
        ring_bell(bell);
    }
    return 0;
}

static PyObject *link_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Link *link = (Link *)type->tp_alloc(type, 0);
    if (link != NULL) {
        link->detached = true; /* until it is attached */
    }
    return (PyObject *)link;
}

/* Detaching. */

void link_detach(Link *link)
{
    if (link->detached) {
        return;
    }
    if (link_usable(link)) {
        link_flush(link);
        *(_Atomic uint32_t *)(void *)(link->memory + SPVN_HEADER_DRAINING) = 0;
        if (link->pool != NULL) {
            pool_detach(link->pool);
        }
    }
    link->detached = true;
    call_drop_spare(link);
    Py_CLEAR(link->controls_due);
    for (uint32_t i = 0; i < link->loops; i++) {
        outbox_unblock(link, &link->outboxes[i]);
    }
    Call *call = link->live;
    Py_XINCREF(call);
    while (call != NULL) {
        /* Ended ones only wait for room. The others stay listed, which keeps their tasks alive. */
        Call *next = (Call *)Py_XNewRef((PyObject *)call->next);
        call_disconnect(call);
        if (call->ended) {
            call_unlist(call);
        }
        Py_DECREF(call);
        call = next;
    }
}

static int check_thread(Link *link)
{
#ifdef Py_GIL_DISABLED
    if (link->state != NULL && !link_on_thread(link)) {
        PyErr_SetString(PyExc_RuntimeError, "A Link belongs to the thread of its event loop.");
        return -1;
    }
#else
    (void)link;
#endif
    return 0;
}

static int check_attached(Link *link)
{
    if (link->state == NULL || link->memory == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "The Link is not attached: its __init__ failed.");
        return -1;
    }
    return check_thread(link);
}

int link_usable_here(Link *link) { return check_attached(link) < 0 ? -1 : link_check(link); }

/* Methods. */

static PyObject *method_drain(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Link *link = (Link *)self;
    if (link->memory == NULL) {
        return check_attached(link) < 0 ? NULL : Py_NewRef(Py_None);
    }
    return link_drain(link, true);
}

static PyObject *send_control(PyObject *self, uint16_t type, PyObject *payload)
{
    Link *link = (Link *)self;
    if (check_attached(link) < 0 || link_control(link, type, payload) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *method_ready(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Link *link = (Link *)self;
    if (link->pool == NULL) {
        return send_control(self, SPVN_READY, NULL);
    }
    uint8_t payload[8];
    put64(payload, link->pool->threads); /* u32 threads, u32 0 */
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)payload, sizeof payload);
    PyObject *result = bytes == NULL ? NULL : send_control(self, SPVN_READY, bytes);
    Py_XDECREF(bytes);
    return result;
}

static PyObject *method_stopped(PyObject *self, PyObject *Py_UNUSED(unused)) { return send_control(self, SPVN_STOPPED, NULL); }

static PyObject *method_start_failed(PyObject *self, PyObject *message)
{
    Link *link = (Link *)self;
    if (!PyUnicode_Check(message)) {
        PyErr_Format(PyExc_TypeError, "The message must be a str, got %s.", Py_TYPE(message)->tp_name);
        return NULL;
    }
    if (check_attached(link) < 0 || link_check(link) < 0) {
        return NULL;
    }
    PyObject *text = PyUnicode_AsEncodedString(message, "utf-8", "backslashreplace");
    if (text == NULL) {
        return NULL;
    }
    Py_ssize_t length = PyBytes_GET_SIZE(text), most = (Py_ssize_t)outbox_max_payload(&link->outboxes[0]) - 8;
    if (length > most) {
        length = most; /* a traceback of this length says it all by then */
    }
    PyObject *payload = PyBytes_FromStringAndSize(NULL, 8 + length);
    PyObject *result = NULL;
    if (payload != NULL) {
        put64((uint8_t *)PyBytes_AS_STRING(payload), (uint64_t)length); /* u32 length, u32 0 */
        memcpy(PyBytes_AS_STRING(payload) + 8, PyBytes_AS_STRING(text), (size_t)length);
        result = send_control(self, SPVN_START_FAILED, payload);
        Py_DECREF(payload);
    }
    Py_DECREF(text);
    return result;
}

/* A task keeps no SystemExit and no KeyboardInterrupt to itself: it ends the run of the loop with it. Its done
 * callback, which ends the call, has run by then with uvloop and not with asyncio. */
static PyObject *method_raised(PyObject *self, PyObject *exception)
{
    Link *link = (Link *)self;
    bool raised = link->raised == exception;
    Py_CLEAR(link->raised);
    PyObject *tasks = raised ? NULL : PyList_New(0);
    for (Call *call = link->live; tasks != NULL && call != NULL; call = call->next) {
        if (call->task != NULL && PyList_Append(tasks, call->task) < 0) {
            Py_CLEAR(tasks);
        }
    }
    for (Py_ssize_t i = 0; tasks != NULL && i < PyList_GET_SIZE(tasks) && !raised; i++) {
        PyObject *found = PyObject_CallMethodNoArgs(PyList_GET_ITEM(tasks, i), link->state->str_exception);
        if (found == exception) {
            raised = true;
            link->known = exception;
        }
        Py_XDECREF(found);
        PyErr_Clear(); /* it is not done, or was cancelled */
    }
    Py_XDECREF(tasks);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(raised);
}

static PyObject *method_cancel(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Link *link = (Link *)self;
    if (check_attached(link) < 0) {
        return NULL;
    }
    PyObject *tasks = PyList_New(0);
    for (Call *call = link->live; tasks != NULL && call != NULL; call = call->next) {
        call->cancelled = true;
        if (call->task != NULL && PyList_Append(tasks, call->task) < 0) {
            Py_CLEAR(tasks);
        }
    }
    for (Py_ssize_t i = 0; tasks != NULL && i < PyList_GET_SIZE(tasks); i++) {
        PyObject *cancelled = PyObject_CallMethodNoArgs(PyList_GET_ITEM(tasks, i), link->state->str_cancel);
        if (cancelled == NULL) {
            Py_CLEAR(tasks);
        }
        Py_XDECREF(cancelled);
    }
    if (tasks == NULL) {
        return NULL;
    }
    Py_ssize_t pooled = link->pool != NULL && link_usable(link) ? (Py_ssize_t)pool_cancel(link->pool) : 0;
    PyObject *count = PyLong_FromSsize_t(PyList_GET_SIZE(tasks) + pooled);
    Py_DECREF(tasks);
    return count;
}

static PyObject *method_detach(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Link *link = (Link *)self;
    if (check_thread(link) < 0) {
        return NULL;
    }
    link_detach(link);
    if (link->depth == 0) {
        link_unmap(link);
    }
    Py_RETURN_NONE;
}

static PyObject *get_calls(PyObject *self, void *Py_UNUSED(closure))
{
    Link *link = (Link *)self;
    return PyLong_FromSsize_t(link->live_count + (link->pool != NULL ? (Py_ssize_t)pool_calls(link->pool) : 0));
}

static PyObject *get_detached(PyObject *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(((Link *)self)->detached); }

/* Life. */

static int link_traverse(PyObject *self, visitproc visit, void *arg)
{
    Link *link = (Link *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(link->app);
    Py_VISIT(link->loop);
    Py_VISIT(link->on_error);
    Py_VISIT(link->on_control);
    Py_VISIT(link->on_timer);
    Py_VISIT(link->call_soon);
    Py_VISIT(link->create_future);
    Py_VISIT(link->task_type);
    Py_VISIT(link->task_options);
    Py_VISIT(link->cancelled_error);
    Py_VISIT(link->raised);
    Py_VISIT(link->app_state);
    Py_VISIT(link->http_scope);
    Py_VISIT(link->websocket_scope);
    for (Call *call = link->live; call != NULL; call = call->next) {
        Py_VISIT(call);
    }
    Py_VISIT(link->spare);
    for (uint32_t i = 0; link->outboxes != NULL && i < link->loops; i++) {
        for (Call *call = link->outboxes[i].blocked_first; call != NULL; call = call->blocked_next) {
            Py_VISIT(call);
        }
    }
    return 0;
}

static int link_clear(PyObject *self)
{
    Link *link = (Link *)self;
    if (link->outboxes != NULL) {
        link_detach(link);
        while (link->live != NULL) {
            call_unlist(link->live);
        }
    }
    link->pool = NULL;
    Py_CLEAR(link->app);
    Py_CLEAR(link->loop);
    Py_CLEAR(link->on_error);
    Py_CLEAR(link->on_control);
    Py_CLEAR(link->on_timer);
    Py_CLEAR(link->raised);
    Py_CLEAR(link->app_state);
    Py_CLEAR(link->task_options);
    Py_CLEAR(link->http_scope);
    Py_CLEAR(link->websocket_scope);
    return 0;
}

static void link_dealloc(PyObject *self)
{
    Link *link = (Link *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    link_clear(self);
    Py_CLEAR(link->call_soon);
    Py_CLEAR(link->create_future);
    Py_CLEAR(link->task_type);
    Py_CLEAR(link->cancelled_error);
    Py_CLEAR(link->root_path);
    Py_CLEAR(link->root_path_bytes);
    Py_CLEAR(link->server);
    Py_CLEAR(link->asgi);
    Py_CLEAR(link->http_extensions);
    Py_CLEAR(link->websocket_extensions);
    Py_CLEAR(link->controls_due);
    cache_clear(&link->cache);
    link_unmap(link);
    link_free(link);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(link_doc,
"Link(memfd, bell, loop_bells, app, loop, *, root_path='', state=None, on_error, on_control, on_timer=None, "
"pathsend=False, alone=False, address=0)\n"
"--\n\n"
"A worker's end of the link to the core: runs an ASGI app for the calls that the core offers.\n\n"
"memfd is the shared memory, bell the worker's doorbell and loop_bells those of the core's poll loops,\n"
"one for each. The descriptors stay the caller's: they must stay open until detach().\n\n"
"state is the app's lifespan state, of which each scope gets a shallow copy. on_error(kind, exception,\n"
"request_line) hears of an app's unhandled exception ('exception') and of one that returned\n"
"without a complete answer ('incomplete', None). on_control(name) hears 'drain' and 'stop', and\n"
"'corrupt' once the link was found broken and let go of.\n"
"on_timer(id, number, due, key, data) hears of a timer that is due and is this worker's to run.\n"
"pathsend offers the extension http.response.pathsend. alone says that no other worker could run\n"
"what this one has not begun.\n\n"
"All methods belong to the thread of the loop.\n"
"Raises ValueError when memfd is no link, or one of another version.");

static PyMethodDef link_methods[] = {
    {"drain", method_drain, METH_NOARGS,
     PyDoc_STR("drain()\n--\n\nTakes what the core wrote; the loop's reader callback for the bell.\n\n"
               "Raises what an app raised that no task keeps: SystemExit and KeyboardInterrupt. The link goes on after it.")},
    {"ready", method_ready, METH_NOARGS, PyDoc_STR("ready()\n--\n\nTells the core that the app has started: calls may come.")},
    {"start_failed", method_start_failed, METH_O,
     PyDoc_STR("start_failed(message, /)\n--\n\nTells the core that the app could not start, and why.")},
    {"stopped", method_stopped, METH_NOARGS,
     PyDoc_STR("stopped()\n--\n\nTells the core that the app has shut down: nothing follows.")},
    {"cancel", method_cancel, METH_NOARGS,
     PyDoc_STR("cancel()\n--\n\nCancels the task of every call that runs; returns how many.\n\n"
               "Their CancelledErrors are not reported.")},
    {"raised", method_raised, METH_O,
     PyDoc_STR("raised(exception, /)\n--\n\nWhether a call has just raised this, and ended the run of the loop with it.")},
    {"detach", method_detach, METH_NOARGS,
     PyDoc_STR("detach()\n--\n\nLets go of the memory.\n\n"
               "Calls that still run find their client gone: send() raises ClientDisconnected.")},
    {"timer_set", (PyCFunction)(void (*)(void))timer_set, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("timer_set(key, data, interval, first, jitter, *, all=False, overlap=False, local=False, any=False)\n--\n\n"
               "Sets a timer in the core; times are seconds.")},
    {"timer_cancel", (PyCFunction)(void (*)(void))timer_cancel, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("timer_cancel(key, *, local=False)\n--\n\nCancels a timer.")},
    {"timer_done", timer_done, METH_VARARGS,
     PyDoc_STR("timer_done(id, failed, /)\n--\n\nTells the core that what on_timer heard of has run.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef link_getset[] = {
    {"calls", get_calls, NULL, PyDoc_STR("How many calls are held: claimed, and their end not yet written."), NULL},
    {"detached", get_detached, NULL, PyDoc_STR("Whether detach() was called."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot link_slots[] = {
    {Py_tp_doc, (void *)link_doc},
    {Py_tp_new, link_new},
    {Py_tp_init, link_init},
    {Py_tp_traverse, link_traverse},
    {Py_tp_clear, link_clear},
    {Py_tp_dealloc, link_dealloc},
    {Py_tp_methods, link_methods},
    {Py_tp_getset, link_getset},
    {0, NULL},
};

static PyType_Spec link_spec = {
    .name = "spvn._asgi.Link",
    .basicsize = sizeof(Link),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = link_slots,
};

PyTypeObject *link_type_new(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &link_spec, NULL);
}
