/* The end of a worker whose core is gone.
 *
 * A thread without Python: code of the app may hold the GIL for as long as it likes, and
 * the process is of no use to anybody by then.
 */
#include "asgi.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

typedef struct {
    int descriptor, milliseconds, code;
} Watch;

static void *watch(void *argument)
{
    Watch w = *(Watch *)argument;
    PyMem_RawFree(argument);
    /* Not a read: the workers share what is behind the descriptor, and others may have made it non-blocking. */
    struct pollfd pipe = {.fd = w.descriptor, .events = POLLIN};
    int found;
    while ((found = poll(&pipe, 1, -1)) < 0 && errno == EINTR) {
    }
    if (found > 0 && (pipe.revents & POLLNVAL) == 0) {
        poll(NULL, 0, w.milliseconds);
        _exit(w.code);
    }
    return NULL;
}

PyObject *exit_when_closed(PyObject *Py_UNUSED(module), PyObject *args)
{
    Watch w;
    double seconds;
    if (!PyArg_ParseTuple(args, "idi:exit_when_closed", &w.descriptor, &seconds, &w.code)) {
        return NULL;
    }
    w.milliseconds = (int)(seconds * 1000);
    Watch *argument = PyMem_RawMalloc(sizeof w);
    if (argument == NULL) {
        return PyErr_NoMemory();
    }
    *argument = w;
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    int failed = pthread_create(&thread, NULL, watch, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        PyMem_RawFree(argument);
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pthread_detach(thread);
    Py_RETURN_NONE;
}
