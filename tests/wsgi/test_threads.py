"""The pool of threads: how many there are, what they share, and how they end."""

from __future__ import annotations

import contextlib
import contextvars
import http.client
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.wire import Cut, until

from spvn import testing

from .live import OK, TEXT, connect, serving


def get(server: testing.LiveServer, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("spvn-wsgi")}


class Gate:
    """An app whose calls wait until they are let go; it counts how many are in it at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert environ["PATH_INFO"] == "/now" or self.go.wait(20)
        with self.lock:
            self.inside -= 1
        start_response(OK, TEXT)
        return [threading.current_thread().name.encode()]


def test_threads_are_started_as_they_are_needed() -> None:
    with serving(Gate(), threads=4) as server:
        for _ in range(20):
            assert get(server, "/now")[0] == 200
        assert len(names()) <= 3  # one that runs, one that waits, and on a busy machine one that does not wait yet
    assert until(lambda: not names())


def test_threads_that_cannot_be_started_cost_no_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At a limit on processes the threads that there are go on, and it is said once."""
    start, refused = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("spvn-wsgi") and names():
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with serving(Gate(), threads=4) as server:
        assert [get(server, "/now")[0] for _ in range(10)] == [200] * 10
        assert len(names()) == 1
    assert len(refused) > 1
    assert [record.message for record in caplog.records if "could not be started" in record.message] == [
        "A thread could not be started (can't start new thread): 1 run the app"
    ]


def test_no_more_than_threads_calls_at_once() -> None:
    gate = Gate()
    with serving(gate, threads=3) as server, ThreadPoolExecutor(30) as clients:
        answers = [clients.submit(get, server) for _ in range(30)]
        assert until(lambda: gate.inside == 3 and server.stats()["calls"]["in_flight"] == 30)
        assert until(lambda: server.stats()["calls"]["held"] == 3)  # the others wait in the core
        assert len(names()) == 3
        gate.go.set()
        assert {answer.result()[0] for answer in answers} == {200}
    assert gate.most == 3


def test_two_hundred_slow_calls_over_few_threads() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        time.sleep(0.02)
        start_response(OK, TEXT)
        return [b"slow"]

    began = time.monotonic()
    with serving(app, threads=8) as server, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(connect(server)) for _ in range(200)]
        for wire in wires:
            wire.get("/")
        assert {wire.answer().text for wire in wires} == {"slow"}
        assert until(lambda: server.stats()["calls"]["answered"] == 200)
    assert time.monotonic() - began < 5


def test_blocked_threads_do_not_stall_the_core(caplog: pytest.LogCaptureFixture) -> None:
    """All threads are stuck for over a second: connections, the queue and the departure of a client go on."""
    gate = Gate()
    with serving(gate, threads=2, stall_warning=0.3) as server, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(connect(server)) for _ in range(6)]
        for wire in wires:
            wire.get("/")
        assert until(lambda: gate.inside == 2 and server.stats()["calls"]["queued"] >= 4)
        leaving = connect(server)
        leaving.get("/")
        assert until(lambda: server.stats()["calls"]["in_flight"] == 7)
        leaving.close()
        assert until(lambda: server.stats()["calls"]["left"] == 1)
        time.sleep(1.2)  # what takes time is the thing under test
        gate.go.set()
        assert [wire.answer().status for wire in wires] == [200] * 6
        assert server.stats()["calls"]["taken_back"] == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["--stall-warning has no effect without --workers"]  # where the core's word of it goes nowhere


def test_a_slow_client_holds_its_thread_and_nobody_else() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        if environ["PATH_INFO"] == "/large":
            return (b"x" * 100_000 for _ in range(200))
        return [b"small"]

    with serving(app, threads=2) as server, connect(server) as slow, connect(server) as quick:
        slow.get("/large").head()
        for _ in range(20):
            assert quick.get("/").answer().text == "small"
        assert until(lambda: server.stats()["calls"]["in_flight"] == 1)
        assert len(slow.chunks()) == 20_000_000


def test_a_client_that_leaves_in_the_middle_of_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            return b"x" * 10_000

        def close(self) -> None:
            closed.set()

    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        return Endless()

    with serving(app, valid=False, threads=1) as server:
        with connect(server) as wire:
            wire.get("/").head()
            wire.take(100_000)
        assert closed.wait(10)
        assert until(lambda: server.stats()["calls"]["held"] == 0)
        assert until(lambda: server.stats()["calls"]["left"] == 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("reset", [False, True])
def test_contextvars(reset: bool) -> None:
    """A call has its own context, from the app's call to close(); and nothing of the call before."""

    class Body:
        def __iter__(self) -> Any:
            yield VARIABLE.get().encode()

        def close(self) -> None:
            seen.append(VARIABLE.get())

    def app(environ: Any, start_response: Any) -> Any:
        before = VARIABLE.get()
        VARIABLE.set(before + environ["PATH_INFO"])
        start_response(OK, TEXT)
        return Body()

    seen: list[str] = []
    with serving(app, valid=False, threads=1, reset_contextvars=reset) as server:
        assert [get(server, path)[1] for path in ("/a", "/b")] == ["unset/a", "unset/b"]
    assert seen == ["unset/a", "unset/b"]


def test_graceful_shutdown_waits_for_calls() -> None:
    gate = Gate()
    with serving(gate, threads=2) as server, connect(server) as wire:
        wire.get("/")
        assert until(lambda: gate.inside == 1)
        server.server.should_exit = True
        assert wire.quiet(0.2) and gate.inside == 1
        gate.go.set()
        assert wire.answer().status == 200
    assert until(lambda: not names())


def test_after_the_grace_time_reads_and_writes_raise(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            start_response(OK, TEXT)
            while True:
                yield b"x"
                time.sleep(0.01)
        finally:
            said.append("closed")

    server = testing.start(app, interface="wsgi", timeout_graceful_shutdown=0.2)
    with connect(server) as wire:
        wire.get("/").head()
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3
        with pytest.raises(Cut):
            wire.chunks()
    server.check()
    assert said == ["closed"]


def test_a_thread_that_never_comes_back_is_left_behind() -> None:
    gate = Gate()
    server = testing.start(gate, interface="wsgi", timeout_graceful_shutdown=0.1)
    with connect(server) as wire:
        wire.get("/")
        assert until(lambda: gate.inside == 1)
        server.server.force_exit = True
        server.stop()
    server.check()
    assert names()  # it is a daemon
    gate.go.set()
    assert until(lambda: not names())


def test_threads_run_in_parallel_where_there_is_no_gil() -> None:
    """Everywhere: two calls meet in the middle, so they run at the same time."""
    meeting = threading.Barrier(2, timeout=10)

    def app(environ: Any, start_response: Any) -> Any:
        meeting.wait()
        start_response(OK, TEXT)
        return [b"met"]

    with serving(app, threads=2) as server, connect(server) as one, connect(server) as two:
        one.get("/")
        two.get("/")
        assert one.answer().text == two.answer().text == "met"
