"""The pool on a link whose other end is the test's: claims, windows, full rings, credit, ends."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgi.core_side import Core, S
from asgi.harness import Worker, _asgi

Scenario = Callable[["Pooled"], Awaitable[None]]


class Pooled(Worker):
    """A link with a pool, and threads that are the test's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, core: Core, app: Any, threads: int) -> None:
        self.pool = _asgi.Pool({"wsgi.test": True}, self._input, max(threads, 1))
        super().__init__(self.pool, loop, core)
        self.raised: list[BaseException] = []
        self.ended = [loop.create_future() for _ in range(threads)]
        for ended in self.ended:
            threading.Thread(target=self._work, args=(app, loop, ended), daemon=True).start()

    @staticmethod
    def _input(call: Any) -> Any:
        class Body(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                return int(call.readinto(buffer))

        return io.BufferedReader(Body())

    def _work(self, app: Any, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        while True:
            got = self.pool.next()
            if got is None:
                break
            call, environ = got
            try:
                app(call, environ)
            except Exception as exc:
                self.raised.append(exc)
                call.fail()
            else:
                call.done()
            del call, environ, got
        loop.call_soon_threadsafe(ended.set_result, None)


def run(app: Any, scenario: Scenario, *, threads: int = 1, **options: Any) -> Pooled:
    """As asgi.harness.Runner, for a pool."""
    loop = asyncio.new_event_loop()
    workers: list[Pooled] = []

    async def main() -> None:
        worker = Pooled(loop, Core(**options), app, threads)
        workers.append(worker)
        try:
            await asyncio.wait_for(scenario(worker), 30)
        finally:
            worker.close()
            await asyncio.wait_for(asyncio.gather(*worker.ended), 10)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return workers[0]


def hello(call: Any, environ: Any) -> None:
    call.start_response("200 OK", [("a", "b")])
    call.finish(b"Hello", True)


def test_one_record_is_a_whole_answer() -> None:
    async def scenario(w: Pooled) -> None:
        call = w.core.call()
        status, fields, body = await w.answer(call)
        assert (status, body) == (200, b"Hello")
        assert fields == [(b"a", b"b"), (b"content-length", b"5")]
        assert w.names(call) == ["RESPONSE DONE"]
        assert w.link.calls == 0

    run(hello, scenario)


def test_ready_says_how_many_threads() -> None:
    async def scenario(w: Pooled) -> None:
        w.link.ready()
        await w.until(lambda: w.records)
        assert (w.records[0].name, w.records[0].payload[:8]) == ("READY", b"\x03" + bytes(7))

    run(hello, scenario, threads=3)


def test_calls_stay_the_cores_until_a_thread_takes_them() -> None:
    go = threading.Event()
    order: list[str] = []

    def app(call: Any, environ: Any) -> None:
        order.append(environ["PATH_INFO"])
        go.wait(10)
        hello(call, environ)

    async def scenario(w: Pooled) -> None:
        calls = [w.core.call(b"/%d" % number) for number in range(4)]
        await w.until(lambda: w.core.state(calls[0]) == S.SLOT_CLAIMED and w.pool.pending == 3)
        assert [w.core.state(call) for call in calls[1:]] == [S.SLOT_OFFERED] * 3
        assert w.link.calls == 1
        assert w.core.take_back(calls[2])
        w.core.free(calls[2])
        again = w.core.call(b"/again")  # in the slot of the one that was taken back
        assert again & 0xFFFFFFFF == calls[2] & 0xFFFFFFFF
        go.set()
        await w.done(calls[0], calls[1], calls[3], again)
        assert order == ["/0", "/1", "/3", "/again"]
        assert w.of(calls[2]) == []
        assert w.core.claimed_at(again) >= w.core.claimed_at(calls[3]) > 0

    run(app, scenario)


def test_starts_that_were_taken_back_do_not_pile_up() -> None:
    go = threading.Event()

    def app(call: Any, environ: Any) -> None:
        go.wait(10)
        hello(call, environ)

    async def scenario(w: Pooled) -> None:
        first = w.core.call()
        await w.until(lambda: w.link.calls == 1)
        for _ in range(50):
            calls = [w.core.call() for _ in range(20)]
            w.core.ring()
            await w.until(lambda: all(ring.get("head") == ring.get("tail") for ring in w.core.inboxes))
            for call in calls:
                assert w.core.take_back(call)
                w.core.free(call)
        assert w.pool.pending <= 128
        go.set()
        last = w.core.call()
        await w.done(first, last)
        assert w.pool.pending == 0

    run(app, scenario)


def test_windows_of_an_answer() -> None:
    """64 KiB of a stream are on their way, and then the thread waits for what has left."""

    def app(call: Any, environ: Any) -> None:
        write = call.start_response("200 OK", [])
        for _ in range(10):
            write(b"x" * 20_000)
        call.finish()

    async def scenario(w: Pooled) -> None:
        call = w.core.call()
        await w.until(lambda: len(w.body(call)) >= S.SEND_WINDOW_STREAM - 4096)
        for _ in range(5):
            await w.turns()
            w.take()
        assert len(w.body(call)) <= S.SEND_WINDOW_STREAM
        credited = 0
        while not w.is_done(call):
            before = len(w.body(call))
            w.core.window(call, 30_000)
            credited += 30_000
            await w.until(lambda before=before: w.is_done(call) or len(w.body(call)) > before)
            assert len(w.body(call)) <= S.SEND_WINDOW_STREAM + credited
        assert len(w.body(call)) == 200_000
        assert w.names(call)[-1] == "CALL_DONE"

    run(app, scenario)


def test_a_complete_answer_has_the_window_of_a_stream_while_memory_is_short() -> None:
    def app(call: Any, environ: Any) -> None:
        call.start_response("200 OK", [])
        call.finish(b"x" * 300_000)

    async def scenario(w: Pooled) -> None:
        struct.pack_into("<I", w.core.memory, S.HEADER_TIGHT, 1)
        call = w.core.call()
        await w.until(lambda: len(w.body(call)) >= S.SEND_WINDOW_STREAM - 4096)
        for _ in range(5):
            await w.turns()
            w.take()
        assert len(w.body(call)) <= S.SEND_WINDOW_STREAM
        struct.pack_into("<I", w.core.memory, S.HEADER_TIGHT, 0)
        w.core.window(call, 30_000)
        await w.done(call)
        assert len(w.body(call)) == 300_000

    run(app, scenario)


@pytest.mark.parametrize("threads", [1, 5])
def test_full_rings(threads: int) -> None:
    """Threads wait for room, and the core is asked to ring once there is some."""
    body = os.urandom(30_000)

    def app(call: Any, environ: Any) -> None:
        call.start_response("200 OK", [])
        call.finish(body)

    async def scenario(w: Pooled) -> None:
        calls = [w.core.call() for _ in range(30)]
        await w.done(*calls)
        assert {w.body(call) for call in calls} == {body}

    run(app, scenario, threads=threads, outbox=1 << 15)


def test_credit_comes_as_the_app_reads() -> None:
    go = threading.Semaphore(0)
    got: list[bytes] = []

    def app(call: Any, environ: Any) -> None:
        buffer = bytearray(20_000)
        while True:
            go.acquire(timeout=10)
            count = call.readinto(buffer)
            if not count:
                break
            got.append(bytes(buffer[:count]))
        hello(call, environ)

    async def scenario(w: Pooled) -> None:
        call = w.core.call(method=b"POST", body=b"a" * 10_000, last=False)
        await w.until(lambda: w.link.calls == 1)
        w.core.body(call, b"b" * 20_000)
        w.core.ring()
        await w.until(lambda: all(ring.get("head") == ring.get("tail") for ring in w.core.inboxes))
        assert w.of(call) == []
        go.release()
        await w.until(lambda: "BODY_CREDIT" in w.names(call))
        assert w.names(call)[0] == "WANT_BODY"
        w.core.body(call, b"", last=True)
        for _ in range(4):
            go.release()
        await w.done(call)
        assert b"".join(got) == b"a" * 10_000 + b"b" * 20_000
        assert sum(record.number for record in w.of(call) if record.name == "BODY_CREDIT") == 30_000

    run(app, scenario)


@pytest.mark.parametrize("waiting", ["read", "write"])
@pytest.mark.parametrize("why", ["disconnect", "cancel", "detach"])
def test_who_waits_is_told(waiting: str, why: str) -> None:
    """And the call is ended for the core, unless the link is gone."""
    inside = threading.Event()

    def app(call: Any, environ: Any) -> None:
        write = call.start_response("200 OK", [])
        inside.set()
        if waiting == "read":
            call.readinto(bytearray(10))
        else:
            while True:
                write(b"x" * 100_000)

    async def scenario(w: Pooled) -> None:
        call = w.core.call(method=b"POST", last=False)
        await w.until(inside.is_set)
        if waiting == "write":
            await w.until(lambda: len(w.body(call)) > 60_000)
        if why == "disconnect":
            w.core.disconnect(call)
            await w.done(call)
        elif why == "cancel":
            assert w.link.cancel() == 1
            await w.done(call)
        else:
            w.link.detach()
            await asyncio.wait_for(asyncio.gather(*w.ended), 10)
        assert w.link.calls == 0
        assert [type(exc) for exc in w.raised] == [_asgi.ClientDisconnected]
        if why != "detach":
            assert w.names(call)[-1] == "CALL_FAILED"

    run(app, scenario)


def test_a_websocket_handshake_is_a_get() -> None:
    """An Upgrade may be ignored (RFC 9110 7.8): the app's answer denies it."""
    seen: list[Any] = []

    def app(call: Any, environ: Any) -> None:
        seen.append([environ["REQUEST_METHOD"], environ["wsgi.url_scheme"]])
        hello(call, environ)

    async def scenario(w: Pooled) -> None:
        call = w.core.call(websocket=True, scheme=3)
        await w.done(call)
        assert seen == [["GET", "https"]]

    run(app, scenario)


# Python 3.15 raises what earlier versions only said.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_cannot_answer() -> None:
    codes: list[int] = []

    def app(call: Any, environ: Any) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                call.start_response("200 OK", [])
                code = 1
            except RuntimeError as exc:
                code = 42 if "forked" in str(exc) else 2
            os._exit(code)
        codes.append(os.waitpid(pid, 0)[1] >> 8)
        hello(call, environ)

    async def scenario(w: Pooled) -> None:
        call = w.core.call()
        await w.done(call)
        assert codes == [42]

    run(app, scenario)


def test_a_start_that_does_not_fit() -> None:
    """Its fields are longer than they say: the call fails, the threads go on."""

    async def scenario(w: Pooled) -> None:
        call = w.core.call(fields=[(b"host", b"a"), (b"b", b"c")])
        at = w.core.inboxes[0].data + S.RECORD_HEADER_SIZE + S.CALL_FIELD_COUNT
        w.core.memory[at : at + 4] = (3).to_bytes(4, "little")
        taken = w.loop.run_in_executor(None, w.pool.next)
        await w.done(call)
        with pytest.raises(SystemError):
            await taken
        assert w.names(call) == ["CALL_FAILED"]

    run(hello, scenario, threads=0)


def test_many_calls_over_many_threads_and_loops() -> None:
    def app(call: Any, environ: Any) -> None:
        body = environ["wsgi.input"].read()
        write = call.start_response("200 OK", [])
        for at in range(0, len(body), 1000):
            write(body[at : at + 1000])
        call.finish()

    async def scenario(w: Pooled) -> None:
        bodies = {}
        for _ in range(20):
            for number in range(20):
                body = os.urandom(number * 200)
                bodies[w.core.call(method=b"POST", body=body, loop=number % 3)] = body
            await w.done(*bodies)
        assert all(w.body(call) == body for call, body in bodies.items())

    run(app, scenario, threads=4, loops=3, outbox=1 << 16)


def test_a_pool_that_is_closed_lets_everybody_go() -> None:
    async def scenario(w: Pooled) -> None:
        await w.until(lambda: w.pool.idle == 5)
        w.pool.close()
        await asyncio.wait_for(asyncio.gather(*w.ended), 10)
        assert w.pool.idle == 0 and w.pool.next() is None

    run(hello, scenario, threads=5)


@pytest.mark.parametrize("arguments", [(), ({}, None, 0), ([], None, 1), ({}, None)])
def test_a_pool_needs_its_arguments(arguments: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        _asgi.Pool(*arguments)
