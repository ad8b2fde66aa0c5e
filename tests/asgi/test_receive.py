"""receive(): bodies, credit, disconnects, waiting."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest

from .core_side import S
from .harness import EAGER, Runner, Worker

START = {"type": "http.response.start", "status": 200}
END = {"type": "http.response.body"}


def request(body: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}


class Collect:
    """An app that receives until the body's end (or the client's), then answers."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "http.disconnect" or not message["more_body"]:
                break
        await send(START)
        await send(END)


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 30000])
def test_body_in_the_start(run: Runner, body: bytes) -> None:
    app = Collect()

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", body=body)
        await worker.done(call)
        # A whole body needs neither credit nor a wish.
        assert worker.names(call) == (["RESPONSE DONE"] if EAGER else ["RESPONSE", "CALL_DONE"])

    run(app, scenario)
    assert app.messages == [request(body)]


@pytest.mark.parametrize("size", [3, 5000])
def test_a_part_that_found_no_memory_is_not_missed(run: Runner, size: int) -> None:
    """What came before it is no whole body: the app hears that it will get no more."""
    memory = pytest.importorskip("_testcapi")
    ended: list[dict[str, Any]] = []

    def trial(fails: int) -> bool:
        app = Collect()

        async def scenario(worker: Worker) -> None:
            gate = asyncio.Event()

            async def late(scope: Any, receive: Any, send: Any) -> None:
                await gate.wait()
                await app(scope, receive, send)

            apps.append(late)
            call = worker.core.call(method=b"POST", last=False)
            await worker.until(lambda: not apps)
            worker.core.body(call, b"a" * size)
            worker.link.drain()
            worker.core.body(call, b"b" * size, last=True)
            memory.set_nomemory(fails, fails + 1)
            try:
                worker.link.drain()
            except MemoryError:
                pass
            finally:
                memory.remove_mem_hooks()
            gate.set()
            await worker.done(call)

        apps: list[Any] = []

        async def first(scope: Any, receive: Any, send: Any) -> None:
            await apps.pop()(scope, receive, send)

        run(first, scenario)
        body = b"".join(message.get("body", b"") for message in app.messages)
        ended.append(app.messages[-1])
        whole = body == b"a" * size + b"b" * size
        assert whole or app.messages[-1] == DISCONNECT, [len(body), app.messages[-1]]
        return whole

    results = [trial(fails) for fails in range(4)]
    assert False in results  # it has met one of the allocations


def test_messages_are_fresh(run: Runner) -> None:
    app = Collect()

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call(), worker.core.call())

    run(app, scenario)
    assert app.messages[0] is not app.messages[1]


def test_body_in_parts(run: Runner) -> None:
    app = Collect()

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", body=b"one", last=False)
        await worker.until(lambda: worker.names(call)[:2] == ["WANT_BODY", "BODY_CREDIT"])
        worker.core.body(call, b"two")
        await worker.until(lambda: len(worker.of(call)) == 3)
        worker.core.body(call, b"three", last=True)
        await worker.done(call)
        credits = [record.number for record in worker.of(call) if record.type == S.BODY_CREDIT]
        assert credits == [3, 3, 5]
        assert worker.names(call)[-2:] == ["RESPONSE", "CALL_DONE"]

    run(app, scenario)
    assert app.messages == [request(b"one", True), request(b"two", True), request(b"three")]


