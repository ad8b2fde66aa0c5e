/* Rings: the worker's ends of the byte rings in a link's shared memory.
 *
 * Rules:
 *   - Each ring has one producer and one consumer. Inboxes are consumed here and
 *     outboxes produced here, by the thread that owns the Link.
 *   - The cursors in shared memory are only mirrors: each side believes its own copy.
 *   - A flag is stored before the other side's cursor is looked at again, and a cursor
 *     before the other side's flag, all sequentially consistent (the _Atomic operators
 *     and the fence are): with anything weaker both sides can miss each other and a wake-up is lost.
 */
#ifndef SPVN_RING_H
#define SPVN_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "schema.h"

typedef struct {
    _Atomic uint64_t *head, *tail;
    _Atomic uint32_t *sleeping, *want_room;
    uint8_t *data;
    uint64_t size; /* a power of two */
} Ring;

/* The integers of the link are little-endian and so is every machine that this is built
 * for (module.c checks); memcpy because nothing in a payload is aligned. */
static inline uint16_t get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
static inline uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
static inline uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }
static inline void put16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }
static inline void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }
static inline void put64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

static inline Ring ring_at(uint8_t *control, uint64_t size)
{
    return (Ring){
        .head = (_Atomic uint64_t *)(void *)(control + SPVN_RING_HEAD),
        .tail = (_Atomic uint64_t *)(void *)(control + SPVN_RING_TAIL),
        .sleeping = (_Atomic uint32_t *)(void *)(control + SPVN_RING_SLEEPING),
        .want_room = (_Atomic uint32_t *)(void *)(control + SPVN_RING_WANT_ROOM),
        .data = control + SPVN_RING_HEADER_SIZE,
        .size = size,
    };
}

