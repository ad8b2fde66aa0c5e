"""The link itself: attaching, claims, drains, bells, ends, detaching."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from .core_side import Core, S, eventfd, rung
from .harness import EAGER, Runner, Worker, _asgi, hello
from .test_send import body, start


def attach(core: Core, loop: asyncio.AbstractEventLoop, **options: Any) -> Any:
    options = {"on_error": print, "on_control": print, **options}
    return _asgi.Link(core.memfd, core.bell, core.loop_bells, hello, loop, **options)


@pytest.fixture
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


# Attaching.


def test_version(loop: asyncio.AbstractEventLoop) -> None:
    core = Core(version=S.VERSION + 6)
    with pytest.raises(
        ValueError, match=rf"speaks version {S.VERSION + 6} of the link and this extension version {S.VERSION}"
    ):
        attach(core, loop)
    core.close()


@pytest.mark.parametrize("offset", [S.HEADER_MAGIC, S.HEADER_LOOPS, S.HEADER_INBOX_SIZE, S.HEADER_RINGS_OFFSET])
def test_not_a_link(loop: asyncio.AbstractEventLoop, offset: int) -> None:
    core = Core()
    core.memory[offset : offset + 4] = b"\xf1\xff\xff\x7f"
    with pytest.raises(ValueError, match="The descriptor is not a link to the core: "):
        attach(core, loop)
    core.close()


def test_wrong_arguments(loop: asyncio.AbstractEventLoop) -> None:
    core = Core()
    with pytest.raises(ValueError, match="has 1 poll loops, got 2 bells"):
        _asgi.Link(core.memfd, core.bell, [1, 2], hello, loop, on_error=print, on_control=print)
    with pytest.raises(TypeError, match="on_error and on_control"):
        _asgi.Link(core.memfd, core.bell, core.loop_bells, hello, loop)
    with pytest.raises(TypeError, match="on_error and on_control"):
        attach(core, loop, on_error=5)
    with pytest.raises(TypeError, match="state must be a dict or None, got list"):
        attach(core, loop, state=[])
    with pytest.raises(OSError):
        _asgi.Link(-1, core.bell, core.loop_bells, hello, loop, on_error=print, on_control=print)
    link = attach(core, loop)
    with pytest.raises(RuntimeError, match="attached once"):
        link.__init__(core.memfd, core.bell, core.loop_bells, hello, loop, on_error=print, on_control=print)
    link.detach()
    core.close()


def test_not_attached(loop: asyncio.AbstractEventLoop) -> None:
    link = _asgi.Link.__new__(_asgi.Link)
    for method in (link.drain, link.ready, link.stopped, link.cancel):
        with pytest.raises(RuntimeError, match="not attached"):
            method()
    with pytest.raises(RuntimeError, match="not attached"):
        link.start_failed("x")
    link.detach()
    assert link.calls == 0


def test_types_are_closed() -> None:
    for name in ("Call", "Wait", "Done"):
        assert not hasattr(_asgi, name)
    if sys.version_info >= (3, 10):  # before, no type of an extension can be closed
        with pytest.raises(TypeError):
            _asgi.Link.calls = 5


def test_attaching_arms(loop: asyncio.AbstractEventLoop) -> None:
    core = Core(loops=2)
    link = attach(core, loop)
    assert all(ring.get("sleeping") for ring in core.inboxes)
    assert not rung(core.bell)
    link.detach()
    core.close()


def test_what_was_there_before(run: Runner) -> None:
    """A core that writes before the worker attaches does not ring: nobody sleeps yet."""

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        core = Core()
        call = core.call()
        worker = Worker(hello, loop, core)
        await worker.done(call)
        worker.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main(loop))
    loop.close()


# Claims and drains.


def test_claim(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        before = time.monotonic_ns()
        call = worker.core.call()
        worker.core.ring()
        worker.link.drain()
        assert worker.core.state(call) == S.SLOT_CLAIMED
        assert before <= worker.core.claimed_at(call) <= time.monotonic_ns()
        await worker.done(call)

    run(hello, scenario)


def test_what_was_taken_back_is_skipped(run: Runner) -> None:
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        core = worker.core
        first, second, third = (core.call(path=b"/%d" % i) for i in range(3))
        assert core.take_back(second)
        core.body(second, b"for nobody")
        core.free(second)
        again = core.call(path=b"/3")  # the same slot, one generation later
        assert again & 0xFFFFFFFF == second & 0xFFFFFFFF
        await worker.done(first, third, again)
        assert worker.of(second) == []
        assert worker.link.calls == 0

    run(app, scenario)
    assert paths == ["/0", "/2", "/3"]


@pytest.mark.skipif(EAGER, reason="calls are begun where they are claimed since 3.12")
@pytest.mark.parametrize(("alone", "claims"), [(False, 1), (True, 16)])
def test_how_many_calls_a_turn_claims(run: Runner, alone: bool, claims: int) -> None:
    """Without eager tasks: one, or, where no other worker could run them, several."""

    async def scenario(worker: Worker) -> None:
        claimed = 0
        for _ in range(20):  # a drain ends after 2 ms, too, if the machine is slow
            calls = [worker.core.call() for _ in range(40)]
            worker.core.ring()
            worker.link.drain()
            claimed = sum(worker.core.state(call) == S.SLOT_CLAIMED for call in calls)
            await worker.done(*calls)
            if claimed >= claims:
                break
        assert claimed == claims

    run(hello, scenario, link={"alone": alone})


@pytest.mark.skipif(not EAGER, reason="one call a turn before 3.12")
def test_a_drain_gives_the_loop_its_turn(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        calls = [worker.core.call() for _ in range(150)]
        worker.core.ring()
        for _ in range(3):
            worker.link.drain()
            assert 0 < sum(record.done for record in worker.take()) <= 64  # fewer if it takes 2 ms
        await worker.done(*calls)

    run(hello, scenario)


@pytest.mark.skipif(not EAGER, reason="apps run outside the drain before 3.12")
def test_a_drain_gives_the_loop_its_turn_by_time(run: Runner) -> None:
    """And what the busy loop has not begun can be taken back."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        until = time.perf_counter() + 0.003
        while time.perf_counter() < until:
            pass
        await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        calls = [worker.core.call() for _ in range(5)]
        worker.core.ring()
        worker.link.drain()
        assert [worker.core.state(call) for call in calls] == [S.SLOT_CLAIMED] + [S.SLOT_OFFERED] * 4
        assert worker.core.draining  # the rest is under way: the core goes on looking
        assert all(worker.core.take_back(call) for call in calls[1:4])
        await worker.done(calls[0], calls[4])
        await worker.until(lambda: not worker.core.draining)

    run(app, scenario)


