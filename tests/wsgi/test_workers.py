"""WSGI in worker processes: a death, a restart and an end of the server lose no call."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process import Served
from support.wire import until


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served("--workers", "2", "--threads", "2", "--no-access-log", app="wsgi.app:app", cwd=tmp_path)
    try:
        yield server
        server.check()
        server.end()
    finally:
        server.kill()


def workers(served: Served) -> set[str]:
    """Those that answer now: each call is held for a moment, so that they take turns."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(served.wire()) for _ in range(4)]
        for wire in wires:
            wire.get("/sleep/0.1")
        return {wire.answer().text for wire in wires}


def test_a_thread_waits_in_each_worker(served: Served) -> None:
    """Four calls at once are four threads in two processes, and none waits for another one."""
    assert until(lambda: len(workers(served)) == 2)
    answer = served.get("/")
    assert answer.field("x-multiprocess") == "True"


def test_the_death_of_a_worker(served: Served) -> None:
    assert served.get("/die-once/poison").status == 200  # by the other one
    assert served.count("calls.rerun") == 1


def test_a_rolling_restart_under_calls(served: Served) -> None:
    old = set()
    assert until(lambda: len(old.update(workers(served)) or old) == 2)  # type: ignore[func-returns-value]
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(served.wire()) for _ in range(8)]
        for wire in wires:
            wire.get("/sleep/0.3")
        served.kick(signal.SIGHUP)
        answers = [wire.answer() for wire in wires]
        assert {answer.status for answer in answers} == {200}
        assert until(lambda: not workers(served) & old)
        for wire in wires:  # their connections are there still
            assert wire.get("/").answer().text not in old
    assert served.count("calls.failed") == 0


def test_a_server_that_ends_finishes_its_calls(served: Served) -> None:
    with served.wire() as wire:
        wire.get("/sleep/0.5")
        assert until(lambda: served.count("calls.in_flight") == 1)
        served.kick()
        assert wire.answer().status == 200
    served.process.wait(15)
    served.check = lambda: None  # type: ignore[method-assign]
