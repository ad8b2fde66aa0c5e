/* The scope: what the app is told of a request, built straight from the record.
 *
 * Strategy: a link keeps one finished dict per type of scope. A scope is a copy of it, which costs
 * one memory copy, with the keys set that differ: most of those keep their place and their
 * hash. Keys and values are as in the ASGI specification, HTTP & WebSocket 2.5; root_path
 * is in front of path and raw_path, as in uvicorn.
 */
#include "asgi.h"

#define SPEC_VERSION "2.5"

bool call_start_read(CallStart *start, const uint8_t *payload, uint32_t length)
{
    if (length < SPVN_CALL_FIXED_SIZE) {
        return false;
    }
    start->scheme = payload[SPVN_CALL_SCHEME];
    start->http_version = payload[SPVN_CALL_HTTP_VERSION];
    start->method_length = get16(payload + SPVN_CALL_METHOD_LENGTH);
    start->path_length = get32(payload + SPVN_CALL_PATH_LENGTH);
    start->raw_path_length = get32(payload + SPVN_CALL_RAW_PATH_LENGTH);
    start->query_length = get32(payload + SPVN_CALL_QUERY_LENGTH);
    start->field_count = get32(payload + SPVN_CALL_FIELD_COUNT);
    start->body_length = get32(payload + SPVN_CALL_BODY_LENGTH);
    start->client_host_length = get16(payload + SPVN_CALL_CLIENT_HOST_LENGTH);
    start->server_host_length = get16(payload + SPVN_CALL_SERVER_HOST_LENGTH);
    start->client_port = (int32_t)get32(payload + SPVN_CALL_CLIENT_PORT);
    start->server_port = (int32_t)get32(payload + SPVN_CALL_SERVER_PORT);
    start->field_bytes = get32(payload + SPVN_CALL_FIELD_BYTES);
    uint64_t total = (uint64_t)SPVN_CALL_FIXED_SIZE + start->method_length + start->path_length + start->raw_path_length +
                     start->query_length + start->client_host_length + start->server_host_length + start->field_bytes +
                     start->body_length;
    if (total > length) {
        return false;
    }
    start->method = payload + SPVN_CALL_FIXED_SIZE;
    start->path = start->method + start->method_length;
    start->raw_path = start->path + start->path_length;
    start->query = start->raw_path + start->raw_path_length;
    start->client_host = start->query + start->query_length;
    start->server_host = start->client_host + start->client_host_length;
    start->fields = start->server_host + start->server_host_length;
    start->body = start->fields + start->field_bytes;
    return true;
}

static PyObject *template_new(Link *link, bool websocket)
{
    State *state = link->state;
    PyObject *scope = PyDict_New();
    if (scope == NULL) {
        return NULL;
    }
    /* In uvicorn's order, for those who print a scope. Whatever is always replaced is here
     * too, so that a copy never grows. */
    int failed = PyDict_SetItem(scope, state->str_type, websocket ? state->str_websocket : state->str_http) < 0 ||
                 PyDict_SetItem(scope, state->str_asgi, Py_None) < 0 ||
                 PyDict_SetItem(scope, state->str_http_version, state->str_version_11) < 0 ||
                 PyDict_SetItem(scope, state->str_server, Py_None) < 0 ||
                 PyDict_SetItem(scope, state->str_client, Py_None) < 0 ||
                 PyDict_SetItem(scope, state->str_scheme, websocket ? state->str_ws : state->str_http) < 0 ||
                 (!websocket && PyDict_SetItem(scope, state->str_method, state->str_GET) < 0) ||
                 PyDict_SetItem(scope, state->str_root_path, link->root_path) < 0 ||
                 PyDict_SetItem(scope, state->str_path, Py_None) < 0 ||
                 PyDict_SetItem(scope, state->str_raw_path, Py_None) < 0 ||
                 PyDict_SetItem(scope, state->str_query_string, state->empty_bytes) < 0 ||
                 PyDict_SetItem(scope, state->str_headers, Py_None) < 0 ||
                 (websocket && PyDict_SetItem(scope, state->str_subprotocols, Py_None) < 0) ||
                 (link->app_state != NULL && PyDict_SetItem(scope, state->str_state, Py_None) < 0) ||
                 PyDict_SetItem(scope, state->str_extensions, Py_None) < 0;
    if (failed) {
        Py_CLEAR(scope);
    }
    return scope;
}

