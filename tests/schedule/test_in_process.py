"""Timers of an app in this process, with the real core."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
import urllib.request
from typing import Any, Callable

import pytest
from support.process import Served
from support.wire import until

from spvn import _timers, core, schedule, testing
from spvn._threads import DaemonThreads

pytest.importorskip("spvn._asgi")
try:
    core.load()
except ImportError as exc:
    pytest.skip(str(exc), allow_module_level=True)


@pytest.fixture(autouse=True)
def nothing_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test sets before its server starts is not the next one's."""
    monkeypatch.setattr(_timers, "_imported", {})


class Ran:
    """What timers have done, in order, from any thread."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._changed = threading.Condition()

    def note(self, what: Any) -> None:
        with self._changed:
            self.all.append(what)
            self._changed.notify_all()

    def wait(self, condition: Callable[[list[Any]], bool]) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.all), 10), f"it ran {self.all}"
            return list(self.all)


def app_that(on_call: Callable[[], Any] = lambda: None, on_start: Callable[[], Any] = lambda: None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            on_start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        result = on_call()
        if asyncio.iscoroutine(result):
            await result
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def ask(server: testing.LiveServer) -> None:
    with urllib.request.urlopen(server.url, timeout=10) as answer:
        assert answer.read() == b"ok"


def balanced(server: testing.LiveServer) -> dict[str, int]:
    timers: dict[str, int] = server.stats()["timers"]
    assert timers["due"] == sum(timers[name] for name in ("done", "missed", "skipped", "open")), timers
    return timers


def twice(number: int) -> None: ...


def test_every() -> None:
    ran = Ran()

    async def on_the_loop() -> None:
        ran.note(("loop", schedule.firing().number, threading.current_thread().name))  # type: ignore[union-attr]

    def in_a_thread() -> None:
        ran.note(("thread", schedule.firing().key, threading.current_thread().name))  # type: ignore[union-attr]

    schedule.every(0.02, on_the_loop)
    assert schedule.every(0.02, on="all", key="plain")(in_a_thread) is in_a_thread
    with testing.serve(app_that()) as server:
        did = ran.wait(lambda all: {item[0] for item in all} == {"loop", "thread"} and len(all) > 6)
        balanced(server)
    numbers = [item[1] for item in did if item[0] == "loop"]
    assert numbers == sorted(set(numbers))
    assert {item[1] for item in did if item[0] == "thread"} == {"plain"}
    assert all(item[2] == "spvn-testing" for item in did if item[0] == "loop")
    assert all(item[2].startswith("spvn-timer") for item in did if item[0] == "thread")
    assert server.stats()["timers"]["open"] == 0
    count = len(ran.all)
    with testing.serve(app_that()) as server:  # another server of this process has them too
        ran.wait(lambda all: len(all) > count + 3)


def test_set_by_the_start_up_it_is_this_server_s() -> None:
    ran = Ran()
    start = functools.partial(schedule.every, 0.02, functools.partial(ran.note, "x"), key="start")
    with testing.serve(app_that(on_start=start)):
        ran.wait(lambda all: len(all) > 2)
    with testing.serve(app_that()) as server:
        ask(server)
        assert server.stats()["timers"]["set"] == 0


def test_after() -> None:
    ran = Ran()

    def on_call() -> None:
        schedule.after(0.0, ran.note, "local", local=True)
        schedule.after(0.05, twice, 7)
        schedule.after(30, twice, 8, key="replaced")
        schedule.after(0, twice, 9, key="replaced")
        schedule.after(0.01, ran.note, "cancelled", local=True).cancel()
        schedule.after(60, twice, 1)

    with testing.serve(app_that(on_call)) as server:
        ask(server)
        ran.wait(lambda all: all == ["local"])
        wait_for(lambda: balanced(server)["done"] == 3)
        assert server.stats()["timers"]["set"] == 1
        time_due = server.stats()["timers"]["due"]
    assert time_due == 3 and ran.all == ["local"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


def test_from_a_thread() -> None:
    ran = Ran()

    async def on_call() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, functools.partial(schedule.after, 0, ran.note, "x", local=True))

    with testing.serve(app_that(on_call)) as server:
        ask(server)
        ran.wait(lambda all: all == ["x"])


def test_a_timer_sets_timers() -> None:
    ran = Ran()

    def again() -> None:
        ran.note(schedule.firing().key)  # type: ignore[union-attr]
        schedule.after(0, ran.note, "inner", local=True)
        schedule.cancel("outer")

    with testing.serve(app_that(lambda: schedule.every(0.01, again, key="outer") and None)) as server:
        ask(server)
        ran.wait(lambda all: "inner" in all)
        wait_for(lambda: server.stats()["timers"]["set"] == 0)
        assert balanced(server)["failed"] == 0


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_is_logged_and_the_timer_goes_on(
    caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    ran = Ran()

    async def raises() -> None:
        ran.note(1)
        raise kind("of the timer")

    schedule.every(0.02, raises, key="bad")
    with caplog.at_level(logging.ERROR, "spvn.error"), testing.serve(app_that()) as server:
        ran.wait(lambda all: len(all) > 2)
        wait_for(lambda: server.stats()["timers"]["failed"] > 1)
    record = next(record for record in caplog.records if "timer 'bad'" in record.getMessage())
    assert record.exc_info and record.exc_info[1] is not None
    assert "of the timer" in str(record.exc_info[1].__cause__ or record.exc_info[1])


def test_no_overlap_unless_asked() -> None:
    together = {"alone": 0, "over": 0}
    most = dict(together)

    async def run(name: str) -> None:
        together[name] += 1
        most[name] = max(most[name], together[name])
        await asyncio.sleep(0.06)
        together[name] -= 1

    schedule.every(0.02, functools.partial(run, "alone"), key="alone")
    schedule.every(0.02, functools.partial(run, "over"), key="over", overlap=True)
    with testing.serve(app_that()) as server:
        wait_for(lambda: most["over"] > 1 and server.stats()["timers"]["skipped"] > 3)
        balanced(server)
    assert most["alone"] == 1


def test_a_run_is_finished_before_the_server_stops() -> None:
    ran = Ran()

    async def slow() -> None:
        ran.note("begun")
        await asyncio.sleep(0.2)
        ran.note("ended")

    with testing.serve(app_that(lambda: schedule.after(0, slow, local=True) and None)) as server:
        ask(server)
        ran.wait(lambda all: all == ["begun"])
    assert ran.all == ["begun", "ended"]
    assert balanced(server)["done"] == 1


def test_a_run_that_takes_too_long_is_cancelled() -> None:
    ran = Ran()

    async def slow() -> None:
        try:
            ran.note("begun")
            await asyncio.sleep(60)
        finally:
            ran.note("cancelled")

    with testing.serve(
        app_that(lambda: schedule.after(0, slow, local=True) and None), timeout_graceful_shutdown=0.1
    ) as server:
        ask(server)
        ran.wait(lambda all: all == ["begun"])
    assert ran.all == ["begun", "cancelled"]


def test_first_and_jitter() -> None:
    ran = Ran()

    def note(name: str) -> None:
        firing = schedule.firing()
        assert firing is not None
        ran.note((name, time.time() - firing.due))

    schedule.every(3600, functools.partial(note, "first"), key="first", first=0)
    schedule.every(0.05, functools.partial(note, "late"), key="late", jitter=0.04)
    with testing.serve(app_that()):
        did = ran.wait(lambda all: len(all) > 6)
    assert [item[0] for item in did].count("first") == 1
    assert all(late > -0.001 for _, late in did)
    assert max(late for _, late in did) > 0.003


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    served = Served("--timeout-graceful-shutdown", "0.1", "--lifespan", "off", app="schedule.stuck:app")
    try:
        served.err.wait("stuck")
        served.process.terminate()
        assert served.process.wait(10) == 0
    finally:
        served.kill()


def test_threads_of_timers() -> None:
    """They are as many as are needed, and what a thread raises is the caller's."""
    pool = DaemonThreads(3, "spvn-test")
    assert {pool.submit(threading.current_thread).result(10).name for _ in range(20)} <= {"spvn-test-1", "spvn-test-2"}
    go = threading.Event()
    waiting = [pool.submit(go.wait, 10) for _ in range(5)]
    assert until(lambda: sum(future.running() for future in waiting) == 3)
    waiting[4].cancel()
    go.set()
    assert [future.result(10) for future in waiting[:4]] == [True] * 4
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(10)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(print)
    assert until(lambda: not [t for t in threading.enumerate() if t.name.startswith("spvn-test")])
