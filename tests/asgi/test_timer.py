"""Timers over the link: what the worker asks for, and what is due."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from .core_side import Core, S
from .harness import Runner, Worker, hello


def write_timer(core: Core, number: int = 1, due: int = 0, key: bytes = b"k", data: bytes = b"") -> int:
    """Offers a due time; returns its call."""
    call = core.new_call()
    payload = struct.pack("<QqII", number, due, len(key), len(data)) + key + data
    assert core.write(S.TIMER, call, payload)
    return call


def test_due(run: Runner) -> None:
    heard: list[Any] = []

    async def scenario(worker: Worker) -> None:
        call = write_timer(worker.core, 3, 1_500_000_000, b"key", b"data")
        await worker.until(lambda: heard)
        assert heard == [(call, 3, 1.5, b"key", b"data")]
        assert worker.core.state(call) == S.SLOT_CLAIMED and worker.core.claimed_at(call) > 0
        worker.link.timer_done(call, True)
        worker.link.timer_done(call, False)
        await worker.until(lambda: len(worker.records) == 2)
        assert [struct.unpack("<QQ", record.payload) for record in worker.records] == [(call, 1), (call, 0)]
        assert {record.name for record in worker.records} == {"TIMER_DONE"}
        assert worker.link.calls == 0

    run(hello, scenario, link={"on_timer": lambda *what: heard.append(what)})


def test_one_that_was_taken_back_is_not_run(run: Runner) -> None:
    heard: list[int] = []

    async def scenario(worker: Worker) -> None:
        gone, there = write_timer(worker.core), write_timer(worker.core)
        assert worker.core.take_back(gone)
        await worker.until(lambda: heard)
        assert heard == [there]

    run(hello, scenario, link={"on_timer": lambda call, *more: heard.append(call)})


def test_without_on_timer_nothing_is_claimed(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        timer, call = write_timer(worker.core), worker.core.call()
        await worker.done(call)
        assert worker.core.state(timer) == S.SLOT_OFFERED

    run(hello, scenario)


def test_on_timer_that_raises(run: Runner) -> None:
    """What follows is not lost."""

    def on_timer(*what: Any) -> None:
        raise ZeroDivisionError

    raised: list[Any] = []

    async def scenario(worker: Worker) -> None:
        worker.loop.set_exception_handler(lambda loop, context: raised.append(context.get("exception")))
        write_timer(worker.core)
        await worker.done(worker.core.call())

    run(hello, scenario, link={"on_timer": on_timer})
    assert [type(exc) for exc in raised] == [ZeroDivisionError]


@pytest.mark.parametrize(
    "payload",
    [b"\0" * 16, struct.pack("<QqII", 1, 0, 9, 0) + b"k", struct.pack("<QqII", 1, 0, 1, 0xFFFFFFF8) + b"k"],
)
def test_a_record_that_does_not_fit(run: Runner, payload: bytes) -> None:
    raised: list[Any] = []

    async def scenario(worker: Worker) -> None:
        worker.loop.set_exception_handler(lambda loop, context: raised.append(context.get("exception")))
        worker.core.write(S.TIMER, worker.core.new_call(), payload)
        await worker.until(lambda: worker.link.detached)

    run(hello, scenario, link={"on_timer": lambda *what: None})
    assert "a timer does not fit" in str(raised[0])


def test_set_and_cancel(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        worker.link.timer_set(b"key", b"data", 2.5, 0.25, 0.125, all=True, local=True)
        worker.link.timer_set(b"k", b"", 0, 1, 0, overlap=True, any=True)
        worker.link.timer_cancel(b"key", local=True)
        worker.link.timer_cancel(b"k")
        await worker.until(lambda: len(worker.records) == 4)
        first, second, third, fourth = worker.records
        assert first.name == second.name == "TIMER_SET" and third.name == fourth.name == "TIMER_CANCEL"
        fixed = struct.unpack_from("<QQQIII", first.payload)
        assert fixed == (2_500_000_000, 250_000_000, 125_000_000, S.TIMER_ALL | S.TIMER_LOCAL, 3, 4)
        assert first.payload[S.TIMER_SET_FIXED_SIZE :][:7] == b"keydata"
        assert struct.unpack_from("<QQQIII", second.payload)[3:] == (S.TIMER_OVERLAP | S.TIMER_ANY, 1, 0)
        assert third.payload[:11] == struct.pack("<II", S.TIMER_LOCAL, 3) + b"key"
        assert fourth.payload[:9] == struct.pack("<II", 0, 1) + b"k"

    run(hello, scenario)


def test_what_is_refused(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        link = worker.link
        for seconds in (-1.0, math.nan, math.inf, 4e9):
            for at in range(3):
                times = [1.0, 1.0, 0.0]
                times[at] = seconds
                with pytest.raises(ValueError, match="must be between 0 and 3e9 seconds"):
                    link.timer_set(b"k", b"", *times)
        with pytest.raises(ValueError, match="may take"):
            link.timer_set(b"k", b"x" * (1 << 20), 1, 1, 0)
        with pytest.raises(ValueError, match="may take"):
            link.timer_cancel(b"k" * (1 << 20))
        with pytest.raises(TypeError):
            link.timer_set("k", 1, 1, 1, 1)
        link.detach()
        with pytest.raises(OSError):
            link.timer_set(b"k", b"", 1, 1, 0)
        with pytest.raises(OSError):
            link.timer_done(1, False)

    run(hello, scenario)


def test_an_on_timer_that_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="on_timer must be a callable or None"):
        Runner("asyncio")(hello, None, link={"on_timer": 1})  # type: ignore[arg-type]