@pytest.mark.skipif(not EAGER, reason="apps run outside the drain before 3.12")
def test_an_answer_is_visible_before_the_next_call(run: Runner) -> None:
    """And the bell rings once, at the end."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        worker.take()
        seen.append(len(worker.records))
        assert worker.core.draining
        assert not rung(worker.core.loop_bells[0])
        await hello(scope, receive, send)

    worker: Worker

    async def scenario(the_worker: Worker) -> None:
        nonlocal worker
        worker = the_worker
        calls = [worker.core.call() for _ in range(3)]
        worker.core.sleep()
        worker.core.ring()
        worker.link.drain()
        assert rung(worker.core.loop_bells[0])
        assert not worker.core.draining
        assert worker.core.turns == 1
        await worker.done(*calls)

    assert run(app, scenario).errors == []
    assert seen == [0, 1, 2]


def test_nobody_is_rung_that_is_awake(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        worker.core.outboxes[0].set("sleeping", 0)
        call = worker.core.call()
        worker.core.ring()
        while not worker.is_done(call):
            await worker.turns()
            worker.take()
        assert not rung(worker.core.loop_bells[0])

    run(hello, scenario)


def test_several_poll_loops(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        while message["more_body"]:
            message = await receive()
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        core = worker.core
        calls = [core.call(loop=i % 3, last=i % 2 == 0) for i in range(60)]
        for i, call in enumerate(calls):
            if i % 2:
                core.body(call, b"x", last=True)
        await worker.done(*calls)
        assert {call & 0xFFFFFFFF for call in calls} == {i + 64 * loop for loop in range(3) for i in range(20)}

    assert run(app, scenario, loops=3, slots=64).errors == []


def test_room_is_announced(run: Runner) -> None:
    """A core that found an inbox full is rung once a quarter of it is free."""

    async def scenario(worker: Worker) -> None:
        core = worker.core
        calls = []
        inbox = core.inboxes[0]
        while inbox.size - (inbox.get("head") - inbox.get("tail")) > 2048:
            calls.append(core.call(body=b"x" * 700))
        inbox.set("want_room", 1)
        core.ring()
        while inbox.get("want_room"):
            await asyncio.sleep(0)
            worker.take()
        assert rung(core.loop_bells[0]) or worker._rung.is_set()
        await worker.done(*calls)

    run(hello, scenario, inbox=1 << 15)


def test_drain_and_stop(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        worker.core.write(S.DRAIN)
        worker.core.write(99, payload=b"\0" * 16)  # unknown to this version: skipped
        worker.core.write(S.STOP)
        await worker.until(lambda: worker.controls == ["drain", "stop"])

    run(hello, scenario)


def test_control_that_raises(run: Runner) -> None:
    """The record is consumed, and what follows it is not lost."""

    def on_control(name: str) -> None:
        raise ZeroDivisionError(name)

    async def scenario(worker: Worker) -> None:
        worker.core.write(S.DRAIN)
        call = worker.core.call()
        with pytest.raises(ZeroDivisionError):
            worker.link.drain()
        await worker.done(call)

    run(hello, scenario, link={"on_control": on_control})


def test_a_nested_drain(run: Runner) -> None:
    """An app that runs the loop itself (nest_asyncio) calls drain() from inside one."""
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        if scope["path"] == "/0":
            worker.core.call(path=b"/later")
            worker.link.drain()
            worker.link.drain()
            assert worker.core.draining or not EAGER
        await hello(scope, receive, send)

    worker: Worker

    async def scenario(the_worker: Worker) -> None:
        nonlocal worker
        worker = the_worker
        for i in range(3):
            worker.core.call(path=b"/%d" % i)
        await worker.until(lambda: len(paths) == 4 and worker.link.calls == 0)
        assert not worker.core.draining

    if EAGER:
        # Tasks may not be started eagerly inside another one on every version: not the loop's own callback.
        assert run(app, scenario).errors == []
        assert paths == ["/0", "/1", "/2", "/later"]
    else:
        run(app, scenario)


def test_a_corrupt_inbox(run: Runner) -> None:
    async def scenario(worker: Worker) -> None:
        core = worker.core
        call = core.call()
        core.memory[core.inboxes[0].data : core.inboxes[0].data + 4] = b"\xff\xff\xff\x7f"
        with pytest.raises(RuntimeError, match="The link to the core is corrupt: a record has an impossible length"):
            worker.link.drain()
        assert worker.link.detached
        assert worker.controls == ["corrupt"]  # somebody has to end this worker: the core may have seen nothing
        worker.link.drain()
        assert core.state(call) == S.SLOT_OFFERED
        assert worker.controls == ["corrupt"]

    run(hello, scenario)


# How calls end.


@pytest.mark.parametrize("when", ["at once", "later"])
def test_an_exception(run: Runner, when: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if when == "later":
            await asyncio.sleep(0)
        raise ZeroDivisionError("why")

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(path=b"/a b", raw_path=b"/a%20b", query=b"c=d", method=b"POST")
        await worker.done(call)
        assert worker.names(call) == ["CALL_FAILED"]
        assert worker.link.calls == 0

    ((kind, error, line),) = run(app, scenario).errors
    assert (kind, type(error), line) == ("exception", ZeroDivisionError, "POST /a%20b?c=d HTTP/1.1")
    assert error is not None and error.__traceback__ is not None


@pytest.mark.parametrize("sent", [[], [start()], [start(), body(b"x", True)]])
def test_an_incomplete_answer(run: Runner, sent: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in sent:
            await send(message)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call(version=20)
        await worker.done(call)
        assert worker.names(call)[-1] == "CALL_FAILED"
        assert not any(record.last for record in worker.of(call))

    assert run(app, scenario).errors == [("incomplete", None, "GET / HTTP/2")]


def test_an_exception_after_the_answer(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise ZeroDivisionError

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.done(call)
        assert worker.names(call) == ["RESPONSE", "CALL_FAILED"]
        assert worker.of(call)[0].last

    assert len(run(app, scenario).errors) == 1


def test_a_background_task_after_the_answer(run: Runner) -> None:
    gate: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        gate.append(asyncio.Event())
        await gate[0].wait()

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: worker.names(call) == ["RESPONSE"])
        assert worker.of(call)[0].last
        assert worker.link.calls == 1
        gate[0].set()
        await worker.done(call)

    assert run(app, scenario).errors == []


def not_async(scope: Any, receive: Any, send: Any) -> int:
    return 5


def two_arguments(scope: Any, receive: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("app", "text"),
    [
        (
            not_async,
            "must be an async callable .scope, receive, send.: calling it returned int, which cannot be awaited",
        ),
        (two_arguments, "takes 2 positional arguments but 3 were given"),
    ],
)
def test_not_an_app(run: Runner, app: Any, text: str) -> None:
    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    ((_, error, _),) = run(app, scenario).errors
    assert error is not None
    with pytest.raises(TypeError, match=text):
        raise error


def test_any_awaitable_will_do(run: Runner) -> None:
    class Awaitable:
        def __init__(self, coroutine: Any) -> None:
            self.coroutine = coroutine

        def __await__(self) -> Any:
            return self.coroutine.__await__()

    def app(scope: Any, receive: Any, send: Any) -> Any:
        return Awaitable(hello(scope, receive, send))

    async def scenario(worker: Worker) -> None:
        assert (await worker.answer(worker.core.call()))[2] == b"Hello"

    assert run(app, scenario).errors == []


@pytest.mark.skipif(not EAGER, reason="raised by the task, not by the drain, before 3.12")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["call", "first step"])
def test_system_exit_out_of_a_drain(run: Runner, error: type[BaseException], when: str) -> None:
    """It leaves through the loop, and the next run of the loop finds everything as it should be."""

    async def coroutine(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/exit":
            raise error(5)
        await hello(scope, receive, send)

    def plain(scope: Any, receive: Any, send: Any) -> Any:
        if scope["path"] == "/exit":
            raise error(5)
        return coroutine(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        first = worker.core.call()
        exiting = worker.core.call(path=b"/exit")
        later = worker.core.call()
        worker.core.ring()
        worker.core.sleep()
        with pytest.raises(error):
            while not worker.is_done(exiting):
                worker.link.drain()  # a slow machine's 2 ms may be over before it is the second's turn
        assert rung(worker.core.loop_bells[0])
        worker.take()
        assert worker.names(first) == ["RESPONSE DONE"]
        assert worker.names(exiting) == ["CALL_FAILED"]
        await worker.done(later)  # by call_soon: the bell is silent
        assert not worker.core.draining

    errors = run(plain if when == "call" else coroutine, scenario).errors
    assert [(kind, type(exc)) for kind, exc, _ in errors] == [("exception", error)]


def test_on_error_that_raises(run: Runner) -> None:
    def on_error(*error: Any) -> None:
        raise ValueError("logging is broken")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append  # type: ignore[assignment]
    try:
        run(app, scenario, link={"on_error": on_error})
        assert [type(report.exc_value) for report in unraisable] == [ValueError]
        unraisable.clear()
    finally:
        sys.unraisablehook = hook


def test_cancel(run: Runner) -> None:
    cleaned = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(scope["path"])

    async def scenario(worker: Worker) -> None:
        calls = [worker.core.call(path=b"/%d" % i) for i in range(3)]
        await worker.until(lambda: worker.link.calls == 3)
        await worker.turns()
        assert worker.link.cancel() == 3
        await worker.done(*calls)
        assert [worker.names(call) for call in calls] == [["CALL_FAILED"]] * 3
        assert worker.link.cancel() == 0

    assert run(app, scenario).errors == []
    assert sorted(cleaned) == ["/0", "/1", "/2"]


def test_an_app_that_cancels_itself_is_reported(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def scenario(worker: Worker) -> None:
        await worker.done(worker.core.call())

    ((kind, error, _),) = run(app, scenario).errors
    assert (kind, type(error)) == ("exception", asyncio.CancelledError)


# Tasks are asyncio's.


def test_tasks_are_real(run: Runner) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert type(task) is asyncio.Task and task in asyncio.all_tasks()
        assert asyncio.get_running_loop() is task.get_loop()
        seen.append(variable.get())
        variable.set(scope["path"])
        await asyncio.sleep(0)
        assert variable.get() == scope["path"]
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            async with asyncio.TaskGroup() as group:
                group.create_task(send(start()))  # type: ignore[arg-type]
        else:
            await send(start())
        await send(body())

    async def scenario(worker: Worker) -> None:
        worker.loop.remove_reader(worker.core.bell)
        variable.set("server")
        worker.loop.add_reader(worker.core.bell, worker.link.drain)
        await worker.done(*(worker.core.call(path=b"/%d" % i) for i in range(3)))

    assert run(app, scenario).errors == []
    assert seen == ["server"] * 3


def test_a_waiting_call_is_kept_alive(run: Runner) -> None:
    """The loop knows its tasks weakly, and nothing else refers to one that waits in receive()."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await receive()
        await receive()
        await send(start())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: worker.link.calls == 1)
        await worker.turns()
        for _ in range(3):
            gc.collect()
        worker.core.disconnect(call)
        await worker.done(call)

    assert run(app, scenario).errors == []


