/* Objects that requests have in common: names and values of fields, addresses of clients.
 *
 * A connection repeats most of its fields in every request, and making and freeing the
 * objects costs more than hashing and comparing them. Everything here is immutable, so it may be shared
 * between scopes. The slots are direct-mapped: what falls into a slot replaces what was
 * there, so memory is bounded and no input makes a look-up slower.
 */
#include "asgi.h"

/* Longer values hardly ever come twice. */
#define LONGEST_CACHED_VALUE 128

static uint64_t hash_bytes(uint64_t hash, const uint8_t *bytes, uint32_t length)
{
    const uint64_t prime = 0x9e3779b97f4a7c15ULL;
    hash ^= length;
    for (; length >= 8; bytes += 8, length -= 8) {
        hash = (hash ^ get64(bytes)) * prime;
        hash ^= hash >> 29;
    }
    uint64_t rest = 0;
    memcpy(&rest, bytes, length);
    hash = (hash ^ rest) * prime;
    return hash ^ (hash >> 32);
}

static bool bytes_are(PyObject *object, const uint8_t *bytes, uint32_t length)
{
    return PyBytes_GET_SIZE(object) == (Py_ssize_t)length && memcmp(PyBytes_AS_STRING(object), bytes, length) == 0;
}

static PyObject *cache_name(Cache *cache, const uint8_t *name, uint32_t length, uint64_t hash)
{
    PyObject **slot = &cache->names[hash % SPVN_NAME_SLOTS];
    if (*slot != NULL && bytes_are(*slot, name, length)) {
        return Py_NewRef(*slot);
    }
    PyObject *made = PyBytes_FromStringAndSize((const char *)name, length);
    if (made != NULL) {
        PyObject *old = *slot;
        *slot = Py_NewRef(made);
        Py_XDECREF(old);
    }
    return made;
}

/* Credentials are not kept beyond their request. */
static bool is_secret(const uint8_t *name, uint32_t length)
{
    return (length == 6 && memcmp(name, "cookie", 6) == 0) ||
           (length == 13 && memcmp(name, "authorization", 13) == 0) ||
           (length == 19 && memcmp(name, "proxy-authorization", 19) == 0);
}

PyObject *cache_field(Cache *cache, const uint8_t *name, uint32_t name_length, const uint8_t *value, uint32_t value_length)
{
    uint64_t name_hash = hash_bytes(0, name, name_length);
    PyObject **slot = NULL;
    if (value_length <= LONGEST_CACHED_VALUE && !is_secret(name, name_length)) {
        slot = &cache->fields[hash_bytes(name_hash, value, value_length) % SPVN_FIELD_SLOTS];
        if (*slot != NULL && bytes_are(PyTuple_GET_ITEM(*slot, 1), value, value_length) &&
            bytes_are(PyTuple_GET_ITEM(*slot, 0), name, name_length)) {
            return Py_NewRef(*slot);
        }
    }
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        return NULL;
    }
    PyObject *first = cache_name(cache, name, name_length, name_hash);
    PyObject *second = PyBytes_FromStringAndSize((const char *)value, value_length);
    PyTuple_SET_ITEM(pair, 0, first);
    PyTuple_SET_ITEM(pair, 1, second);
    if (first == NULL || second == NULL) {
        Py_DECREF(pair);
        return NULL;
    }
    if (slot != NULL) {
        PyObject *old = *slot;
        *slot = Py_NewRef(pair);
        Py_XDECREF(old);
    }
    return pair;
}

static PyObject *make_client(const uint8_t *host, uint32_t length, int32_t port)
{
    PyObject *text = PyUnicode_DecodeUTF8((const char *)host, length, "replace");
    /* The specification wants a number; proxies that name a client do not know its port. */
    PyObject *number = PyLong_FromLong(port < 0 ? 0 : port);
    PyObject *address = NULL;
    if (text != NULL && number != NULL) {
        address = PyTuple_Pack(2, text, number);
    }
    Py_XDECREF(text);
    Py_XDECREF(number);
    return address;
}

PyObject *cache_client(Cache *cache, const uint8_t *host, uint32_t length, int32_t port)
{
    uint64_t hash = hash_bytes((uint64_t)(uint32_t)port << 16, host, length);
    unsigned slot = hash % SPVN_CLIENT_SLOTS;
    PyObject *address = cache->clients[slot].address;
    if (address != NULL && cache->clients[slot].hash == hash) {
        PyObject *known_host = PyTuple_GET_ITEM(address, 0);
        PyObject *known_port = PyTuple_GET_ITEM(address, 1);
        Py_ssize_t known_length;
        const char *known = PyUnicode_AsUTF8AndSize(known_host, &known_length);
        if (known == NULL) {
            PyErr_Clear();
        } else if (known_length == (Py_ssize_t)length && memcmp(known, host, length) == 0 &&
                   PyLong_AsLong(known_port) == (port < 0 ? 0 : port)) {
            return Py_NewRef(address);
        }
    }
    PyObject *made = make_client(host, length, port);
    if (made != NULL) {
        cache->clients[slot].address = Py_NewRef(made);
        cache->clients[slot].hash = hash;
        Py_XDECREF(address);
    }
    return made;
}

void cache_clear(Cache *cache)
{
    for (int i = 0; i < SPVN_NAME_SLOTS; i++) {
        Py_CLEAR(cache->names[i]);
    }
    for (int i = 0; i < SPVN_FIELD_SLOTS; i++) {
        Py_CLEAR(cache->fields[i]);
    }
    for (int i = 0; i < SPVN_CLIENT_SLOTS; i++) {
        Py_CLEAR(cache->clients[i].address);
    }
}
