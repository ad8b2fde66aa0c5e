"""Timers over several worker processes that are killed, replaced and blocked."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from workers.served import Served, served

pytest.importorskip("spvn._asgi")

APP = Path(__file__).with_name("app.py").read_text()


class Ran:
    """What the timers of app.py did: (name, number, pid) for each run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self, name: str) -> list[tuple[int, int]]:
        if not self.path.exists():
            return []
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return [(int(number), int(pid)) for found, number, pid in lines if found == name]


@contextmanager
def timers(folder: Path, *options: str) -> Iterator[tuple[Served, Ran]]:
    ran = Ran(folder / "ran")
    with served(folder, *options, app=APP, env={"RAN": str(ran.path)}) as server:
        server.wait_ready(2)
        yield server, ran
        balanced(server)


def balanced(server: Served) -> dict[str, int]:
    stats: dict[str, int] = server.stats()["timers"]
    assert stats["due"] == sum(stats[name] for name in ("done", "missed", "skipped", "open")), stats
    return stats


def assert_once(runs: list[tuple[int, int]]) -> None:
    """No due time ran twice."""
    twice = {number: count for number, count in Counter(number for number, _ in runs).items() if count > 1}
    assert not twice, twice


def test_no_due_time_runs_twice_or_gets_lost_while_workers_are_killed(tmp_path: Path) -> None:
    kills = 30 if os.environ.get("SPVN_SOAK") else 4
    with timers(tmp_path, "--workers", "2") as (server, ran):
        server.wait(lambda: len(ran.all("one")) > 2, "runs")
        for turn in range(kills):
            have = len(ran.all("one"))
            os.kill(server.workers()[turn % 2], signal.SIGKILL)
            server.wait(lambda turn=turn: server.stats()["workers"]["died"] > turn, "a death")
            server.wait(lambda have=have: len(ran.all("one")) > have + 1, "runs after a death")
            server.wait_ready(2)
        stats = balanced(server)
        runs = ran.all("one")
        assert_once(runs)
        assert len({pid for _, pid in runs}) > 1
        # Those of `each` come to (number, worker) pairs.
        each = ran.all("each")
        assert len(set(each)) == len(each)
        numbers = {number for number, _ in runs}
        missing = set(range(1, max(numbers) + 1)) - numbers
        assert len(missing) <= stats["missed"] + stats["skipped"], (missing, stats)
        if not re.search("passed unseen|no worker could run it", server.log()):  # a machine that is too busy
            assert stats["missed"] <= 2 * kills, server.log()  # of two timers


def test_each_worker_runs_what_is_for_all(tmp_path: Path) -> None:
    with timers(tmp_path, "--workers", "2") as (server, ran):
        server.wait(lambda: len(ran.all("each")) > 6, "runs")
        pids = set(server.workers())
        runs = ran.all("each")
        both = [number for number, count in Counter(number for number, _ in runs).items() if count == 2]
        assert {pid for _, pid in runs} == pids
        assert len(both) >= 2
        assert len(set(runs)) == len(runs)


def test_a_delayed_call_survives_the_worker_that_asked(tmp_path: Path) -> None:
    with timers(tmp_path, "--workers", "2") as (server, ran):
        status, pid = server.call("/after?hello")
        os.kill(int(pid), signal.SIGKILL)
        server.wait(lambda: bool(ran.all("hello")), "the delayed call")
        assert status == 200
        assert [number for number, _ in ran.all("hello")] == [1]
        assert ran.all("hello")[0][1] != int(pid)


def test_a_restart_keeps_the_due_times(tmp_path: Path) -> None:
    with timers(tmp_path, "--workers", "2") as (server, ran):
        old = set(server.workers())
        server.wait(lambda: len(ran.all("one")) > 1, "runs")
        server.signal(signal.SIGHUP)
        server.wait(lambda: not old & set(server.workers()) and len(server.ready()) == 2, "new workers")
        have = len(ran.all("one"))
        server.wait(lambda: len(ran.all("one")) > have + 1, "runs of the new")
        runs = ran.all("one")
        assert_once(runs)
        numbers = [number for number, _ in runs]
        assert len(numbers) >= max(numbers) - balanced(server)["missed"] - balanced(server)["skipped"]


def test_a_blocked_worker_does_not_hold_a_timer_up(tmp_path: Path) -> None:
    with timers(tmp_path, "--workers", "2") as (server, ran):
        server.wait(lambda: bool(ran.all("one")), "a run")
        begun = time.monotonic()
        have = len(ran.all("one"))
        _, blocked = server.call("/block")  # for a second
        took = time.monotonic() - begun
        during = ran.all("one")[have:]
        assert_once(during)
        # Due every 0.2 s, and at most the one that it had begun is late.
        assert len(during) >= took / 0.2 - 2, (during, took)
        assert sum(pid == int(blocked) for _, pid in during) <= 2
