/* The environ: what a WSGI app is told of a request (PEP 3333, and RFC 3875 4.1 for the names).
 *
 * Strings are "native": bytes as latin-1. Fields are HTTP_ and their name in capitals; the same field twice
 * becomes one, joined as RFC 9110 5.3 has it. A name with an underscore is left out: HTTP_X_USER
 * would stand for X-User and X_User alike, and proxies only take care of the first.
 */
#include "wsgi.h"

static const char *const common[] = {
    "accept", "accept-charset", "accept-encoding", "accept-language", "access-control-request-headers",
    "access-control-request-method", "authorization", "baggage", "cache-control", "connection", "content-encoding",
    "cookie", "date", "dnt", "expect", "forwarded", "from", "host", "if-match", "if-modified-since", "if-none-match",
    "if-range", "if-unmodified-since", "keep-alive", "max-forwards", "origin", "pragma", "priority", "proxy-connection",
    "range", "referer", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode",
    "sec-fetch-site", "sec-fetch-user", "sec-gpc", "te", "traceparent", "tracestate", "trailer", "transfer-encoding",
    "upgrade", "upgrade-insecure-requests", "user-agent", "via", "x-amzn-trace-id", "x-api-key", "x-correlation-id",
    "x-csrftoken", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
    "x-real-ip", "x-request-id", "x-requested-with", "x-scheme",
};

static unsigned name_slot(const uint8_t *name, size_t length)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ name[i]) * 16777619u;
    }
    return (hash ^ hash >> 16) % SPVN_ENVIRON_NAMES;
}

/* "HTTP_" and the name in capitals. */
static PyObject *key_new(const uint8_t *name, uint32_t length)
{
    PyObject *key = PyUnicode_New(5 + (Py_ssize_t)length, 127);
    if (key != NULL) {
        Py_UCS1 *to = PyUnicode_1BYTE_DATA(key);
        memcpy(to, "HTTP_", 5);
        for (uint32_t i = 0; i < length; i++) {
            uint8_t c = name[i];
            to[5 + i] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (Py_UCS1)(c - 32) : c;
        }
    }
    return key;
}

static PyObject *key_of(Pool *pool, const uint8_t *name, uint32_t length)
{
    const char *known;
    for (unsigned slot = name_slot(name, length); (known = pool->names[slot].name) != NULL;
         slot = (slot + 1) % SPVN_ENVIRON_NAMES) {
        if (strncmp(known, (const char *)name, length) == 0 && known[length] == '\0') {
            return Py_NewRef(pool->names[slot].key);
        }
    }
    return key_new(name, length);
}

int environ_prepare(Pool *pool)
{
    const struct {
        PyObject **key;
        const char *name;
    } keys[] = {
        {&pool->key_method, "REQUEST_METHOD"},   {&pool->key_path, "PATH_INFO"},
        {&pool->key_query, "QUERY_STRING"},      {&pool->key_uri, "REQUEST_URI"},
        {&pool->key_raw_uri, "RAW_URI"},         {&pool->key_protocol, "SERVER_PROTOCOL"},
        {&pool->key_scheme, "wsgi.url_scheme"},  {&pool->key_address, "REMOTE_ADDR"},
        {&pool->key_port, "REMOTE_PORT"},        {&pool->key_server_name, "SERVER_NAME"},
        {&pool->key_server_port, "SERVER_PORT"}, {&pool->key_type, "CONTENT_TYPE"},
        {&pool->key_length, "CONTENT_LENGTH"},   {&pool->key_input, "wsgi.input"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if ((*keys[i].key = PyUnicode_InternFromString(keys[i].name)) == NULL) {
            return -1;
        }
    }
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        uint32_t length = (uint32_t)strlen(common[i]);
        PyObject *key = key_new((const uint8_t *)common[i], length);
        if (key == NULL) {
            return -1;
        }
        PyUnicode_InternInPlace(&key);
        unsigned slot = name_slot((const uint8_t *)common[i], length);
        while (pool->names[slot].name != NULL) {
            slot = (slot + 1) % SPVN_ENVIRON_NAMES;
        }
        pool->names[slot].name = common[i];
        pool->names[slot].key = key;
    }
    return 0;
}