static int add_extension(PyObject *extensions, const char *name)
{
    PyObject *empty = PyDict_New();
    int result = empty == NULL ? -1 : PyDict_SetItemString(extensions, name, empty);
    Py_XDECREF(empty);
    return result;
}

int scope_prepare(Link *link)
{
    link->asgi = Py_BuildValue("{s:s,s:s}", "version", "3.0", "spec_version", SPEC_VERSION);
    link->http_extensions = PyDict_New();
    link->websocket_extensions = PyDict_New();
    link->server = Py_NewRef(Py_None);
    if (link->asgi == NULL || link->http_extensions == NULL || link->websocket_extensions == NULL ||
        add_extension(link->http_extensions, "http.response.trailers") < 0 ||
        add_extension(link->http_extensions, "http.response.early_hint") < 0 ||
        (link->pathsend && add_extension(link->http_extensions, "http.response.pathsend") < 0) ||
        add_extension(link->websocket_extensions, "websocket.http.response") < 0) {
        return -1;
    }
    link->http_scope = template_new(link, false);
    link->websocket_scope = template_new(link, true);
    return link->http_scope == NULL || link->websocket_scope == NULL ? -1 : 0;
}

/* Sets scope[key] and steals value; value may be NULL after an error. */
static int set(PyObject *scope, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int result = PyDict_SetItem(scope, key, value);
    Py_DECREF(value);
    return result;
}

static PyObject *method_of(State *state, const uint8_t *method, uint32_t length)
{
#define IS(text, size) (length == (size) && memcmp(method, text, size) == 0)
    PyObject *known = IS("GET", 3)       ? state->str_GET
                      : IS("POST", 4)    ? state->str_POST
                      : IS("HEAD", 4)    ? state->str_HEAD
                      : IS("PUT", 3)     ? state->str_PUT
                      : IS("PATCH", 5)   ? state->str_PATCH
                      : IS("DELETE", 6)  ? state->str_DELETE
                      : IS("OPTIONS", 7) ? state->str_OPTIONS
                                         : NULL;
#undef IS
    return known != NULL ? Py_NewRef(known) : PyUnicode_DecodeLatin1((const char *)method, length, NULL);
}

static PyObject *path_of(Link *link, const CallStart *start)
{
    PyObject *path = PyUnicode_DecodeUTF8((const char *)start->path, start->path_length, "replace");
    if (path == NULL || PyUnicode_GET_LENGTH(link->root_path) == 0) {
        return path;
    }
    PyObject *whole = PyUnicode_Concat(link->root_path, path);
    Py_DECREF(path);
    return whole;
}

static PyObject *raw_path_of(Link *link, const CallStart *start)
{
    bool same = (start->flags & SPVN_FLAG_PATH_IS_RAW) != 0;
    const uint8_t *raw = same ? start->path : start->raw_path;
    uint32_t length = same ? start->path_length : start->raw_path_length;
    Py_ssize_t root = PyBytes_GET_SIZE(link->root_path_bytes);
    if (root == 0) {
        return PyBytes_FromStringAndSize((const char *)raw, length);
    }
    PyObject *whole = PyBytes_FromStringAndSize(NULL, root + length);
    if (whole != NULL) {
        memcpy(PyBytes_AS_STRING(whole), PyBytes_AS_STRING(link->root_path_bytes), (size_t)root);
        memcpy(PyBytes_AS_STRING(whole) + root, raw, length);
    }
    return whole;
}

