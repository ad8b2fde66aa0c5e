/* spvn._asgi: the module, and the state that its objects share. */
#include "wsgi.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "spvn supports little-endian machines only: the link's integers are not swapped."
#endif

static int make_strings(State *state)
{
#define X(name)                                                                                                        \
    state->str_##name = PyUnicode_InternFromString(#name);                                                             \
    if (state->str_##name == NULL) {                                                                                   \
        return -1;                                                                                                     \
    }
    SPVN_NAMES(X)
#undef X
#define X(name, text)                                                                                                  \
    state->str_##name = PyUnicode_InternFromString(text);                                                              \
    if (state->str_##name == NULL) {                                                                                   \
        return -1;                                                                                                     \
    }
    SPVN_TEXTS(X)
#undef X
    return 0;
}

/* asyncio.Task wants a coroutine, and only Python makes those. */
static PyObject *make_wrap_awaitable(void)
{
    PyObject *names = Py_BuildValue("{s:s}", "__name__", "spvn._asgi");
    PyObject *wrap = NULL;
    if (names != NULL && PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0) {
        PyObject *result = PyRun_String("async def app(awaitable):\n    return await awaitable\n", Py_file_input, names, names);
        if (result != NULL) {
            wrap = Py_XNewRef(PyDict_GetItemString(names, "app"));
            Py_DECREF(result);
        }
    }
    Py_XDECREF(names);
    return wrap;
}

static int add(PyObject *module, const char *name, PyObject *object)
{
    Py_XINCREF(object);
    if (object == NULL || PyModule_AddObject(module, name, object) < 0) {
        Py_XDECREF(object);
        return -1;
    }
    return 0;
}

static int module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    if (make_strings(state) < 0) {
        return -1;
    }
    state->link_type = link_type_new(module);
    state->call_type = call_type_new(module);
    state->wait_type = wait_type_new(module);
    state->done_type = done_type_new(module);
    state->pool_type = pool_type_new(module);
    state->exchange_type = exchange_type_new(module);
    if (state->link_type == NULL || state->call_type == NULL || state->wait_type == NULL || state->done_type == NULL ||
        state->pool_type == NULL || state->exchange_type == NULL) {
        return -1;
    }
#if PY_VERSION_HEX < 0x030A0000
    state->call_type->tp_new = state->wait_type->tp_new = state->done_type->tp_new = state->exchange_type->tp_new = NULL;
#endif
    state->done = done_new(state->done_type);
    state->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    state->wrap_awaitable = make_wrap_awaitable();
    state->client_disconnected = PyErr_NewExceptionWithDoc(
        "spvn._asgi.ClientDisconnected", "The client left, or its connection was cut: send() cannot reach it any more.",
        PyExc_OSError, NULL);
    if (state->done == NULL || state->empty_bytes == NULL || state->wrap_awaitable == NULL || state->client_disconnected == NULL) {
        return -1;
    }
    state->request_message = Py_BuildValue("{O:O,O:O,O:O}", state->str_type, state->str_http_request, state->str_body,
                                           state->empty_bytes, state->str_more_body, Py_False);
    if (state->request_message == NULL) {
        return -1;
    }
    if (add(module, "Link", (PyObject *)state->link_type) < 0 || add(module, "Pool", (PyObject *)state->pool_type) < 0 ||
        add(module, "ClientDisconnected", state->client_disconnected) < 0 ||
        PyModule_AddIntConstant(module, "VERSION", SPVN_VERSION) < 0) {
        return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->link_type);
    Py_VISIT(state->call_type);
    Py_VISIT(state->wait_type);
    Py_VISIT(state->done_type);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->exchange_type);
    Py_VISIT(state->client_disconnected);
    Py_VISIT(state->done);
    Py_VISIT(state->wrap_awaitable);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->link_type);
    Py_CLEAR(state->call_type);
    Py_CLEAR(state->wait_type);
    Py_CLEAR(state->done_type);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->exchange_type);
    Py_CLEAR(state->client_disconnected);
    Py_CLEAR(state->done);
    Py_CLEAR(state->wrap_awaitable);
    Py_CLEAR(state->empty_bytes);
    Py_CLEAR(state->request_message);
#define X(name) Py_CLEAR(state->str_##name);
    SPVN_NAMES(X)
#undef X
#define X(name, text) Py_CLEAR(state->str_##name);
    SPVN_TEXTS(X)
#undef X
    return 0;
}

static void module_free(void *module) { module_clear((PyObject *)module); }

PyDoc_STRVAR(module_doc, "Runs ASGI apps on the end of a link to spvn's core. Private: use spvn.run().");

static PyMethodDef module_methods[] = {
    {"exit_when_closed", exit_when_closed, METH_VARARGS,
     PyDoc_STR("exit_when_closed(descriptor, seconds, code)\n--\n\nEnd the process with this code, so long after the other end "
               "of a pipe was closed, whatever Python is doing.")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "spvn._asgi",
    .m_doc = module_doc,
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__asgi(void) { return PyModuleDef_Init(&module_def); }