void environ_clear(Pool *pool)
{
    PyObject **const keys[] = {
        &pool->key_method,  &pool->key_path,        &pool->key_query,       &pool->key_uri,  &pool->key_raw_uri,
        &pool->key_protocol, &pool->key_scheme,     &pool->key_address,     &pool->key_port, &pool->key_server_name,
        &pool->key_server_port, &pool->key_type,    &pool->key_length,      &pool->key_input,
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        Py_CLEAR(*keys[i]);
    }
    for (size_t i = 0; i < SPVN_ENVIRON_NAMES; i++) {
        Py_CLEAR(pool->names[i].key);
    }
}

/* Sets environ[key] and steals value; value may be NULL after an error. */
static int set(PyObject *environ, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int result = PyDict_SetItem(environ, key, value);
    Py_DECREF(value);
    return result;
}

static PyObject *latin1(const uint8_t *bytes, uint32_t length)
{
    return PyUnicode_DecodeLatin1((const char *)bytes, length, NULL);
}

static bool name_is(const uint8_t *name, uint32_t length, const char *expected)
{
    return strlen(expected) == length && memcmp(name, expected, length) == 0;
}

/* A field that was there before gets the other value too. */
static int add_field(PyObject *environ, PyObject *key, PyObject *value, bool cookie)
{
    PyObject *before;
    int found = dict_get(environ, key, &before);
    if (found > 0) {
        /* Cookies are no list (RFC 6265 5.4): RFC 9113 8.2.3 says how to join them. */
        PyObject *joined = PyUnicode_FromFormat(cookie ? "%U; %U" : "%U,%U", before, value);
        Py_DECREF(before);
        return set(environ, key, joined);
    }
    return found < 0 ? -1 : PyDict_SetItem(environ, key, value);
}

