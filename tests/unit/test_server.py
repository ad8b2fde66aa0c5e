from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import signal
import threading
from typing import Any, Callable

import pytest

import spvn
from spvn import AddressError, AppError, Config, Server, SpvnError, StartupFailed, _signals, testing
from spvn.worker import log_error

from . import fakes
from .conftest import use


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    scope["state"]["a"] = 1
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def config(app: Any = app, **options: Any) -> Config:
    return Config(app, **{"log_config": None, "access_log": False, "loop": "asyncio", "port": 0, **options})


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def when_started(server: Server, do: Callable[[], Any]) -> None:
    """In a thread: once the server serves, do this."""

    def wait() -> None:
        if server.wait_started(10):
            do()

    threading.Thread(target=wait).start()


def test_the_order_of_a_servers_life(functions: fakes.FakeFunctions, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spvn.error")
    server = Server(config())
    seen: list[Any] = []

    def stop() -> None:
        seen.append((server.started, server.port, server.url, server.stats()["calls"]["arrived"]))
        server.should_exit = True

    functions.arrived = 3
    gc.collect()  # what tests before this one left may go now
    before = descriptors()
    when_started(server, stop)
    server.run()
    assert seen == [(True, 49152, "http://127.0.0.1:49152", 3)]
    assert not server.started
    assert functions.log == [
        "start", "add-worker", "link.ready", "drain", "link.stopped", "stop", "link.detach"
    ]  # fmt: skip
    assert functions.links[0].state == {"a": 1}
    assert functions.drain_options == {"grace": 30.0}
    assert functions.config["in_process"] is True
    assert functions.config["access_log_fd"] == -1
    assert server.stats()["calls"]["arrived"] == 3
    assert descriptors() == before
    pid = os.getpid()
    assert [record.getMessage() for record in caplog.records] == [
        f"Started server process [{pid}]",
        "Waiting for application startup.",
        "Application startup complete.",
        "spvn running on http://127.0.0.1:49152 (Press CTRL+C to quit)",
        "Shutting down",
        "Waiting for application shutdown.",
        "Application shutdown complete.",
        f"Finished server process [{pid}]",
    ]


def test_startup_failed(functions: fakes.FakeFunctions) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    before = descriptors()
    with pytest.raises(StartupFailed, match="no database"):
        Server(config(failing)).run()
    assert functions.log == ["start", "add-worker", "link.start-failed no database", "stop", "link.detach"]
    assert descriptors() == before
    with pytest.raises(SystemExit) as caught:
        spvn.run(failing, log_config=None, access_log=False)
    assert caught.value.code == 3


def test_an_address_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    error = '{"kind": "address", "option": "--port", "value": "80", "message": "--port 80: no permission"}'
    use(monkeypatch, fakes.FakeFunctions(start_error=error))
    with pytest.raises(AddressError, match="--port 80: no permission"):
        Server(config()).run()
    with pytest.raises(SystemExit) as caught:
        spvn.run(app, log_config=None, access_log=False)
    assert caught.value.code == 1
    assert caplog.messages[-1] == "--port 80: no permission"


def test_exit_codes_of_run(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        spvn.run(app, port="x")
    assert (caught.value.code, capsys.readouterr().err) == (2, "spvn: error: --port: 'x' is not a whole number\n")
    with pytest.raises(SystemExit) as caught:
        spvn.run("nothing_there:app", log_config=None)
    assert caught.value.code == 1
    assert "Error loading ASGI app: there is no module 'nothing_there'" in caplog.messages[-1]


def test_a_core_that_cannot_be_loaded(functions: fakes.FakeFunctions, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ImportError("musl")

    monkeypatch.setattr(spvn.core, "load", load)
    with pytest.raises(SpvnError, match="^musl$"):
        Server(config()).run()


def test_the_app_is_loaded_before_anything_is_bound(functions: fakes.FakeFunctions) -> None:
    with pytest.raises(AppError):
        Server(config("nothing_there:app")).run()
    assert functions.log == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains(functions: fakes.FakeFunctions, number: int) -> None:
    before = signal.getsignal(number)
    server = Server(config())
    when_started(server, lambda: signal.pthread_kill(threading.main_thread().ident or 0, number))
    server.run()
    assert "drain" in functions.log
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_now(functions: fakes.FakeFunctions, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spvn.error")
    functions.hold_drain = True
    ended: list[str] = []

    async def careful(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            ended.append("lifespan")

    server = Server(config(careful))

    def interrupt() -> None:
        functions.links[0].calls = 2
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    functions.on_drain = lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    when_started(server, interrupt)
    server.run()
    assert functions.log[3:] == ["drain", "link.cancel", "stop", "link.detach"]
    assert ended == ["lifespan"]
    assert "Waiting for connections to close. (CTRL+C to force quit)" in caplog.messages
    assert "Waiting for application shutdown." not in caplog.messages


def test_an_app_that_hangs_at_start_up_can_be_stopped(functions: fakes.FakeFunctions) -> None:
    async def hanging(scope: Any, receive: Any, send: Any) -> None:
        server.force_exit = True
        await asyncio.Event().wait()

    server = Server(config(hanging))
    server.run()
    assert not server.started
    assert functions.log == ["start", "add-worker", "link.cancel", "stop", "link.detach"]


def test_what_is_left_after_the_grace_is_cancelled(
    functions: fakes.FakeFunctions, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(config(timeout_graceful_shutdown=0.05))

    def stop() -> None:
        functions.links[0].calls = 2
        server.should_exit = True

    when_started(server, stop)
    server.run()
    assert functions.drain_options == {"grace": 0.05}
    assert functions.log[3:] == ["drain", "link.cancel", "link.stopped", "stop", "link.detach"]
    assert "Cancel 2 running task(s), timeout graceful shutdown exceeded" in caplog.messages


def test_background_tasks_have_what_is_left_of_the_time(
    functions: fakes.FakeFunctions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spvn.error")
    server = Server(config())

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "background tasks" in record.getMessage():
                functions.links[0].calls = 0

    logging.getLogger("spvn.error").addHandler(Watch())

    def stop() -> None:
        functions.links[0].calls = 1
        server.should_exit = True

    when_started(server, stop)
    server.run()
    assert "link.cancel" not in functions.log
    assert "Waiting for background tasks to complete. (CTRL+C to force quit)" in caplog.messages


def test_the_cores_log_and_a_broken_worker(functions: fakes.FakeFunctions, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(config())

    def emit() -> None:
        functions.emit("log", level="warning", message="100% full")
        functions.emit("worker-corrupt", worker=1, message="bad record")

    when_started(server, emit)
    with pytest.raises(SpvnError, match="bad record"):
        server.run()
    assert ("spvn.error", logging.WARNING, "100% full") in caplog.record_tuples
    assert functions.log[-2:] == ["stop", "link.detach"]


@pytest.mark.parametrize("when", ["while it serves", "while it drains"])
def test_a_link_that_the_worker_finds_broken(functions: fakes.FakeFunctions, when: str) -> None:
    server = Server(config(timeout_graceful_shutdown=None))
    functions.hold_drain = True

    async def find() -> None:
        functions.links[0].on_control("corrupt")

    def act() -> None:
        assert server._loop is not None
        if when == "while it drains":
            functions.on_drain = lambda: asyncio.ensure_future(find())
            server.should_exit = True
        else:
            asyncio.run_coroutine_threadsafe(find(), server._loop)

    when_started(server, act)
    with pytest.raises(SpvnError, match="broke the link"):
        server.run()
    assert functions.log[-2:] == ["stop", "link.detach"]


def test_limit_max_requests(functions: fakes.FakeFunctions) -> None:
    server = Server(config(limit_max_requests=5))
    functions.arrived = 4
    when_started(server, lambda: setattr(functions, "arrived", 5))
    server.run()
    assert "drain" in functions.log


def test_serve_in_a_running_loop(functions: fakes.FakeFunctions) -> None:
    server = Server(config())

    async def main() -> None:
        task = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        server.should_exit = True
        await task
        with pytest.raises(RuntimeError, match="served already"):
            await server.serve()

    asyncio.run(main())
    assert functions.log[-1] == "link.detach"


def test_a_cancelled_serve_closes(functions: fakes.FakeFunctions) -> None:
    server = Server(config())
    before = descriptors()

    async def main() -> None:
        task = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert functions.log[-2:] == ["stop", "link.detach"]
    assert descriptors() == before


def test_ctrl_c_goes_on_to_the_program_around(functions: fakes.FakeFunctions) -> None:
    server = Server(config())

    async def main() -> None:
        await server.serve()
        await asyncio.sleep(10)

    when_started(server, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert "drain" in functions.log


def test_a_signal_reaches_every_server_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    got: list[tuple[str, int]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with _signals.captured(loop, lambda n: got.append(("a", n)), pass_on=True):
            with _signals.captured(loop, lambda n: got.append(("b", n)), pass_on=True):
                signal.raise_signal(signal.SIGTERM)
                while len(got) < 2:
                    await asyncio.sleep(0)
            signal.raise_signal(signal.SIGTERM)
            while len(got) < 3:
                await asyncio.sleep(0)

    asyncio.run(main())
    assert got == [("a", signal.SIGTERM), ("b", signal.SIGTERM), ("a", signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is before  # whose default action did not end this process


def test_in_a_thread_no_handler_is_touched(functions: fakes.FakeFunctions) -> None:
    with testing.serve(app, loop="asyncio") as server:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert server.port == 49152
        assert server.url == "http://127.0.0.1:49152"
    assert functions.log[-1] == "link.detach"


def test_two_servers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = fakes.FakeFunctions(port=1111), fakes.FakeFunctions(port=2222)
    use(monkeypatch, first)
    with testing.serve(app, loop="asyncio") as one:
        use(monkeypatch, second)
        with testing.serve(app, loop="asyncio") as two:
            assert (one.port, two.port) == (1111, 2222)
    assert first.log[-1] == second.log[-1] == "link.detach"


def test_testing_raises_what_kept_the_server_from_starting(functions: fakes.FakeFunctions) -> None:
    with pytest.raises(AppError, match="nothing_there"):
        testing.start("nothing_there:app")


def test_testing_checks_the_counters(functions: fakes.FakeFunctions, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {"calls": {"arrived": 2, "answered": 1, "refused": 0, "failed": 0, "left": 0, "in_flight": 0}}
    monkeypatch.setattr(Server, "stats", lambda self: stats)
    with pytest.raises(AssertionError, match="2 calls arrived, but the ends are"):
        with testing.serve(app, loop="asyncio"):
            pass
    with pytest.raises(LookupError):  # what the block raises comes first
        with testing.serve(app, loop="asyncio"):
            raise LookupError


def test_reset_contextvars(functions: fakes.FakeFunctions, monkeypatch: pytest.MonkeyPatch) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def drain(link: fakes.FakeLink) -> None:
        os.read(link.bell, 1)
        seen.append(variable.get())

    monkeypatch.setattr(fakes.FakeLink, "drain", drain)

    async def main(reset: bool) -> None:
        variable.set("set")
        server = Server(config(reset_contextvars=reset))
        task = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        functions.ring()
        while not seen:
            await asyncio.sleep(0)
        server.should_exit = True
        await task

    asyncio.run(main(False))
    assert seen == ["set"]
    seen.clear()
    asyncio.run(main(True))
    assert seen == ["unset"]


def test_errors_of_the_app_are_logged_with_the_request_line(caplog: pytest.LogCaptureFixture) -> None:
    log_error("exception", LookupError("x"), "GET /a HTTP/1.1")
    log_error("incomplete", None, "GET /b HTTP/1.1")
    assert caplog.messages[0].startswith('Exception in ASGI application: "GET /a HTTP/1.1"')
    assert caplog.records[0].exc_info is not None
    assert caplog.messages[1] == 'ASGI application returned without completing its answer: "GET /b HTTP/1.1"'