/* Rings a doorbell. The descriptor does not block, and one that was rung too often stays rung. */
static inline void ring_bell(int bell)
{
    uint64_t one = 1;
    while (write(bell, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* The consuming end. */
typedef struct {
    Ring ring;
    uint64_t next;      /* consumed up to here; what tail says */
    uint64_t head_seen; /* head when it was last read */
    int bell;           /* of the producer, for when it waits for room */
} Inbox;

typedef enum { RECORD_NONE, RECORD_THERE, RECORD_CORRUPT } RecordState;

/* Finds the next record without consuming it. */
static inline RecordState inbox_peek(Inbox *in, uint8_t **record, uint32_t *length)
{
    for (;;) {
        if (in->next == in->head_seen) {
            uint64_t head = *in->ring.head;
            if (head == in->next) {
                return RECORD_NONE;
            }
            if (head - in->next > in->ring.size || (head & 7) != 0) {
                return RECORD_CORRUPT;
            }
            in->head_seen = head;
        }
        uint64_t offset = in->next & (in->ring.size - 1);
        uint64_t limit = in->head_seen - in->next;
        if (limit > in->ring.size - offset) {
            limit = in->ring.size - offset;
        }
        *record = in->ring.data + offset;
        *length = get32(*record + SPVN_RECORD_LENGTH);
        if (*length == 0 || (*length & 7) != 0 || *length > limit) {
            return RECORD_CORRUPT;
        }
        if (get16(*record + SPVN_RECORD_TYPE) != SPVN_PAD) {
            return *length < SPVN_RECORD_HEADER_SIZE ? RECORD_CORRUPT : RECORD_THERE;
        }
        in->next += *length; /* told to the producer with the next record */
    }
}

/* Consumes a record of this length: its bytes may be overwritten from now on. */
static inline void inbox_advance(Inbox *in, uint32_t length)
{
    in->next += length;
    *in->ring.tail = in->next;
    if (*in->ring.want_room != 0) {
        uint64_t used = *in->ring.head - in->next;
        if (used <= in->ring.size - in->ring.size / 4 && atomic_exchange(in->ring.want_room, 0) != 0) {
            ring_bell(in->bell);
        }
    }
}

/* Says that the consumer is about to sleep; false: there is something to take after all. */
static inline bool inbox_arm(Inbox *in)
{
    *in->ring.sleeping = 1;
    if (*in->ring.head != in->next) {
        *in->ring.sleeping = 0;
        return false;
    }
    return true;
}

static inline void inbox_disarm(Inbox *in)
{
    if (*in->ring.sleeping != 0) {
        *in->ring.sleeping = 0;
    }
}

struct Call;

/* The producing end. */
typedef struct {
    Ring ring;
    uint64_t next;      /* reserved up to here */
    uint64_t published; /* what head says */
    uint64_t tail_seen; /* the consumer's tail when it was last read */
    int bell;           /* of the consumer */
    bool bell_due;      /* something was published and the consumer was not rung for it */
    struct Call *blocked_first, *blocked_last; /* calls that wait for room, oldest first */
} Outbox;

static inline uint64_t record_size(uint64_t payload)
{
    return (SPVN_RECORD_HEADER_SIZE + payload + 7) & ~(uint64_t)7;
}

/* The longest payload a record can have: a record is at most a quarter of its ring, so that a
 * pad and a record always fit together. */
static inline uint64_t outbox_max_payload(const Outbox *out)
{
    return out->ring.size / 4 - SPVN_RECORD_HEADER_SIZE;
}

/* Whether `need` more bytes are free. */
static inline bool outbox_has_room(Outbox *out, uint64_t need)
{
    if (out->ring.size - (out->next - out->tail_seen) >= need) {
        return true;
    }
    out->tail_seen = *out->ring.tail;
    return out->ring.size - (out->next - out->tail_seen) >= need;
}

/* Reserves a record and fills its header; NULL when there is no room for it. The record
 * is invisible until outbox_publish. */
static inline uint8_t *outbox_reserve(Outbox *out, uint64_t payload, uint16_t type, uint16_t flags, uint64_t call)
{
    uint64_t need = record_size(payload);
    uint64_t offset = out->next & (out->ring.size - 1);
    uint64_t pad = out->ring.size - offset;
    if (pad >= need) {
        pad = 0;
    }
    if (!outbox_has_room(out, pad + need)) {
        return NULL;
    }
    if (pad != 0) {
        uint8_t *skip = out->ring.data + offset;
        put32(skip + SPVN_RECORD_LENGTH, (uint32_t)pad);
        put32(skip + SPVN_RECORD_TYPE, SPVN_PAD); /* type and flags */
        out->next += pad;
        offset = 0;
    }
    uint8_t *record = out->ring.data + offset;
    put32(record + SPVN_RECORD_LENGTH, (uint32_t)need);
    put16(record + SPVN_RECORD_TYPE, type);
    put16(record + SPVN_RECORD_FLAGS, flags);
    put64(record + SPVN_RECORD_CALL, call);
    out->next += need;
    return record;
}

/* Makes what was reserved visible. */
static inline void outbox_publish(Outbox *out)
{
    if (out->published != out->next) {
        out->published = out->next;
        atomic_store_explicit(out->ring.head, out->next, memory_order_release); /* ordered by outbox_ring */
        out->bell_due = true;
    }
}

/* Wakes the consumer if it sleeps and something was published for it. */
static inline void outbox_ring(Outbox *out)
{
    if (out->bell_due) {
        out->bell_due = false;
        /* Between all heads stored so far and the look at the flag: a drain pays for one
         * fence and not for one at each call. */
        atomic_thread_fence(memory_order_seq_cst);
        if (*out->ring.sleeping != 0 && atomic_exchange(out->ring.sleeping, 0) != 0) {
            ring_bell(out->bell);
        }
    }
}

/* The same, unless the consumer only naps: then false, and the caller rings before long. */
static inline bool outbox_ring_sleeper(Outbox *out)
{
    if (out->bell_due) {
        atomic_thread_fence(memory_order_seq_cst);
        if (*out->ring.sleeping == SPVN_NAPPING) {
            return false;
        }
        outbox_ring(out);
    }
    return true;
}

/* Asks the consumer to ring once a quarter is free. Everything written so far is handed
 * over first, or there would be nothing for it to free. */
static inline void outbox_want_room(Outbox *out)
{
    outbox_publish(out);
    outbox_ring(out);
    *out->ring.want_room = 1;
}

#endif