static PyObject *headers_of(Link *link, const CallStart *start)
{
    const uint8_t *at = start->fields, *end = at + start->field_bytes;
    if (start->field_count > start->field_bytes / 8) {
        PyErr_SetString(PyExc_SystemError, "spvn: a call start has fewer bytes of fields than it says");
        return NULL;
    }
    PyObject *headers = PyList_New(start->field_count);
    if (headers == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < start->field_count; i++) {
        uint64_t room = (uint64_t)(end - at);
        uint32_t name = room >= 8 ? get32(at) : 0, value = room >= 8 ? get32(at + 4) : 0;
        if (room < 8 || (uint64_t)name + value > room - 8) {
            Py_DECREF(headers);
            PyErr_SetString(PyExc_SystemError, "spvn: a field of a call start does not fit");
            return NULL;
        }
        PyObject *pair = cache_field(&link->cache, at + 8, name, at + 8 + name, value);
        if (pair == NULL) {
            Py_DECREF(headers);
            return NULL;
        }
        PyList_SET_ITEM(headers, i, pair);
        at += 8 + (size_t)name + value;
    }
    return headers;
}

/* A connection's address hardly ever changes from one call to the next, so it is kept in the templates. */
static int set_server(Link *link, PyObject *scope, const CallStart *start)
{
    PyObject *known = link->server;
    bool same;
    if (known == Py_None) {
        same = start->server_host_length == 0;
    } else {
        Py_ssize_t length;
        const char *host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(known, 0), &length);
        if (host == NULL) {
            return -1;
        }
        PyObject *port = PyTuple_GET_ITEM(known, 1);
        same = length == (Py_ssize_t)start->server_host_length && memcmp(host, start->server_host, (size_t)length) == 0 &&
               (port == Py_None ? -1 : PyLong_AsLong(port)) == start->server_port;
    }
    if (same) {
        return 0;
    }
    PyObject *server;
    if (start->server_host_length == 0) {
        server = Py_NewRef(Py_None);
    } else {
        PyObject *host = PyUnicode_DecodeUTF8((const char *)start->server_host, start->server_host_length, "replace");
        PyObject *port = start->server_port < 0 ? Py_NewRef(Py_None) : PyLong_FromLong(start->server_port);
        server = host != NULL && port != NULL ? PyTuple_Pack(2, host, port) : NULL;
        Py_XDECREF(host);
        Py_XDECREF(port);
        if (server == NULL) {
            return -1;
        }
    }
    PyObject *old = link->server;
    link->server = server;
    Py_DECREF(old);
    PyObject *key = link->state->str_server;
    if (PyDict_SetItem(link->http_scope, key, server) < 0 || PyDict_SetItem(link->websocket_scope, key, server) < 0) {
        return -1;
    }
    return PyDict_SetItem(scope, key, server);
}

static PyObject *http_version_of(State *state, uint8_t version)
{
    return version == 10 ? state->str_version_10 : version == 20 ? state->str_version_2 : state->str_version_11;
}

static PyObject *scheme_of(State *state, uint8_t scheme)
{
    PyObject *const schemes[] = {state->str_http, state->str_https, state->str_ws, state->str_wss};
    return schemes[scheme & 3];
}

/* The tokens of every sec-websocket-protocol field (RFC 6455 11.3.4). */
static PyObject *subprotocols_of(PyObject *headers)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i);
        PyObject *name = PyTuple_GET_ITEM(pair, 0);
        if (PyBytes_GET_SIZE(name) != 22 || memcmp(PyBytes_AS_STRING(name), "sec-websocket-protocol", 22) != 0) {
            continue;
        }
        const char *at = PyBytes_AS_STRING(PyTuple_GET_ITEM(pair, 1));
        const char *end = at + PyBytes_GET_SIZE(PyTuple_GET_ITEM(pair, 1));
        while (at < end) {
            const char *comma = memchr(at, ',', (size_t)(end - at));
            const char *stop = comma != NULL ? comma : end, *next = comma != NULL ? comma + 1 : end;
            while (at < stop && (*at == ' ' || *at == '\t')) {
                at++;
            }
            while (at < stop && (stop[-1] == ' ' || stop[-1] == '\t')) {
                stop--;
            }
            if (at < stop) {
                PyObject *token = PyUnicode_DecodeLatin1(at, stop - at, NULL);
                if (token == NULL || PyList_Append(list, token) < 0) {
                    Py_CLEAR(list);
                }
                Py_XDECREF(token);
                if (list == NULL) {
                    return NULL;
                }
            }
            at = next;
        }
    }
    return list;
}

