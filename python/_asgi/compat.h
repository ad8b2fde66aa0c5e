/* The differences between CPython 3.9 and 3.15 that matter here, and nothing else. */
#ifndef SPVN_COMPAT_H
#define SPVN_COMPAT_H

#include <Python.h>

#if PY_VERSION_HEX < 0x030A0000
typedef enum { PYGEN_RETURN = 0, PYGEN_ERROR = -1, PYGEN_NEXT = 1 } PySendResult;
#define Py_TPFLAGS_IMMUTABLETYPE 0UL
#define Py_TPFLAGS_DISALLOW_INSTANTIATION 0UL
static inline PyObject *Py_NewRef(PyObject *object) { Py_INCREF(object); return object; }
static inline PyObject *Py_XNewRef(PyObject *object) { Py_XINCREF(object); return object; }
#else
#define SPVN_HAVE_AM_SEND 1
#endif

/* Tasks that run up to their first real wait as they are made. */
#if PY_VERSION_HEX >= 0x030C0000
#define SPVN_EAGER 1
#else
#define SPVN_EAGER 0
#endif

/* Takes the exception that is set away, normalized; NULL when there is none. */
static inline PyObject *error_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_DECREF(type);
    return value;
#endif
}

/* Sets it again. Steals the reference. */
static inline void error_give(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
#endif
}

/* A new reference to a dict's item: 1; 0 without one, -1 when comparing raised. */
static inline int dict_get(PyObject *dict, PyObject *key, PyObject **item)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyDict_GetItemRef(dict, key, item);
#else
    *item = PyDict_GetItemWithError(dict, key);
    if (*item != NULL) {
        Py_INCREF(*item);
        return 1;
    }
    return PyErr_Occurred() ? -1 : 0;
#endif
}

/* Around PyDict_Next, for builds in which other threads may change the dict. */
#ifdef Py_GIL_DISABLED
#define DICT_LOCK(dict) Py_BEGIN_CRITICAL_SECTION(dict)
#define DICT_UNLOCK() Py_END_CRITICAL_SECTION()
#else
#define DICT_LOCK(dict) ((void)0)
#define DICT_UNLOCK() ((void)0)
#endif

#endif