# Detaching.


def test_detach(run: Runner) -> None:
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        for message in (start(), body()):
            try:
                await send(message)
            except OSError as error:
                errors.append(error)

    async def scenario(worker: Worker) -> None:
        worker.core.call()
        await worker.until(lambda: worker.link.calls == 1)
        await worker.turns()
        worker.link.detach()
        worker.link.detach()
        assert worker.link.detached
        worker.link.drain()
        with pytest.raises(OSError, match="The link to the core is closed"):
            worker.link.ready()
        await worker.turns(10)
        assert worker.link.calls == 0

    assert run(app, scenario).errors == []
    assert len(errors) == 2


def test_detach_with_a_held_body(run: Runner) -> None:
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(start())
            await send(body(b"x" * 4_000_000))
        except OSError as error:
            errors.append(error)

    async def scenario(worker: Worker) -> None:
        for _ in range(5):
            worker.core.call()
        await worker.until(lambda: worker.link.calls == 5)
        await worker.turns(5)
        worker.link.detach()
        await worker.turns(10)
        assert worker.link.calls == 0

    run(app, scenario, outbox=1 << 14)
    assert len(errors) == 5


@pytest.mark.skipif(not EAGER, reason="apps run outside the drain before 3.12")
def test_detach_inside_a_drain(run: Runner) -> None:
    """The memory goes when the drain has ended."""
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        worker.link.detach()
        try:
            await send(body(b"x"))
        except OSError as error:
            errors.append(error)

    worker: Worker

    async def scenario(the_worker: Worker) -> None:
        nonlocal worker
        worker = the_worker
        first, second = worker.core.call(), worker.core.call()
        worker.core.ring()
        worker.link.drain()
        assert worker.core.state(second) == S.SLOT_OFFERED
        assert worker.core.state(first) == S.SLOT_CLAIMED
        assert not worker.core.draining

    run(app, scenario)
    assert len(errors) == 1