PyObject *scope_build(Link *link, Call *call, const CallStart *start)
{
    State *state = link->state;
    PyObject *headers = NULL;
    PyObject *scope = PyDict_Copy(start->websocket ? link->websocket_scope : link->http_scope);
    if (scope == NULL) {
        return NULL;
    }
    call->method = method_of(state, start->method, start->method_length);
    call->target = raw_path_of(link, start);
    call->query = start->query_length == 0 ? Py_NewRef(state->empty_bytes)
                                           : PyBytes_FromStringAndSize((const char *)start->query, start->query_length);
    headers = headers_of(link, start);
    if (call->method == NULL || call->target == NULL || call->query == NULL || headers == NULL) {
        goto failed;
    }
    call->http_version = start->http_version;
    call->head_method = call->method == state->str_HEAD;

    if (PyDict_SetItem(scope, state->str_headers, headers) < 0 ||
        PyDict_SetItem(scope, state->str_raw_path, call->target) < 0 ||
        set(scope, state->str_path, path_of(link, start)) < 0 ||
        set_server(link, scope, start) < 0 ||
        /* Copies, because some middleware writes into them. */
        set(scope, state->str_asgi, PyDict_Copy(link->asgi)) < 0 ||
        set(scope, state->str_extensions,
            PyDict_Copy(start->websocket ? link->websocket_extensions : link->http_extensions)) < 0) {
        goto failed;
    }
    if (start->client_host_length != 0 &&
        set(scope, state->str_client,
            cache_client(&link->cache, start->client_host, start->client_host_length, start->client_port)) < 0) {
        goto failed;
    }
    if (start->query_length != 0 && PyDict_SetItem(scope, state->str_query_string, call->query) < 0) {
        goto failed;
    }
    if (!start->websocket && call->method != state->str_GET && PyDict_SetItem(scope, state->str_method, call->method) < 0) {
        goto failed;
    }
    if (start->http_version != 11 &&
        PyDict_SetItem(scope, state->str_http_version, http_version_of(state, start->http_version)) < 0) {
        goto failed;
    }
    if (start->scheme != (start->websocket ? 2 : 0) &&
        PyDict_SetItem(scope, state->str_scheme, scheme_of(state, start->scheme)) < 0) {
        goto failed;
    }
    if (link->app_state != NULL && set(scope, state->str_state, PyDict_Copy(link->app_state)) < 0) {
        goto failed;
    }
    if (start->websocket && set(scope, state->str_subprotocols, subprotocols_of(headers)) < 0) {
        goto failed;
    }
    Py_DECREF(headers);
    return scope;
failed:
    Py_XDECREF(headers);
    Py_DECREF(scope);
    return NULL;
}

PyObject *call_request_line(Call *call)
{
    PyObject *target = call->target == NULL ? NULL
                                            : PyUnicode_DecodeLatin1(PyBytes_AS_STRING(call->target),
                                                                     PyBytes_GET_SIZE(call->target), NULL);
    PyObject *query = call->query == NULL ? NULL
                                          : PyUnicode_DecodeLatin1(PyBytes_AS_STRING(call->query),
                                                                   PyBytes_GET_SIZE(call->query), NULL);
    if (target == NULL || query == NULL || call->method == NULL) {
        PyErr_Clear();
        Py_XDECREF(target);
        Py_XDECREF(query);
        return Py_NewRef(call->link->state->str_empty);
    }
    PyObject *line = PyUnicode_FromFormat("%U %U%s%U HTTP/%U", call->method, target,
                                          PyUnicode_GET_LENGTH(query) > 0 ? "?" : "", query,
                                          http_version_of(call->link->state, call->http_version));
    Py_DECREF(target);
    Py_DECREF(query);
    return line;
}
