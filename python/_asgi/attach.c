/* Attaching a link: the mapping and what guards it, the rings in it, and the event loop. */
#include "asgi.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* A page that the kernel empties in a forked child: how a child learns, without a system call for each
 * look and without process-wide state, that the mapping is not there (MADV_DONTFORK). */
static int guard_fork(Link *link)
{
    uint8_t *page = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    *page = 1;
    link->fork_guard = page;
#ifdef MADV_WIPEONFORK
    if (madvise(page, 1, MADV_WIPEONFORK) == 0) {
        return 0;
    }
#endif
    link->pid = (long)getpid();
    return 0;
}

/* Nothing may block on the bell: a drain that was not rung for reads it too. */
static int unblock_bell(int bell)
{
    int flags = fcntl(bell, F_GETFL);
    if (flags < 0 || ((flags & O_NONBLOCK) == 0 && fcntl(bell, F_SETFL, flags | O_NONBLOCK) < 0)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static int refuse(const char *what)
{
    PyErr_Format(PyExc_ValueError, "The descriptor is not a link to the core: %s.", what);
    return -1;
}

static bool is_power_of_two(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

int link_map(Link *link, int memfd, unsigned long long address, PyObject *loop_bells)
{
    if (guard_fork(link) < 0 || unblock_bell(link->bell) < 0) {
        return -1;
    }
    struct stat status;
    if (fstat(memfd, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (status.st_size < SPVN_HEADER_SIZE) {
        return refuse("it is too small");
    }
    size_t size = (size_t)status.st_size;
    link->shared = address != 0;
    uint8_t *memory = link->shared ? (uint8_t *)(uintptr_t)address
                                   : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (memory == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    link->memory = memory;
    link->memory_size = size;
#ifdef MADV_DONTFORK
    if (!link->shared && madvise(memory, size, MADV_DONTFORK) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
#endif
    if (get64(memory + SPVN_HEADER_MAGIC) != SPVN_MAGIC) {
        return refuse("it does not begin as one");
    }
    uint32_t version = get32(memory + SPVN_HEADER_VERSION);
    if (version != SPVN_VERSION) {
        PyErr_Format(PyExc_ValueError,
                     "The core speaks version %u of the link and this extension version %d: install the same spvn for both.",
                     (unsigned)version, SPVN_VERSION);
        return -1;
    }
    link->loops = get32(memory + SPVN_HEADER_LOOPS);
    uint64_t slots = (uint64_t)link->loops * get32(memory + SPVN_HEADER_SLOTS);
    uint64_t inbox_size = get32(memory + SPVN_HEADER_INBOX_SIZE), outbox_size = get32(memory + SPVN_HEADER_OUTBOX_SIZE);
    uint64_t slots_at = get64(memory + SPVN_HEADER_SLOTS_OFFSET), rings_at = get64(memory + SPVN_HEADER_RINGS_OFFSET);
    uint64_t each = 2 * SPVN_RING_HEADER_SIZE + inbox_size + outbox_size;
    if (link->loops == 0 || slots == 0 || slots > UINT32_MAX || !is_power_of_two(inbox_size) || !is_power_of_two(outbox_size) ||
        outbox_size < 1024 || slots_at % SPVN_SLOT_SIZE != 0 || rings_at % 64 != 0 || slots_at > size ||
        slots * SPVN_SLOT_SIZE > size - slots_at || rings_at > size || link->loops > (size - rings_at) / each) {
        return refuse("its header does not fit its size");
    }
    link->slots = (uint32_t)slots;
    link->slot_table = memory + slots_at;
    if (PyTuple_GET_SIZE(loop_bells) != (Py_ssize_t)link->loops) {
        PyErr_Format(PyExc_ValueError, "The link has %u poll loops, got %zd bells for them.", (unsigned)link->loops,
                     PyTuple_GET_SIZE(loop_bells));
        return -1;
    }
    link->calls = PyMem_RawCalloc(link->slots, sizeof *link->calls);
    link->inboxes = PyMem_Calloc(link->loops, sizeof *link->inboxes);
    link->outboxes = PyMem_Calloc(link->loops, sizeof *link->outboxes);
    if (link->calls == NULL || link->inboxes == NULL || link->outboxes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < link->loops; i++) {
        long bell = PyLong_AsLong(PyTuple_GET_ITEM(loop_bells, i));
        if (bell == -1 && PyErr_Occurred()) {
            return -1;
        }
        Inbox *in = &link->inboxes[i];
        Outbox *out = &link->outboxes[i];
        in->ring = ring_at(memory + rings_at + i * each, inbox_size);
        out->ring = ring_at(memory + rings_at + i * each + SPVN_RING_HEADER_SIZE + inbox_size, outbox_size);
        in->bell = out->bell = (int)bell;
        in->next = in->head_seen = *in->ring.tail;
        out->next = out->published = *out->ring.head;
        out->tail_seen = *out->ring.tail;
    }
    return 0;
}

int link_bind(Link *link, PyObject *loop)
{
    link->loop = Py_NewRef(loop);
    link->call_soon = PyObject_GetAttrString(loop, "call_soon");
    link->create_future = link->call_soon == NULL ? NULL : PyObject_GetAttrString(loop, "create_future");
    PyObject *asyncio = link->create_future == NULL ? NULL : PyImport_ImportModule("asyncio");
    if (asyncio == NULL) {
        return -1;
    }
    link->task_type = PyObject_GetAttrString(asyncio, "Task");
    link->cancelled_error = PyObject_GetAttrString(asyncio, "CancelledError");
    Py_DECREF(asyncio);
#if SPVN_EAGER
    link->task_options = Py_BuildValue("{s:O,s:O}", "loop", loop, "eager_start", Py_True);
#else
    link->task_options = Py_BuildValue("{s:O}", "loop", loop);
#endif
    return link->task_type == NULL || link->cancelled_error == NULL || link->task_options == NULL ? -1 : 0;
}

void link_unmap(Link *link)
{
    if (link->memory_size != 0 && *link->fork_guard != 0 && (link->pid == 0 || link->pid == (long)getpid())) {
        _Atomic uint32_t *sides = (void *)(link->memory + SPVN_HEADER_SIDES);
        if (!link->shared || atomic_fetch_sub(sides, 1) == 1) {
            munmap(link->memory, link->memory_size);
        }
    }
    /* A forked child has no mapping there, or another one that is not ours. */
    link->slot_table = NULL;
    link->memory_size = 0;
}

void link_free(Link *link)
{
    if (link->fork_guard != NULL) {
        munmap((void *)(uintptr_t)link->fork_guard, 1);
    }
    PyMem_RawFree(link->calls);
    PyMem_Free(link->inboxes);
    PyMem_Free(link->outboxes);
}
