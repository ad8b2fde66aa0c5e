"""The task of a call: what others see of it, how it ends, and who is rung for that."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import traceback
from typing import Any

import anyio
import pytest

from .core_side import S, rung
from .harness import Runner, Worker, hello


def test_tools_see_coroutines_only(run: Runner) -> None:
    """What walks a task (asyncio's debugging, anyio's cancelling) finds the app."""
    seen: dict[str, Any] = {}

    async def some_app(scope: Any, receive: Any, send: Any) -> None:
        seen["task"] = asyncio.current_task()
        seen["gate"] = asyncio.Event()
        await seen["gate"].wait()
        await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: "gate" in seen)
        coroutine = seen["task"].get_coro()
        names = []
        while inspect.iscoroutine(coroutine):
            names.append(coroutine.__name__)
            assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
            coroutine = coroutine.cr_await
        assert names == ["some_app", "wait"]
        seen["gate"].set()
        await worker.done(call)
        assert seen["task"].done()
        seen.clear()

    assert run(some_app, scenario).errors == []


@pytest.mark.parametrize("suspended", [False, True])
def test_an_exception_is_reported_once_and_ends_the_task(run: Runner, suspended: bool) -> None:
    tasks = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        if suspended:
            await asyncio.sleep(0.001)
        raise LookupError("of the app")

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.done(call)
        assert worker.names(call) == ["CALL_FAILED"]

    worker = run(app, scenario)
    ((kind, error, _),) = worker.errors
    assert (kind, repr(error)) == ("exception", "LookupError('of the app')")
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["app"]
    assert tasks[0].done() and not tasks[0].cancelled()


@pytest.mark.parametrize("caught", [False, True])
def test_a_cancelled_task_is_cancelled(run: Runner, caught: bool) -> None:
    tasks = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not caught:
                raise
            await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: tasks)
        tasks[0].cancel()
        await worker.done(call)
        assert worker.names(call) == (["RESPONSE", "CALL_DONE"] if caught else ["CALL_FAILED"])
        await asyncio.sleep(0)
        assert tasks[0].cancelled() is not caught

    assert len(run(app, scenario).errors) == (0 if caught else 1)


def test_a_system_exit_behind_a_wait_ends_the_loop(run: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.001)
        sys.exit(7)

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    with pytest.raises(SystemExit, match="7"):
        run(app, scenario)
    gc.collect()
    assert capfd.readouterr().err == ""  # asyncio complains of exceptions that nobody has asked for


def test_anyio_cancels_and_groups_in_a_call(run: Runner) -> None:
    order = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(0.001):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await anyio.sleep(0.001)
            order.append(anyio.get_current_task().name)
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(order.append, "thread")
        await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.done(call)
        assert worker.names(call) == ["RESPONSE", "CALL_DONE"]

    assert run(app, scenario).errors == []
    assert len(order) == 2


@pytest.mark.parametrize("how", [S.ASLEEP, S.NAPPING])
def test_tasks_that_are_ready_together_share_a_ring_of_a_napping_core(run: Runner, how: int) -> None:
    """A core that sleeps is rung for the first answer, one that naps once for all, before the loop sleeps."""
    gates: list[asyncio.Event] = []
    rings = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not gates:
            gates.append(asyncio.Event())
        await gates[0].wait()
        await hello(scope, receive, send)
        rings.append(rung(worker.core.loop_bells[0]))

    worker: Worker

    async def scenario(the_worker: Worker) -> None:
        nonlocal worker
        worker = the_worker
        calls = [worker.core.call() for _ in range(3)]
        await worker.until(lambda: gates and worker.link.calls == 3)
        worker.loop.remove_reader(worker.core.loop_bells[0])
        worker.core.sleep(how)
        gates[0].set()
        await worker.turns(1)
        while len(rings) < 3:
            await asyncio.sleep(0)
        behind = [rung(worker.core.loop_bells[0])]
        while not all(worker.is_done(call) for call in calls):
            await asyncio.sleep(0)
            behind.append(rung(worker.core.loop_bells[0]))
            worker.take()
        assert sum(rings) == (1 if how == S.ASLEEP else 0)
        assert sum(behind) == (0 if how == S.ASLEEP else 1)

    run(app, scenario)