static int set_fields(Pool *pool, PyObject *environ, const CallStart *start)
{
    const uint8_t *at = start->fields, *end = at + start->field_bytes;
    for (uint32_t i = 0; i < start->field_count; i++) {
        uint64_t room = (uint64_t)(end - at);
        uint32_t name_length = room >= 8 ? get32(at) : 0, value_length = room >= 8 ? get32(at + 4) : 0;
        if (room < 8 || (uint64_t)name_length + value_length > room - 8) {
            PyErr_SetString(PyExc_SystemError, "spvn: a field of a call start does not fit");
            return -1;
        }
        const uint8_t *name = at + 8, *bytes = name + name_length;
        at = bytes + value_length;
        if (memchr(name, '_', name_length) != NULL) {
            continue;
        }
        PyObject *value = latin1(bytes, value_length);
        if (value == NULL) {
            return -1;
        }
        int result;
        if (name_is(name, name_length, "content-type")) {
            result = PyDict_SetItem(environ, pool->key_type, value);
        } else if (name_is(name, name_length, "content-length")) {
            result = PyDict_SetItem(environ, pool->key_length, value);
        } else {
            PyObject *key = key_of(pool, name, name_length);
            result = key == NULL ? -1 : add_field(environ, key, value, name_is(name, name_length, "cookie"));
            Py_XDECREF(key);
        }
        Py_DECREF(value);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

/* PEP 3333 wants both to be there and not empty; behind a unix socket only Host can say them. */
static int set_server(Pool *pool, PyObject *environ, const CallStart *start, bool secure)
{
    if (start->server_port >= 0 && start->server_host_length > 0) {
        if (set(environ, pool->key_server_name, latin1(start->server_host, start->server_host_length)) < 0) {
            return -1;
        }
        return set(environ, pool->key_server_port, PyUnicode_FromFormat("%d", (int)start->server_port));
    }
    PyObject *host = NULL, *key = key_of(pool, (const uint8_t *)"host", 4);
    int found = key == NULL ? -1 : dict_get(environ, key, &host);
    Py_XDECREF(key);
    if (found < 0) {
        return -1;
    }
    Py_ssize_t length = found ? PyUnicode_GET_LENGTH(host) : 0;
    Py_ssize_t colon = found ? PyUnicode_FindChar(host, ':', 0, length, -1) : -1;
    Py_ssize_t bracket = found ? PyUnicode_FindChar(host, ']', 0, length, -1) : -1; /* [::1] has colons of its own */
    if (colon < bracket || colon < 0) {
        colon = length;
    }
    PyObject *name = colon > 0 ? PyUnicode_Substring(host, 0, colon) : PyUnicode_FromString("localhost");
    PyObject *port = colon + 1 < length ? PyUnicode_Substring(host, colon + 1, length)
                                        : PyUnicode_FromString(secure ? "443" : "80");
    if (found) {
        Py_DECREF(host);
    }
    int result = set(environ, pool->key_server_name, name);
    return set(environ, pool->key_server_port, port) < 0 ? -1 : result;
}

static PyObject *protocol_of(uint8_t version)
{
    return PyUnicode_FromString(version == 10 ? "HTTP/1.0" : version == 20 ? "HTTP/2.0" : "HTTP/1.1");
}

PyObject *environ_build(Exchange *call, const CallStart *start)
{
    Pool *pool = call->pool;
    bool same = (start->flags & SPVN_FLAG_PATH_IS_RAW) != 0;
    call->http_version = start->http_version;
    call->method = latin1(start->method, start->method_length);
    call->target = same ? latin1(start->path, start->path_length) : latin1(start->raw_path, start->raw_path_length);
    call->query = latin1(start->query, start->query_length);
    if (call->method == NULL || call->target == NULL || call->query == NULL) {
        return NULL;
    }
    PyObject *environ = PyDict_Copy(pool->environ);
    if (environ == NULL) {
        return NULL;
    }
    call->head_method = name_is(start->method, start->method_length, "HEAD");
    /* A WebSocket handshake is here a GET whose Upgrade is not taken up (RFC 9110 7.8). */
    bool secure = start->scheme == 1 || start->scheme == 3;
    /* "OPTIONS *" is about no resource. */
    bool asterisk = name_is(start->path, start->path_length, "*");
    PyObject *uri = start->query_length == 0 ? Py_NewRef(call->target)
                                             : PyUnicode_FromFormat("%U?%U", call->target, call->query);
    int failed = PyDict_SetItem(environ, pool->key_method, call->method) < 0 ||
                 set(environ, pool->key_path, latin1(start->path, asterisk ? 0 : start->path_length)) < 0 ||
                 PyDict_SetItem(environ, pool->key_query, call->query) < 0 || uri == NULL ||
                 PyDict_SetItem(environ, pool->key_uri, uri) < 0 ||
                 PyDict_SetItem(environ, pool->key_raw_uri, uri) < 0 ||
                 set(environ, pool->key_protocol, protocol_of(start->http_version)) < 0 ||
                 set(environ, pool->key_scheme, PyUnicode_FromString(secure ? "https" : "http")) < 0 ||
                 /* Empty for a client without an address, behind a unix socket: there for apps that look it up. */
                 set(environ, pool->key_address, latin1(start->client_host, start->client_host_length)) < 0 ||
                 (start->client_port >= 0 &&
                  set(environ, pool->key_port, PyUnicode_FromFormat("%d", (int)start->client_port)) < 0) ||
                 set_fields(pool, environ, start) < 0 || set_server(pool, environ, start, secure) < 0;
    Py_XDECREF(uri);
    if (failed) {
        Py_CLEAR(environ);
    }
    return environ;
}
