"""Flow control: the send window, full rings, large bodies, fairness."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from .core_side import S
from .harness import Runner, Worker
from .test_send import body, start

MIB = 1 << 20


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def acknowledge(worker: Worker, call: int, sent: int) -> int:
    """Tells the worker that all bytes taken so far have left; returns how many those are."""
    taken = len(worker.body(call))
    if taken > sent and not worker.is_done(call):
        worker.core.window(call, taken - sent)
        worker.core.ring()
    return taken


def test_a_stream_waits_for_its_window(run: Runner) -> None:
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for i in range(6):
            await send(body(b"%d" % i * 16384, True))
            sent.append(i)
        await send(body())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: len(worker.body(call)) == S.SEND_WINDOW_STREAM)
        await worker.turns()
        assert sent == [0, 1, 2, 3]
        worker.core.window(call, 16384)
        await worker.until(lambda: len(worker.body(call)) == 5 * 16384)
        await worker.turns()
        assert sent == [0, 1, 2, 3, 4]
        worker.core.window(call, 16384)
        await worker.done(call)
        assert worker.body(call) == b"".join(b"%d" % i * 16384 for i in range(6))

    run(app, scenario)


@pytest.mark.parametrize("size", [100, 60000, 200_000, MIB])
def test_a_complete_answer_does_not_wait(run: Runner, size: int) -> None:
    """Up to 1 MiB, if the ring takes it."""
    data = pattern(size)
    steps = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"content-length", b"%d" % size)]))
        waiting = send(body(data))
        with pytest.raises(StopIteration):
            waiting.send(None)
        steps.append("sent")

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        _, _, got = await worker.answer(call)
        assert got == data

    worker = run(app, scenario, outbox=1 << 22)
    assert steps == ["sent"] and worker.errors == []


@pytest.mark.parametrize("size", [MIB + 1, 5 * MIB])
@pytest.mark.parametrize("outbox", [1 << 16, 1 << 20])
def test_a_large_complete_answer(run: Runner, size: int, outbox: int) -> None:
    """More than the window and the ring: held by the call, written as both allow."""
    data = pattern(size)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(data))

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        sent = 0
        while not worker.is_done(call):
            await worker.some()
            assert len(worker.body(call)) - sent <= S.SEND_WINDOW_COMPLETE
            sent = acknowledge(worker, call, sent)
        assert worker.body(call) == data
        assert [record.last for record in worker.of(call)].count(True) == 1

    assert run(app, scenario, outbox=outbox).errors == []


def test_many_streams_through_a_small_ring(run: Runner) -> None:
    """Rings that are full, wrap-arounds at every offset, 40 calls that wait for room."""
    parts = [pattern(n) for n in (1, 7, 900, 5000, 20000, 0, 3, 40000)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start(headers=[(b"x", b"y" * (len(scope["path"]) * 31))]))
        for part in parts:
            await send(body(part, True))
        await send(body(b"end"))

    async def scenario(worker: Worker) -> None:
        calls = [worker.core.call(path=b"/" * (1 + i % 9)) for i in range(40)]
        sent = dict.fromkeys(calls, 0)
        while not all(worker.is_done(call) for call in calls):
            await worker.some(3)
            for call in calls:
                sent[call] = acknowledge(worker, call, sent[call])
        for call in calls:
            assert worker.body(call) == b"".join(parts) + b"end"

    assert run(app, scenario, outbox=1 << 15, inbox=1 << 16).errors == []


def test_everything_waits_for_room(run: Runner) -> None:
    """Also heads, credit, WANT_BODY, trailers and the ends of calls."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        while message["more_body"]:
            message = await receive()
        await send(start(trailers=True, headers=[(b"x-fill", b"f" * 700)]))
        await send(body(b"b" * 500))
        await send({"type": "http.response.trailers", "headers": [(b"t", b"v" * 600)]})
        seen.append(scope["path"])

    async def scenario(worker: Worker) -> None:
        calls = [worker.core.call(path=b"/%d" % i, method=b"POST", last=False) for i in range(30)]
        for call in calls:
            worker.core.body(call, b"part")
            worker.core.body(call, b"last", last=True)
        while not all(worker.is_done(call) for call in calls):
            await worker.some(1)
        for call in calls:
            assert worker.body(call) == b"b" * 500
            assert sum(record.number for record in worker.of(call) if record.type == S.BODY_CREDIT) == 8
            trailers = [record for record in worker.of(call) if record.type == S.TRAILERS]
            assert [record.trailers for record in trailers] == [[(b"t", b"v" * 600)]]
            assert worker.names(call).count("WANT_BODY") == 1

    worker = run(app, scenario, outbox=1 << 12, inbox=1 << 16)
    assert worker.errors == []
    assert len(seen) == 30


