"""The core's end of a link in Python, so that spvn._asgi is tested without the core.

Core makes the shared memory and the doorbells, offers calls and reads what the worker wrote. One
process and one thread: cursors are plain 8-byte stores, which is all that a test needs here.
The constants are read from the schema that both languages are generated from.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Schema:
    """The constants of gosrc/link/schema.json as attributes."""

    def __init__(self) -> None:
        groups = json.loads((ROOT / "gosrc/link/schema.json").read_text())["groups"]
        for group in groups:
            for name, value, _ in group["constants"]:
                setattr(self, name, int(value, 0))

    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)


S = Schema()
HTTP, HTTPS, WS, WSS = range(4)

_libc = ctypes.CDLL(None, use_errno=True)


def eventfd() -> int:
    """A doorbell: a non-blocking eventfd (os.eventfd is there from 3.10 on only)."""
    fd = _libc.eventfd(0, os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return int(fd)


def rung(bell: int) -> bool:
    """Whether a bell was rung; it is silent afterwards."""
    try:
        os.read(bell, 8)
    except BlockingIOError:
        return False
    return True


@dataclass
class Record:
    """One record of an outbox, decoded."""

    type: int
    flags: int
    call: int
    payload: bytes

    def __repr__(self) -> str:
        return f"<{self.name} flags={self.flags} call={self.call:#x} {self.payload[:80]!r}>"

    @property
    def name(self) -> str:
        return OUTBOX_NAMES.get(self.type, str(self.type))

    @property
    def last(self) -> bool:
        return bool(self.flags & S.FLAG_LAST)

    @property
    def done(self) -> bool:
        return bool(self.flags & S.FLAG_DONE) or self.type in (S.CALL_DONE, S.CALL_FAILED)

    @property
    def status(self) -> int:
        return int(struct.unpack_from("<I", self.payload, S.RESPONSE_STATUS)[0])

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        _, count, size, _ = struct.unpack_from("<4I", self.payload)
        return decode_fields(self.payload[S.RESPONSE_FIXED_SIZE : S.RESPONSE_FIXED_SIZE + size], count)

    @property
    def body(self) -> bytes:
        """The part of the body in a RESPONSE or RESPONSE_BODY; b"" in other records."""
        if self.type == S.RESPONSE:
            _, _, size, length = struct.unpack_from("<4I", self.payload)
            at = S.RESPONSE_FIXED_SIZE + size
            return self.payload[at : at + length]
        if self.type == S.RESPONSE_BODY:
            (length,) = struct.unpack_from("<I", self.payload)
            return self.payload[S.BODY_BYTES : S.BODY_BYTES + length]
        return b""

    @property
    def number(self) -> int:
        """The u64 of a BODY_CREDIT."""
        return int(struct.unpack_from("<Q", self.payload)[0])

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        count, size = struct.unpack_from("<II", self.payload)
        return decode_fields(self.payload[8 : 8 + size], count)

    @property
    def text(self) -> str:
        """The text of a START_FAILED or PATHSEND."""
        (length,) = struct.unpack_from("<I", self.payload)
        return self.payload[8 : 8 + length].decode()


OUTBOX_NAMES = {
    getattr(S, name): name
    for name in (
        "RESPONSE RESPONSE_BODY TRAILERS INFORMATIONAL PATHSEND BODY_CREDIT WANT_BODY CALL_DONE CALL_FAILED "
        "READY START_FAILED STOPPED WS_ACCEPT WS_SEND WS_CLOSE TIMER_SET TIMER_CANCEL TIMER_DONE"
    ).split()
}


def decode_fields(data: bytes, count: int) -> list[tuple[bytes, bytes]]:
    fields = []
    at = 0
    for _ in range(count):
        n, v = struct.unpack_from("<II", data, at)
        fields.append((data[at + 8 : at + 8 + n], data[at + 8 + n : at + 8 + n + v]))
        at += 8 + n + v
    assert at == len(data), (at, len(data))
    return fields


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(struct.pack("<II", len(n), len(v)) + n + v for n, v in fields)


class Ring:
    """One ring of the mapping: control words by name, and the data."""

    def __init__(self, memory: mmap.mmap, offset: int, size: int) -> None:
        self.memory, self.size, self.data = memory, size, offset + S.RING_HEADER_SIZE
        self._words = {
            "head": (ctypes.c_uint64, S.RING_HEAD),
            "tail": (ctypes.c_uint64, S.RING_TAIL),
            "sleeping": (ctypes.c_uint32, S.RING_SLEEPING),
            "want_room": (ctypes.c_uint32, S.RING_WANT_ROOM),
        }
        self._offset = offset

    def get(self, name: str) -> int:
        kind, at = self._words[name]
        return int(kind.from_buffer(self.memory, self._offset + at).value)

    def set(self, name: str, value: int) -> None:
        kind, at = self._words[name]
        kind.from_buffer(self.memory, self._offset + at).value = value


@dataclass
class Core:
    """The core's end of one link.

    Args:
        loops: poll loops; each has an inbox, an outbox and a bell.
        slots: calls that the worker may hold for each loop.
        inbox, outbox: bytes of a ring, powers of two.
    """

    loops: int = 1
    slots: int = 256
    inbox: int = 1 << 18
    outbox: int = 1 << 18
    version: int = S.VERSION
    bell: int = field(init=False)
    memfd: int = field(init=False)

    def __post_init__(self) -> None:
        self.slots_at = S.HEADER_SIZE
        self.rings_at = self.slots_at + (self.loops * self.slots * S.SLOT_SIZE + 4095) // 4096 * 4096
        each = 2 * S.RING_HEADER_SIZE + self.inbox + self.outbox
        total = self.rings_at + self.loops * each
        self.memfd = os.memfd_create("spvn-test")
        os.ftruncate(self.memfd, total)
        self.memory = mmap.mmap(self.memfd, total)
        struct.pack_into(
            "<QIIIII4xQQQ",
            self.memory,
            0,
            S.MAGIC,
            self.version,
            self.loops,
            self.slots,
            self.inbox,
            self.outbox,
            self.slots_at,
            self.rings_at,
            total,
        )
        self.bell = eventfd()
        self.loop_bells = [eventfd() for _ in range(self.loops)]
        self.inboxes = [Ring(self.memory, self.rings_at + i * each, self.inbox) for i in range(self.loops)]
        outbox_at = self.rings_at + S.RING_HEADER_SIZE + self.inbox
        self.outboxes = [Ring(self.memory, outbox_at + i * each, self.outbox) for i in range(self.loops)]
        for ring in self.outboxes:
            ring.set("sleeping", S.ASLEEP)
        self._generations: dict[int, int] = {}
        self._free = [list(range(self.slots - 1, -1, -1)) for _ in range(self.loops)]

    def close(self) -> None:
        for fd in [self.memfd, self.bell, *self.loop_bells]:
            os.close(fd)

    # Header.

    @property
    def draining(self) -> bool:
        return bool(ctypes.c_uint32.from_buffer(self.memory, S.HEADER_DRAINING).value)

    @property
    def turns(self) -> int:
        return int(ctypes.c_uint64.from_buffer(self.memory, S.HEADER_TURNS).value)

    # Slots.

    def _slot(self, call: int, at: int) -> ctypes.c_uint64:
        return ctypes.c_uint64.from_buffer(self.memory, self.slots_at + (call & 0xFFFFFFFF) * S.SLOT_SIZE + at)

    def state(self, call: int) -> int:
        """The state of a call's slot; an AssertionError when another call has it."""
        word = self._slot(call, S.SLOT_WORD).value
        assert word >> 32 == call >> 32, "the slot has another generation"
        return int(word & 0xFFFFFFFF)

    def claimed_at(self, call: int) -> int:
        return int(self._slot(call, S.SLOT_CLAIMED_AT).value)

    def take_back(self, call: int) -> bool:
        if self.state(call) != S.SLOT_OFFERED:
            return False
        self._slot(call, S.SLOT_WORD).value = call >> 32 << 32 | S.SLOT_FREE
        return True

    def new_call(self, loop: int = 0) -> int:
        """Takes a free slot and marks it offered; returns the call's ID."""
        slot = self._free[loop].pop() + loop * self.slots
        generation = self._generations.get(slot, 0) + 1
        self._generations[slot] = generation
        call = generation << 32 | slot
        self._slot(call, S.SLOT_WORD).value = generation << 32 | S.SLOT_OFFERED
        return call

    def free(self, call: int) -> None:
        """Gives the slot back, as the core does on CALL_DONE."""
        self._slot(call, S.SLOT_WORD).value = call >> 32 << 32 | S.SLOT_FREE
        slot = call & 0xFFFFFFFF
        self._free[slot // self.slots].append(slot % self.slots)

    # Inbox.

    def write(self, type: int, call: int = 0, payload: bytes = b"", flags: int = 0, loop: int | None = None) -> bool:
        """Writes and publishes one record. False: there is no room."""
        if loop is None:
            loop = (call & 0xFFFFFFFF) // self.slots if call else 0
        ring = self.inboxes[loop]
        need = (S.RECORD_HEADER_SIZE + len(payload) + 7) & ~7
        head = ring.get("head")
        offset = head & (ring.size - 1)
        pad = ring.size - offset if ring.size - offset < need else 0
        if ring.size - (head - ring.get("tail")) < pad + need:
            return False
        if pad:
            struct.pack_into("<II", self.memory, ring.data + offset, pad, S.PAD)
            head += pad
            offset = 0
        struct.pack_into("<IHHQ", self.memory, ring.data + offset, need, type, flags, call)
        at = ring.data + offset + S.RECORD_HEADER_SIZE
        self.memory[at : at + len(payload)] = payload
        ring.set("head", head + need)
        return True

    def ring(self) -> bool:
        """Rings the worker if it sleeps; returns whether it did."""
        asleep = False
        for ring in self.inboxes:
            if ring.get("sleeping"):
                ring.set("sleeping", 0)
                asleep = True
        if asleep:
            os.write(self.bell, struct.pack("<Q", 1))
        return asleep

    def call(
        self,
        path: bytes = b"/",
        *,
        method: bytes = b"GET",
        query: bytes = b"",
        raw_path: bytes | None = None,
        fields: Sequence[tuple[bytes, bytes]] = ((b"host", b"example.org"),),
        body: bytes = b"",
        last: bool = True,
        scheme: int = HTTP,
        version: int = 11,
        client: tuple[str, int] | None = ("127.0.0.1", 50000),
        server: tuple[str, int] | None = ("127.0.0.1", 8000),
        loop: int = 0,
        websocket: bool = False,
    ) -> int:
        """Offers a call; returns its ID."""
        call = self.new_call(loop)
        client_host, client_port = (client[0].encode(), client[1]) if client else (b"", -1)
        server_host, server_port = (server[0].encode(), server[1]) if server else (b"", -1)
        encoded = encode_fields(fields)
        fixed = struct.pack(
            "<BBHIIIIIHHiiI",
            scheme,
            version,
            len(method),
            len(path),
            len(raw_path or b""),
            len(query),
            len(fields),
            len(body),
            len(client_host),
            len(server_host),
            client_port,
            server_port,
            len(encoded),
        )
        assert len(fixed) == S.CALL_FIXED_SIZE
        flags = S.FLAG_LAST if last else S.FLAG_WANT_BODY
        if raw_path is None:
            flags |= S.FLAG_PATH_IS_RAW
        payload = fixed + method + path + (raw_path or b"") + query + client_host + server_host + encoded + body
        type = S.CALL_WEBSOCKET if websocket else S.CALL_HTTP
        assert self.write(type, call, payload, flags), "the inbox is full"
        return call

    def body(self, call: int, data: bytes, last: bool = False) -> None:
        payload = struct.pack("<II", len(data), 0) + data
        assert self.write(S.BODY, call, payload, S.FLAG_LAST if last else 0)

    def window(self, call: int, size: int) -> None:
        assert self.write(S.SEND_WINDOW, call, struct.pack("<Q", size))

    def disconnect(self, call: int) -> None:
        assert self.write(S.DISCONNECT, call)

    def ws_message(self, call: int, data: bytes, opcode: int = 1, more: bool = False) -> None:
        payload = struct.pack("<II", opcode, len(data)) + data
        assert self.write(S.WS_MESSAGE, call, payload, S.FLAG_MORE if more else 0)

    def ws_closed(self, call: int, code: int, reason: bytes = b"", *, later: bool = False) -> None:
        payload = struct.pack("<HHI", code, len(reason), 0) + reason
        assert self.write(S.WS_CLOSED, call, payload, S.FLAG_MORE if later else 0)

    # Outbox.

    def take(self, loop: int = 0, limit: int = 1 << 30) -> Iterator[Record]:
        """Consumes what the worker published, at most `limit` records."""
        ring = self.outboxes[loop]
        taken = 0
        while taken < limit:
            tail = ring.get("tail")
            if tail == ring.get("head"):
                return
            offset = tail & (ring.size - 1)
            length, type, flags = struct.unpack_from("<IHH", self.memory, ring.data + offset)
            assert length % 8 == 0 and 0 < length <= ring.size - offset, length
            if type == S.PAD:
                assert length == ring.size - offset
                ring.set("tail", tail + length)
                continue
            assert length <= ring.size // 4, "longer than a quarter of the ring"
            (call,) = struct.unpack_from("<Q", self.memory, ring.data + offset + S.RECORD_CALL)
            at = ring.data + offset
            payload = bytes(self.memory[at + S.RECORD_HEADER_SIZE : at + length])
            ring.set("tail", tail + length)
            free = ring.size - (ring.get("head") - ring.get("tail"))
            if ring.get("want_room") and free >= ring.size // 4:
                ring.set("want_room", 0)
                os.write(self.bell, struct.pack("<Q", 1))
            taken += 1
            yield Record(type, flags, call, payload)

    def sleep(self, how: int = S.ASLEEP) -> None:
        """Says that the poll loops sleep, so that the worker has to ring."""
        for bell, ring in zip(self.loop_bells, self.outboxes):
            rung(bell)
            ring.set("sleeping", how)