def test_detach_while_headers_are_read(run: Runner) -> None:
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        def headers() -> Any:
            worker.link.detach()
            yield (b"a", b"b")

        try:
            await send(start(headers=headers()))
        except (OSError, RuntimeError) as error:
            errors.append(error)

    worker: Worker

    async def scenario(the_worker: Worker) -> None:
        nonlocal worker
        worker = the_worker
        worker.core.call()
        worker.core.ring()
        worker.link.drain()
        await worker.turns()

    run(app, scenario)
    assert len(errors) == 1


FORK = """
import asyncio, os, sys
from asgi.core_side import Core
from asgi.harness import Worker, hello

async def main():
    loop = asyncio.get_running_loop()
    reports = []

    async def app(scope, receive, send):
        pid = os.fork()
        if pid == 0:
            answer = {"type": "http.response.start", "status": 200}
            for use in (lambda: send(answer), worker.link.drain, worker.link.ready):
                try:
                    use()
                except RuntimeError as error:
                    assert "forked from a worker" in str(error), error
                else:
                    os._exit(1)
            worker.link.detach()
            os._exit(0)
        reports.append(os.waitpid(pid, 0)[1])
        await hello(scope, receive, send)

    worker = Worker(app, loop, Core())
    call = worker.core.call()
    await worker.done(call)
    assert reports == [0], reports
    assert worker.errors == []
    worker.close()
    print("fine")

asyncio.run(main())
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.environ.get("PYTHONPATH")
    environ = {
        **os.environ,
        "PYTHONPATH": tests + (os.pathsep + path if path else ""),
        "SPVN_ASGI": _asgi.__file__,
        **environment,
    }
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=100)


def test_a_forked_child(run: Runner) -> None:
    """It has neither the memory nor the right to answer: its calls raise, and the parent's go on."""
    if run.kind != "asyncio":
        pytest.skip("a child of uvloop is the same")
    result = run_python(FORK)
    assert (result.stdout, result.returncode) == ("fine\n", 0), result.stderr


def test_two_links_in_one_loop(run: Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        workers = [Worker(hello, loop, Core()) for _ in range(2)]
        for worker in workers:
            await worker.done(worker.core.call())
        workers[0].close()
        await workers[1].done(workers[1].core.call())
        workers[1].close()

    asyncio.run(main())


def test_the_bell_may_block(run: Runner) -> None:
    """A descriptor without O_NONBLOCK must not stop a drain that nobody rang for."""

    async def scenario(worker: Worker) -> None:
        worker.link.drain()
        worker.link.drain()

    run(hello, scenario)
    bell = eventfd()
    os.set_blocking(bell, True)
    core = Core()
    loop = asyncio.new_event_loop()
    os.close(core.bell)
    core.bell = bell
    link = attach(core, loop)
    assert not os.get_blocking(bell)
    link.drain()
    link.detach()
    loop.close()
    core.close()