def test_control_records_wait_for_room(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"x" * 100_000))

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        worker.core.ring()
        while not worker.core.outboxes[0].get("want_room"):
            await asyncio.sleep(0)
        worker.link.ready()
        worker.link.start_failed("because ä")
        worker.link.stopped()
        await worker.done(call)
        await worker.until(lambda: [r.name for r in worker.of(0)] == ["READY", "START_FAILED", "STOPPED"])
        assert worker.of(0)[1].text == "because ä"

    run(app, scenario, outbox=1 << 12)


def test_a_slow_client_that_leaves(run: Runner) -> None:
    """What is held is dropped, and send() raises."""
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            await send(body(b"x" * 300_000, True))
        except OSError as error:
            errors.append(error)
            raise

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: len(worker.body(call)) == S.SEND_WINDOW_STREAM)
        worker.core.disconnect(call)
        await worker.done(call)
        assert len(worker.body(call)) == S.SEND_WINDOW_STREAM

    worker = run(app, scenario, outbox=MIB)
    assert len(errors) == 1 and worker.errors == []


def test_a_cancelled_send_is_sent_all_the_same(run: Runner) -> None:
    """The message was taken; half of it must not be followed by another one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(send(body(b"a" * 100_000, True)), 0.01)
        await send(body(b"b"))

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        sent = 0
        await worker.turns(5)
        while not worker.is_done(call):
            await worker.some()
            await asyncio.sleep(0.03) if sent == 0 else None  # past the app's own timeout
            sent = acknowledge(worker, call, sent)
        assert worker.body(call) == b"a" * 100_000 + b"b"

    assert run(app, scenario).errors == []


def test_an_answer_outlives_its_app(run: Runner) -> None:
    """An app that does not wait for its last send() has still answered."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        send(body(b"x" * 3_000_000))

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        sent = 0
        while not worker.is_done(call):
            await worker.some()
            assert worker.link.calls == 1 or worker.is_done(call)
            sent = acknowledge(worker, call, sent)
        assert len(worker.body(call)) == 3_000_000
        assert worker.names(call)[-1] in ("CALL_DONE", "RESPONSE_BODY DONE")
        assert worker.link.calls == 0

    assert run(app, scenario).errors == []


def test_sends_keep_their_order(run: Runner) -> None:
    """Those of several tasks too, while the first is held."""
    order = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())

        async def one(index: int) -> None:
            await send(body(b"%d" % index * 30000, True))
            order.append(index)

        tasks = [asyncio.ensure_future(one(i)) for i in range(8)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        await asyncio.wait(tasks)
        await send(body())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        sent = 0
        while not worker.is_done(call):
            await worker.some()
            sent = acknowledge(worker, call, sent)
        assert worker.body(call) == b"".join(b"%d" % i * 30000 for i in (0, 1, 2, 3, 4, 6, 7))

    assert run(app, scenario).errors == []
    assert sorted(order) == [0, 1, 2, 3, 4, 6, 7]  # which task goes on first is the loop's business


def test_an_app_that_never_waits_lets_the_loop_run(run: Runner) -> None:
    beats = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for _ in range(2000):
            await send(body(b"", True))
        await send(body())

    async def scenario(worker: Worker) -> None:
        async def beat() -> None:
            while True:
                beats.append(worker.loop.time())
                await asyncio.sleep(0)

        task = asyncio.ensure_future(beat())
        call = worker.core.call()
        await worker.done(call)
        task.cancel()

    assert run(app, scenario).errors == []
    assert len(beats) >= 2000 // 128


def test_an_app_that_never_waits_is_stopped_when_its_client_leaves(run: Runner) -> None:
    """Without end: it would spin forever if the loop never ran to learn that the client left."""
    count = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal count
        await send(start())
        while True:
            await send(body(b"", True))
            count += 1

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: count > 500)
        worker.core.disconnect(call)
        await worker.done(call)

    assert run(app, scenario).errors == []


def test_slow_sends_let_the_loop_run_by_time(run: Runner) -> None:
    """A few sends that each burn milliseconds are as bad as many quick ones."""
    order = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        await send(start())
        loop.call_soon(order.append, "loop")
        until = loop.time() + 0.02
        while loop.time() < until:
            await send(body(b"", True))
            for _ in range(1000):
                pass
        order.append("app")
        await send(body())

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    assert run(app, scenario).errors == []
    assert order == ["loop", "app"]
