"""The stages of the Python side, one after the other, in the interpreter that runs this; prints nanoseconds as JSON.

    python perf/stages/python_side.py ROUNDS

The core's end of the link is the one of tests/asgi: it only fills and empties rings between the measurements, so what
is timed is the C extension and asyncio alone. Each figure is the median of several measurements.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from asgi import extension  # noqa: E402
from asgi.core_side import Core, S  # noqa: E402

MEASUREMENTS = 9
BATCH = 64  # calls in one drain: the most that a worker begins in one
RECORD = 256  # bytes of a record of the ring stage; a small call's start has about as many

SMALL = ((b"host", b"127.0.0.1:8000"),)
BROWSER = (
    (b"host", b"www.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://www.example.com/api/v1/items"),
    (b"connection", b"keep-alive"),
    (b"cookie", b"session=0123456789abcdef0123456789abcdef; theme=dark"),
    (b"cache-control", b"no-cache"),
    (b"x-request-id", b"7d4b6a4e-5a39-4f1a-8c1e-0f3a2b1c4d5e"),
)
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]


class App:
    """Answers 13 bytes, and counts."""

    def __init__(self) -> None:
        self.answered = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b"Hello, world!"})
        self.answered += 1


class Bench:
    """A link, its extension and the functions of stages.c."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        built = extension.build(
            directory,
            *("-O3", "-fvisibility=hidden", "-Wno-missing-field-initializers", f"-I{extension.SOURCES}"),
            str(Path(__file__).with_name("stages.c")),
        )
        self.stages = ctypes.PyDLL(str(built))
        self.stages.micro_scope.restype = self.stages.micro_ring.restype = ctypes.c_double
        self.loop, self.app, self.core = loop, App(), Core()
        self.link = extension.from_file(built).Link(
            *(self.core.memfd, self.core.bell, self.core.loop_bells, self.app, loop),
            on_error=fail,
            on_control=fail,
            alone=True,
        )

    def close(self) -> None:
        self.link.detach()
        self.core.close()

    def settle(self) -> None:
        """Empties the outbox, unread."""
        outbox = self.core.outboxes[0]
        outbox.set("tail", outbox.get("head"))

    def start(self, fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """The payload of a call start; it is taken out of the inbox again by a drain."""
        inbox = self.core.inboxes[0]
        offset = inbox.get("head") & (inbox.size - 1)
        call = self.core.call(fields=fields)
        length = int.from_bytes(self.core.memory[inbox.data + offset : inbox.data + offset + 4], "little")
        payload = bytes(self.core.memory[inbox.data + offset + S.RECORD_HEADER_SIZE : inbox.data + offset + length])
        self.answer(1)
        self.core.free(call)
        return payload

    def answer(self, calls: int) -> float:
        """Drains until so many calls were answered; returns the seconds from the first drain to the last answer."""
        wanted = self.app.answered + calls
        took = 0.0

        def turn() -> None:
            nonlocal took
            if not took:
                self.link.drain()
                took = -begun
            if self.app.answered >= wanted:
                took += time.perf_counter()
                self.loop.stop()
            else:  # before Python 3.12 the tasks' first steps come in the loop's next turns
                self.loop.call_soon(turn)

        begun = time.perf_counter()
        self.loop.call_soon(turn)
        self.loop.run_forever()
        self.settle()
        return took

    def call(self) -> float:
        """Nanoseconds from a call's record in the inbox to its answer in the outbox."""
        calls = [self.core.call(fields=SMALL) for _ in range(BATCH)]
        took = self.answer(BATCH)
        for call in calls:
            self.core.free(call)
        return took * 1e9 / BATCH

    def scope(self, payload: bytes, rounds: int) -> float:
        flags = S.FLAG_LAST | S.FLAG_PATH_IS_RAW
        link = ctypes.py_object(self.link)
        return float(self.stages.micro_scope(link, payload, len(payload), flags, ctypes.c_long(rounds))) / rounds

    def ring(self, rounds: int) -> float:
        """Both rings. The link's own cursors follow what is written here, the test's core reads them from memory."""
        link = ctypes.py_object(self.link)
        return float(self.stages.micro_ring(link, bytes(RECORD), RECORD, ctypes.c_long(rounds))) / rounds


def fail(*what: object) -> None:
    raise AssertionError(what)


def measure(rounds: int) -> dict[str, float]:
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(prefix="spvn-stages-") as directory:
        bench = Bench(Path(directory), loop)
        try:
            gc.collect()
            gc.disable()  # a collection in one of nine short measurements would say nothing
            # First, in fresh rings: its records are never to lie across an end.
            ring = statistics.median(bench.ring(rounds) for _ in range(MEASUREMENTS))
            small, browser = bench.start(SMALL), bench.start(BROWSER)
            stages = {
                "scope": lambda: bench.scope(small, rounds),
                "scope, ten fields": lambda: bench.scope(browser, rounds),
                "call": lambda: statistics.median(bench.call() for _ in range(max(1, rounds // BATCH))),
            }
            found = {"ring, C": ring}
            for name, stage in stages.items():
                stage()
                found[name] = statistics.median(stage() for _ in range(MEASUREMENTS))
        finally:
            bench.close()
            loop.close()
    # A call is a record in, its scope, its task and a record out.
    found["task"] = max(found["call"] - found["scope"] - found["ring, C"], 0.0)
    return found


def main() -> None:
    found = measure(int(sys.argv[1]))
    print(json.dumps({"python": platform.python_version(), "stages": found}))


if __name__ == "__main__":
    main()
