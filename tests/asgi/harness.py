"""One worker on a link whose other end is the test's: the loop, the app, and what was reported."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from . import extension
from .core_side import Core, Record, S, rung

_asgi = extension.load()
EAGER = sys.version_info >= (3, 12)
PATIENCE = 10.0  # seconds until a condition that does not come true fails its test


class Worker:
    """A link with its core, for the time of one scenario (see run).

    Attributes:
        core: the other end.
        link: the spvn._asgi.Link under test.
        records: everything taken from the outboxes so far.
        errors: what on_error was told: (kind, exception, request line).
        controls: what on_control was told.
    """

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop, core: Core, **options: Any) -> None:
        self.core = core
        self.loop = loop
        self.records: list[Record] = []
        self.errors: list[tuple[str, BaseException | None, str]] = []
        self.controls: list[str] = []
        options.setdefault("on_error", lambda *error: self.errors.append(error))
        options.setdefault("on_control", self.controls.append)
        self.link = _asgi.Link(core.memfd, core.bell, core.loop_bells, app, loop, **options)
        self._rung = asyncio.Event()
        loop.add_reader(core.bell, self.link.drain)
        for bell in core.loop_bells:
            loop.add_reader(bell, self._ring, bell)

    def _ring(self, bell: int) -> None:
        rung(bell)
        self._rung.set()

    def close(self) -> None:
        self.loop.remove_reader(self.core.bell)
        for bell in self.core.loop_bells:
            self.loop.remove_reader(bell)
        self.link.detach()
        self.core.close()

    def take(self, limit: int = 1 << 30) -> list[Record]:
        """Takes what is published, gives slots back, and returns the new records."""
        new = []
        for loop in range(self.core.loops):
            new += self.core.take(loop, limit)
        for record in new:
            if record.done:
                self.core.free(record.call)
        self.records += new
        return new

    async def until(self, condition: Callable[[], object]) -> None:
        """Lets the loop run, and takes records, until a condition holds.

        The worker must ring for what it publishes: nothing is polled.
        """
        self.core.ring()
        deadline = time.monotonic() + PATIENCE
        while True:
            self.core.sleep()
            self.take()
            if condition():
                return
            self._rung.clear()
            if self.take():
                continue
            left = deadline - time.monotonic()
            assert left > 0, f"waited in vain; records: {self.records}, errors: {self.errors}"
            try:
                await asyncio.wait_for(self._rung.wait(), min(left, 0.05))
            except asyncio.TimeoutError:
                pass

    async def some(self, limit: int = 1 << 30) -> list[Record]:
        """Waits until there are records, and takes at most so many of them."""
        self.core.ring()
        while True:
            self.core.sleep()
            new = self.take(limit)
            if new:
                return new
            self._rung.clear()
            await asyncio.wait_for(self._rung.wait(), PATIENCE)

    async def turns(self, count: int = 3) -> None:
        """Lets the loop run a few times, whatever happens."""
        self.core.ring()
        for _ in range(count):
            await asyncio.sleep(0)

    def of(self, call: int) -> list[Record]:
        return [record for record in self.records if record.call == call]

    def names(self, call: int) -> list[str]:
        """The names of a call's records; " DONE" behind the one with FLAG_DONE."""
        return [record.name + (" DONE" if record.flags & S.FLAG_DONE else "") for record in self.of(call)]

    def is_done(self, call: int) -> bool:
        return any(record.done for record in self.of(call))

    def body(self, call: int) -> bytes:
        return b"".join(record.body for record in self.of(call))

    async def done(self, *calls: int) -> None:
        """Waits until these calls are done."""
        await self.until(lambda: all(self.is_done(call) for call in calls))

    async def answer(self, call: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Waits until a call is done; returns status, fields and body of its answer."""
        await self.done(call)
        head = next(record for record in self.of(call) if record.type == S.RESPONSE)
        return head.status, head.fields, self.body(call)


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


class Runner:
    """Runs scenarios: run(app, scenario, core options, link=Link options)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(
        self,
        app: Any,
        scenario: Callable[[Worker], Awaitable[None]],
        *,
        link: dict[str, Any] | None = None,
        **options: Any,
    ) -> Worker:
        loop = new_loop(self.kind)
        workers: list[Worker] = []

        async def main() -> None:
            worker = Worker(app, loop, Core(**options), **(link or {}))
            workers.append(worker)
            try:
                await asyncio.wait_for(scenario(worker), 60)
            finally:
                worker.link.cancel()
                await asyncio.sleep(0)
                worker.close()

        running = loop.create_task(main())
        try:
            loop.run_until_complete(running)
        except SystemExit:  # the app's, which stops a loop; what runs in it is to end all the same
            loop.run_until_complete(running)
            raise
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        return workers[0]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello"})