def test_parts_wait_until_they_are_received(run: Runner) -> None:
    """No credit for what the app has not received: the core stops reading."""
    go = asyncio.Event
    gate: list[asyncio.Event] = []
    app = Collect()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        gate.append(go())
        await gate[0].wait()
        await app(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", last=False)
        for part in (b"x" * 5000, b"p" * 5000, b"art"):
            worker.core.body(call, part)
        await worker.until(lambda: gate)
        await worker.turns()
        worker.take()
        assert worker.of(call) == []
        worker.core.body(call, b"", last=True)  # joins the part before it
        await worker.turns()
        gate[0].set()
        await worker.done(call)
        assert [r.number for r in worker.of(call) if r.type == S.BODY_CREDIT] == [5000, 5000, 3]

    run(late, scenario)
    assert app.messages == [request(b"x" * 5000, True), request(b"p" * 5000, True), request(b"art")]


def test_small_parts_that_wait_are_joined(run: Runner) -> None:
    """A client chooses how small the chunks of its body are, but not what each of them costs."""
    gate: list[asyncio.Event] = []
    app = Collect()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        gate.append(asyncio.Event())
        await gate[0].wait()
        await app(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", last=False)
        for number in range(10_000):
            worker.core.body(call, b"%d" % (number % 10))
            if number % 100 == 0:
                await worker.turns()
        worker.core.body(call, b"end", last=True)
        await worker.until(lambda: gate)
        await worker.turns()
        gate[0].set()
        await worker.done(call)
        assert sum(r.number for r in worker.of(call) if r.type == S.BODY_CREDIT) == 10_003

    run(late, scenario)
    assert b"".join(message["body"] for message in app.messages) == b"0123456789" * 1000 + b"end"
    assert len(app.messages) == 3
    assert [message["more_body"] for message in app.messages] == [True, True, False]


def test_empty_body_that_ends_late(run: Runner) -> None:
    app = Collect()

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", last=False)
        await worker.until(lambda: worker.names(call) == ["WANT_BODY"])
        assert app.messages == []
        worker.core.body(call, b"", last=True)
        await worker.done(call)
        assert worker.names(call) == ["WANT_BODY", "RESPONSE", "CALL_DONE"]

    run(app, scenario)
    assert app.messages == [request()]


def test_an_app_that_asks_for_no_body(run: Runner) -> None:
    """Then the client that waits for 100 (Continue) gets the answer instead."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(END)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", body=b"unread", last=False)
        await worker.done(call)
        worker.core.body(call, b"late", last=True)  # for a call that is over
        await worker.turns()
        assert "WANT_BODY" not in worker.names(call)
        assert "BODY_CREDIT" not in worker.names(call)

    run(app, scenario)


def test_disconnect(run: Runner) -> None:
    app = Collect()

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", body=b"one", last=False)
        await worker.until(lambda: len(app.messages) == 1)
        worker.core.disconnect(call)
        await worker.done(call)
        # Its send() raised ClientDisconnected, which is no error to report.
        assert worker.names(call)[-1] == "CALL_FAILED"
        assert worker.errors == []

    run(app, scenario)
    assert app.messages == [request(b"one", True), DISCONNECT]


def test_disconnect_comes_before_an_unread_body(run: Runner) -> None:
    messages = []
    gate: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        gate.append(asyncio.Event())
        await gate[0].wait()
        messages.append(await receive())
        messages.append(await receive())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", body=b"one", last=False)
        worker.core.body(call, b"two")
        await worker.until(lambda: gate)
        worker.core.disconnect(call)
        await worker.turns()
        gate[0].set()
        await worker.done(call)

    run(app, scenario)
    assert messages == [DISCONNECT, DISCONNECT]


def test_disconnect_after_the_answer(run: Runner) -> None:
    """Once the answer is complete, receive() says so without waiting, as in uvicorn."""
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await send(START)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        await send(END)
        messages.append(await waiting)
        messages.append(await receive())

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    worker = run(app, scenario)
    assert messages == [request(), DISCONNECT, DISCONNECT]
    assert worker.errors == []


def test_receive_is_a_coroutine_to_asyncio(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        awaitable = receive()
        assert isinstance(awaitable, Coroutine)
        assert inspect.isawaitable(awaitable)
        assert inspect.isawaitable(send({**START}))
        assert await asyncio.create_task(awaitable) == request()  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="already awaited"):
            await awaitable
        await asyncio.gather(send(END), asyncio.sleep(0))
        with pytest.raises(StopIteration):
            send_after = receive()
            send_after.send(None)

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    assert run(app, scenario).errors == []


def test_cancelled_receive_loses_nothing(run: Runner) -> None:
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # Cancelled before it ran, while it waits, and by a timeout.
        task = asyncio.ensure_future(receive())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        messages.append(await receive())
        task = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), 0.001)
        await send({**START, "headers": [(b"x-ready", b"1")]})
        await send({"type": "http.response.body", "more_body": True})
        messages.append(await receive())
        await send(END)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", body=b"one", last=False)
        await worker.until(lambda: "RESPONSE" in worker.names(call))
        worker.core.body(call, b"two", last=True)
        await worker.done(call)

    worker = run(app, scenario)
    assert messages == [request(b"one", True), request(b"two")]
    assert worker.errors == []


def test_several_receivers(run: Runner) -> None:
    """Each message goes to one of them; a cancelled one that was woken passes it on."""
    messages: list[Any] = []
    tasks: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def one(index: int) -> None:
            messages.append((index, await receive()))

        tasks.extend(asyncio.ensure_future(one(i)) for i in range(4))
        await asyncio.wait(tasks)
        await send(START)
        await send(END)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", last=False)
        await worker.until(lambda: len(tasks) == 4)
        await worker.turns()
        tasks[1].cancel()
        worker.core.body(call, b"a")
        worker.core.ring()
        worker.link.drain()  # wakes 0
        tasks[0].cancel()  # before it ran: 2 must get it
        await worker.turns(5)
        assert messages == [(2, request(b"a", True))]
        worker.core.body(call, b"b", last=True)
        worker.core.disconnect(call)
        await worker.done(call)
        assert messages[1:] == [(3, DISCONNECT)]

    worker = run(app, scenario)
    assert worker.errors == []


def test_receivers_share_what_came_together(run: Runner) -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.gather(*(take(receive) for _ in range(3)))
        await send(START)
        await send(END)

    async def take(receive: Any) -> None:
        messages.append(await receive())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", last=False)
        await worker.until(lambda: worker.names(call) == ["WANT_BODY"])
        for part in (b"a", b"b", b"c"):
            worker.core.body(call, part, last=part == b"c")
        await worker.done(call)

    run(app, scenario)
    assert [message["body"] for message in messages] == [b"a", b"b", b"c"]


def test_anyio(run: Runner) -> None:
    anyio = pytest.importorskip("anyio")
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            seen.append("left")
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await send(START)
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
            seen.append("moved on")
            with anyio.fail_after(30):
                await anyio.sleep_forever()

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: "moved on" in seen)
        worker.core.disconnect(call)
        await worker.done(call)

    worker = run(app, scenario)
    assert seen == ["moved on", "left"]
    assert worker.errors == []


def test_large_upload(run: Runner) -> None:
    """8 MiB through the body window, in order and without growing."""
    part = bytes(range(256)) * 64
    count = 512
    received = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        while True:
            message = await receive()
            assert message["body"] in (part, b"")
            received += len(message["body"])
            if not message["more_body"]:
                break
        await send(START)
        await send(END)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(method=b"POST", last=False)
        for i in range(count):
            while (i + 1) * len(part) - sum_credit(worker, call) > S.BODY_WINDOW:
                await worker.some()
            worker.core.body(call, part, last=i == count - 1)
        await worker.done(call)
        assert sum_credit(worker, call) == count * len(part)

    run(app, scenario)
    assert received == count * len(part)


def sum_credit(worker: Worker, call: int) -> int:
    return sum(record.number for record in worker.of(call) if record.type == S.BODY_CREDIT)
