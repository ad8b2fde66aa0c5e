"""What spvn.schedule takes, what it refuses, and what it does without a server."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import pickle
from typing import Any

import pytest

from spvn import _timers, schedule


@pytest.fixture(autouse=True)
def nothing_imported(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    imported: dict[Any, Any] = {}
    monkeypatch.setattr(_timers, "_imported", imported)
    return imported


def job() -> None: ...


class Jobs:
    def job(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def static() -> None: ...


def test_keys() -> None:
    assert schedule.every(1, job).key == f"{__name__}:job"
    assert schedule.every(1, Jobs.static).key == f"{__name__}:Jobs.static"
    assert schedule.every(1, Jobs.of_class).key == f"{__name__}:Jobs.of_class"
    assert schedule.every(1, job, key="mine").key == "mine"
    for nameless in (lambda: None, functools.partial(job), Jobs().job):
        with pytest.raises(ValueError, match="give it one, as key="):
            schedule.every(1, nameless)
        schedule.every(1, nameless, key="named")


def test_the_last_registration_wins(nothing_imported: dict[Any, Any]) -> None:
    schedule.every(1, job)
    schedule.every(2, job)
    schedule.every(3, job, local=True)
    assert [r.interval for r in nothing_imported.values()] == [2, 3]
    schedule.cancel(f"{__name__}:job")
    assert [r.interval for r in nothing_imported.values()] == [3]


@pytest.mark.parametrize("interval", [0, -1, 0.0001, math.nan, math.inf, 1e12, True, "1", None])
def test_intervals_that_are_refused(interval: Any) -> None:
    with pytest.raises(ValueError, match="interval must be"):
        schedule.every(interval, job)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "some"}, 'on must be "one" or "all"'),
        ({"jitter": 1}, "jitter must be less than the interval"),
        ({"jitter": -1}, "jitter must be"),
        ({"first": -1}, "first must be"),
        ({"key": ""}, "key must be"),
        ({"key": "x" * 1025}, "key must be"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule.every(1, job, **options)


def test_no_function() -> None:
    with pytest.raises(TypeError, match="needs a function"):
        schedule.every(1, "job")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="needs a function"):
        schedule.after(1, "job")  # type: ignore[arg-type]


def test_what_after_cannot_hand_over() -> None:
    with pytest.raises(TypeError, match="local=True"):
        schedule.after(1, lambda: None)
    with pytest.raises(TypeError, match="local=True"):
        schedule.after(1, job, (x for x in ()))
    with pytest.raises(ValueError, match="may take 65536"):
        schedule.after(1, job, b"x" * 70000)
    with pytest.raises(ValueError, match="delay must be"):
        schedule.after(-1, job)


def test_after_without_server_or_loop() -> None:
    with pytest.raises(RuntimeError, match="where no server runs"):
        schedule.after(0, job)
    assert schedule.firing() is None


def test_after_without_a_server_runs_on_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    async def fail() -> None:
        raise ValueError("of the timer")

    async def main() -> None:
        done = asyncio.Event()

        async def last() -> None:
            ran.append("async")
            done.set()

        schedule.after(0, ran.append, "plain", local=True)
        schedule.after(0, ran.append, "never", local=True).cancel()
        schedule.after(0, fail, local=True, key="failing")
        schedule.after(0.01, last, local=True)
        await asyncio.wait_for(done.wait(), 5)

    with caplog.at_level(logging.ERROR, "spvn.error"):
        asyncio.run(main())
    assert ran == ["plain", "async"]
    assert "timer 'failing'" in caplog.text


def test_what_is_handed_over_comes_back() -> None:
    fn, args = pickle.loads(schedule._pickle(functools.partial(job), (1, "x")))
    assert fn.func is job and args == (1, "x")
