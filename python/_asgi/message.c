/* Messages: the dicts that the app sends. */
#include "asgi.h"

bool text_is(PyObject *text, const char *expected)
{
    return PyUnicode_CompareWithASCIIString(text, expected) == 0;
}

PyObject *message_get(const Message *message, PyObject *key)
{
    PyObject *item;
    return dict_get(message->dict, key, &item) > 0 ? item : NULL;
}

/* Takes the items in one pass: messages are small, and their keys are nearly always the
 * interned strings that this module has too, so that it costs less than one look-up each. */
void message_read(Message *message, State *state, PyObject *dict)
{
    *message = (Message){.dict = dict};
    struct {
        PyObject *key, **item;
    } wanted[] = {
        {state->str_type, &message->type},         {state->str_status, &message->status},
        {state->str_headers, &message->headers},   {state->str_body, &message->body},
        {state->str_more_body, &message->more_body}, {state->str_trailers, &message->trailers},
        {state->str_text, &message->text},         {state->str_bytes, &message->bytes},
    };
    const int count = sizeof wanted / sizeof *wanted;
    PyObject *key, *item;
    Py_ssize_t at = 0;
    DICT_LOCK(dict);
    while (PyDict_Next(dict, &at, &key, &item)) {
        int i = 0;
        while (i < count && key != wanted[i].key) {
            i++;
        }
        if (i == count && PyUnicode_Check(key)) {
            i = 0;
            while (i < count && PyUnicode_Compare(key, wanted[i].key) != 0) {
                i++;
            }
        }
        if (i < count && *wanted[i].item == NULL) {
            *wanted[i].item = Py_NewRef(item);
        }
    }
    DICT_UNLOCK();
}

void message_clear(Message *message)
{
    Py_XDECREF(message->type);
    Py_XDECREF(message->status);
    Py_XDECREF(message->headers);
    Py_XDECREF(message->body);
    Py_XDECREF(message->more_body);
    Py_XDECREF(message->trailers);
    Py_XDECREF(message->text);
    Py_XDECREF(message->bytes);
}

int item_true(PyObject *item)
{
    return item == NULL || item == Py_False ? 0 : item == Py_True ? 1 : PyObject_IsTrue(item);
}
