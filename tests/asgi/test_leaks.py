"""Nothing stays behind: thousands of calls of every kind leave as many objects as there were before."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from .core_side import WS
from .harness import Runner, Worker, _asgi, hello
from .test_send import body, start

CALLS = 400


async def echo(scope: Any, receive: Any, send: Any) -> None:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        parts.append(message["body"])
        if not message["more_body"]:
            break
    await send(start(headers=[(b"content-type", b"text/plain"), [b"x", b"y"]]))
    for part in parts:
        await send(body(part, True))
    await send(body())


async def later(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0)
    await echo(scope, receive, send)


async def broken(scope: Any, receive: Any, send: Any) -> None:
    await send(start())
    await send(start())


async def keeps_itself(scope: Any, receive: Any, send: Any) -> None:
    """A cycle through everything that a call has."""
    scope["me"] = (scope, receive, send, asyncio.current_task(), receive(), send(start()))
    await send(body(b"x"))


async def waits_in_vain(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    task = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await send(start())
    await send(body())


async def socket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "a", "headers": [(b"a", b"b")]})
    message = await receive()
    while message["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
        message = await receive()


async def plain_call(worker: Worker, index: int) -> int:
    return worker.core.call(path=b"/%d" % index, query=b"q=%d" % index, fields=[(b"x-%d" % index, b"v")])


async def upload_call(worker: Worker, index: int) -> int:
    call = worker.core.call(method=b"POST", body=b"first", last=False)
    worker.core.body(call, b"second")
    worker.core.body(call, b"third", last=True)
    return call


async def left_call(worker: Worker, index: int) -> int:
    call = worker.core.call(method=b"POST", last=False)
    worker.core.body(call, b"never received")
    await worker.until(lambda: worker.link.calls)
    await worker.turns(2)
    worker.core.disconnect(call)
    return call


async def socket_call(worker: Worker, index: int) -> int:
    call = worker.core.call(websocket=True, scheme=WS, fields=[(b"sec-websocket-protocol", b"a, b")])
    worker.core.ws_message(call, b"some", opcode=2, more=True)
    worker.core.ws_message(call, b"thing", opcode=2)
    worker.core.ws_message(call, b"text")
    worker.core.ws_closed(call, 1000, b"done")
    return call


@pytest.mark.parametrize(
    ("app", "make_call"),
    [
        (hello, plain_call),
        (echo, plain_call),
        (echo, upload_call),
        (echo, left_call),
        (later, upload_call),
        (broken, plain_call),
        (keeps_itself, plain_call),
        (waits_in_vain, plain_call),
        (socket, socket_call),
    ],
    ids=lambda value: value.__name__,
)
def test_no_leaks(run: Runner, app: Any, make_call: Callable[[Worker, int], Any]) -> None:
    async def scenario(worker: Worker) -> None:
        async def some(count: int) -> None:
            for index in range(count):
                call = await make_call(worker, index)
                while not worker.is_done(call):
                    await worker.some()
                assert worker.link.calls == 0
                worker.records.clear()
                worker.errors.clear()
                del call
            gc.collect()
            await worker.turns()
            gc.collect()

        await some(CALLS)  # fills caches and free lists
        objects = len(gc.get_objects())
        blocks = sys.getallocatedblocks()
        tracemalloc.start()
        await some(CALLS)
        blocks_now = sys.getallocatedblocks()
        memory, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # One object for each call would be 400.
        assert len(gc.get_objects()) - objects < CALLS // 4
        assert blocks_now - blocks < CALLS // 2
        assert memory < CALLS * 100

    run(app, scenario)


def test_a_link_goes_with_its_calls(run: Runner) -> None:
    """Also with calls that still wait, and without detach()."""
    alive: list[weakref.ref[Any]] = []

    class App:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            token = Token()
            alive.append(weakref.ref(token))
            await receive()
            await receive()

    class Token:
        pass

    async def scenario(worker: Worker) -> None:
        app = App()
        alive.append(weakref.ref(app))
        link = _asgi.Link(
            worker.core.memfd,
            worker.core.bell,
            worker.core.loop_bells,
            app,
            worker.loop,
            on_error=print,
            on_control=print,
        )
        worker.core.call()
        link.drain()
        await worker.turns()
        assert link.calls == 1
        assert len(alive) == 2
        # A call that nobody can end any more goes with its link.
        del app, link
        gc.collect()
        await worker.turns()
        gc.collect()
        assert [reference() for reference in alive] == [None, None]

    run(hello, scenario)


def test_caches_are_bounded(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        async def some(first: int) -> int:
            for i in range(first, first + 2000):
                fields = [(b"x-%d" % i, b"v%d" % i), (b"y", b"%d" % i * 20)]
                call = worker.core.call(fields=fields, client=(f"10.1.{i % 199}.1", i % 60000))
                while not worker.is_done(call):
                    await worker.some()
                worker.records.clear()
            gc.collect()
            return sys.getallocatedblocks()

        before = await some(0)
        assert await some(2000) - before < 500

    run(hello, scenario)
