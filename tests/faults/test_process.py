"""What the process runs short of, and what the app does to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.process import SUPPORT
from support.wire import Wire, until


def spin(server, seconds=0.5):
    """The share of one CPU that the server uses while nothing happens."""
    before = server.cpu()
    time.sleep(seconds)
    return (server.cpu() - before) / seconds


def test_nothing_happens_when_nothing_happens(serve):
    server = serve()
    wires = [server.wire() for _ in range(20)]
    for wire in wires[::2]:
        wire.get("/").answer()
    before = server.count("loops.wakeups")
    assert spin(server) < 0.05
    assert server.count("loops.wakeups") - before < 10
    for wire in wires:
        wire.close()


def test_a_call_now_and_then_wakes_few(serve):
    """Not Go's monitor thread sixty times, which looks every 20 us for a while when something happened after all."""
    server = serve("--no-access-log")

    def switches():
        found = 0
        for status in Path(f"/proc/{server.pid}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found += int(line.split()[1])
        return found

    with server.wire() as wire:
        wire.get("/").answer()
        before = switches()
        for _ in range(20):
            time.sleep(0.05)
            wire.get("/").answer()
        assert (switches() - before) / 20 < 40


def test_a_blocked_app_does_not_make_the_core_spin(serve):
    """It looks once a millisecond whether there is an answer after all."""
    server = serve()
    with server.wire() as wire:
        server.block(wire, 0.8)
        assert spin(server) < 0.25
        assert wire.answer().body == b"blocked"


def test_descriptors_run_short(serve, name):
    """Idle connections make room, the longest idle first; new ones are served; nothing spins."""
    server = serve("--no-access-log", descriptors=160)
    busy = server.wire().get(f"/compute?key={name}")
    wires = []
    for _ in range(300):
        wire = server.wire()
        assert wire.get("/").answer().body == b"hello"
        wires.append(wire)
    assert spin(server) < 0.1
    assert wires[-1].get("/").answer().body == b"hello"
    shed = server.count("connections.shed")
    assert shed > 100
    wires[0].ended()
    wires[-1].get(f"/say?key={name}&word=go%20on").answer()
    assert busy.answer().body == b"computed"
    # They were closed one by one as room was needed, not all at a time.
    assert server.count("connections.open") > 40
    for wire in [busy, *wires]:
        wire.close()


def limit_files(server, room):
    """Leave the running server this many descriptors more than it has open now."""
    import resource

    open_now = len(os.listdir(f"/proc/{server.pid}/fd"))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (open_now + room, open_now + room))


def test_no_descriptor_is_left(serve):
    """The limit sinks below what the server counted on: accept itself fails."""
    server = serve("--no-access-log")
    wires = [server.wire() for _ in range(20)]
    for wire in wires[:10]:
        wire.get("/").answer()
    assert until(lambda: server.count("connections.open") == 20)
    limit_files(server, 0)
    for _ in range(60):
        with server.wire() as wire:
            assert wire.get("/").answer().body == b"hello"
    silent = [server.wire() for _ in range(30)]
    assert silent[-1].get("/").answer().body == b"hello"
    assert spin(server) < 0.1
    for wire in [*wires, *silent]:
        wire.close()


def test_no_descriptor_is_left_and_nobody_is_idle(serve, name):
    """New connections wait in the backlog, without a spin, until somebody goes."""
    server = serve("--no-access-log")
    busy = [server.wire().get(f"/compute?key={name}") for _ in range(10)]
    assert until(lambda: server.count("calls.in_flight") == 10)
    notes = server.wire()
    notes.get("/").answer()
    notes.get("/slow?seconds=1.5")
    assert until(lambda: server.count("calls.in_flight") == 11)
    # Before the other is answered: an idle one would be closed for those who wait.
    notes.get(f"/say?key={name}&word=go%20on")
    limit_files(server, 0)
    waiting = [server.wire().get("/") for _ in range(5)]
    assert spin(server) < 0.15
    notes.answer()
    notes.answer()
    for wire in busy:
        assert wire.answer().body == b"computed"
        wire.close()
    for wire in waiting:
        assert wire.answer().body == b"hello"
        wire.close()
    notes.close()


def test_the_last_descriptor(serve):
    """Whoever takes it keeps it, though it is a moment until it says something."""
    server = serve("--no-access-log")
    first = server.wire()
    first.get("/").answer()
    limit_files(server, 1)
    with server.wire() as last:
        time.sleep(0.02)
        assert last.get("/").answer().body == b"hello"
        assert first.get("/").answer().body == b"hello"
    first.close()


def test_a_crowd_at_the_limit_of_connections(serve, transport):
    """Those that come at once are let in in turn: none is closed before it had time to say something."""
    if transport == "goroutines":
        pytest.skip("this transport closes what is over the limit at once")
    server = serve("--no-access-log", "--limit-connections", "5")
    with ExitStack() as stack:
        crowd = [stack.enter_context(server.wire()) for _ in range(30)]
        time.sleep(0.02)
        for wire in crowd:
            wire.get("/")
        assert [wire.answer().body for wire in crowd] == [b"hello"] * len(crowd)
    assert server.count("connections.shed") > 0


def test_limit_connections(serve):
    server = serve("--limit-connections", "5")
    wires = [server.wire() for _ in range(5)]
    for wire in wires:
        wire.get("/").answer()
    with server.wire() as wire:
        assert wire.get("/").answer().body == b"hello"
        wires[0].ended()
    for wire in wires[1:]:
        assert wire.get("/").answer().body == b"hello"
    for wire in wires:
        wire.close()


def test_limit_concurrency(serve, name):
    server = serve("--limit-concurrency", "2")
    with server.wire() as first, server.wire() as second, server.wire() as third:
        first.get("/slow?seconds=0.4")
        second.get("/slow?seconds=0.4")
        assert until(lambda: server.count("calls.in_flight") == 2)
        answer = third.get("/").answer()
        assert (answer.status, answer.field("retry-after")) == (503, "1")
        assert first.answer().body == second.answer().body == b"slow"
        assert third.get("/").answer().body == b"hello"
    assert server.count("calls.refused") == 1


def test_limit_body(serve):
    server = serve("--limit-body", "10")
    with server.wire() as wire:
        assert wire.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").answer().status == 413
    with server.wire() as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
        assert wire.quiet(0.05)
        wire.send(b"6\r\nabcdef\r\n0\r\n\r\n")
        assert wire.answer().status == 413


def test_timeout_queue(serve, name):
    """Calls that a blocked app does not begin are answered by the core; their neighbours go on."""
    server = serve("--timeout-queue", "0.3")
    with server.wire() as blocking:
        server.block(blocking, 1.2)
        wires = [server.wire().get("/") for _ in range(100)]
        statuses = [wire.answer().status for wire in wires]
        assert set(statuses) <= {200, 503}
        assert blocking.answer().body == b"blocked"
        for wire in wires:
            wire.close()


def test_a_stdout_nobody_reads(serve):
    """The access log fills the pipe and its own memory; requests are answered, lines dropped and counted."""
    readable, writable = os.pipe()
    try:
        server = serve(stdout=writable, env={"PYTHONUNBUFFERED": ""})
        query = "q" * 6000
        with server.wire() as wire:
            for _ in range(30):
                wire.send(f"GET /?{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 10)
                for _ in range(10):
                    assert wire.answer().body == b"hello"
        assert until(lambda: server.count("access_log.dropped") > 50)
        assert spin(server) < 0.1
        server.check()
        server.process.terminate()
        began = time.monotonic()
        # The app's own print at its shutdown may need room in the pipe.
        os.set_blocking(readable, False)
        while server.process.poll() is None and time.monotonic() - began < 10:
            try:
                os.read(readable, 65536)
            except BlockingIOError:
                time.sleep(0.01)
        assert server.end(None) is not None
    finally:
        os.close(readable)
        os.close(writable)


def test_a_stdout_that_is_closed(serve):
    readable, writable = os.pipe()
    server = serve(stdout=writable, app="support.app:app", env={"PYTHONUNBUFFERED": ""})
    os.close(writable)
    os.close(readable)
    with server.wire() as wire:
        for _ in range(10):
            assert wire.get("/").answer().body == b"hello"
    server.check()


def test_a_forked_child_does_not_keep_connections_open(serve):
    server = serve()
    with server.wire() as wire:
        wire.get("/").answer()
        child = int(server.get("/fork").body)
        try:
            wire.get("/", "Connection: close").answer()
            wire.ended()
            with server.wire() as other:
                other.get("/fail?where=middle")
                try:
                    other.answer()
                except Exception:
                    pass
                else:
                    raise AssertionError("a cut answer looks complete")
            assert server.get("/").body == b"hello"
            server.check()
            wire.close()
            server.process.terminate()
            assert until(lambda: server.process.poll() is not None)
            # The child holds a copy of the listening socket.
            with pytest.raises(OSError):
                socket.create_connection(server.address, timeout=2)
        finally:
            os.kill(child, signal.SIGKILL)


def test_an_app_that_brings_back_sigpipe(serve, tmp_path):
    """Its deadly default must not end the server when a client is gone."""
    (tmp_path / "pipes.py").write_text(
        "import signal\nfrom support import app as real\n"
        "async def app(scope, receive, send):\n"
        "    signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "    await real.app(scope, receive, send)\n"
    )
    server = serve(app="pipes:app", env={"PYTHONPATH": str(tmp_path)})
    for _ in range(5):
        wire = server.wire().get("/flood?key=a")
        wire.take(1000)
        wire.reset()
    assert server.get("/").body == b"hello"


def test_an_app_that_changes_its_directory_and_closes_nothing_of_ours(serve, tmp_path):
    """`os.closerange` is what daemons do; it must not be done here, and a chdir may."""
    (tmp_path / "moves.py").write_text(
        "import os\nfrom support import app as real\n"
        "async def app(scope, receive, send):\n"
        "    os.chdir('/')\n"
        "    await real.app(scope, receive, send)\n"
    )
    server = serve("--uds", "here", app="moves:app", env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    with Wire(str(tmp_path / "here")) as wire:
        assert wire.get("/").answer().body == b"hello"
    server.check()
    server.end()
    assert not (tmp_path / "here").exists()


def test_descriptors_come_back(serve):
    """After a thousand connections the process holds as many descriptors as before."""
    server = serve("--no-access-log")

    def open_now():
        with server.wire() as wire:
            return json.loads(wire.get("/usage").answer().body)["fds"]

    before = open_now()
    for round_ in range(10):
        wires = [server.wire().get(["/", "/slow?seconds=0.01", "/fail?where=middle"][round_ % 3]) for _ in range(100)]
        for wire in wires:
            wire.close()
    assert until(lambda: open_now() <= before + 1)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_each_event_loop(serve, loop, name):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve("--loop", loop)
    with server.wire() as wire:
        for path, body in [("/", b"hello"), ("/parts?n=3&part=ab", b"ababab"), ("/slow?seconds=0.01", b"slow")]:
            assert wire.get(path).answer().body == body
        wire.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
        assert len(wire.answer().body) == 200_000
    with server.wire() as wire:
        wire.get(f"/flood?key={name}")
        wire.take(300_000)
        wire.reset()
    server.noted(name, "stopped")
    server.check()
    server.end()


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
def test_a_loop_of_the_apps(serve, tmp_path, workers):
    """It is looked for where the app is."""
    (tmp_path / "loops_of_ours.py").write_text(
        "import asyncio\n\nclass Ours(asyncio.SelectorEventLoop):\n    pass\n\n\ndef factory():\n    return Ours()\n"
    )
    (tmp_path / "app_of_ours.py").write_text(
        "import asyncio\n\nfrom support.app import app as inner\n\n\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        assert type(asyncio.get_running_loop()).__name__ == 'Ours'\n"
        "    await inner(scope, receive, send)\n"
    )
    server = serve(
        *("--loop", "loops_of_ours:factory", "--app-dir", str(tmp_path), *workers),
        app="app_of_ours:app",
        env={"PYTHONPATH": str(SUPPORT.parent)},
    )
    with server.wire() as wire:
        assert wire.get("/").answer().body == b"hello"


def listening(path):
    """Whether somebody accepts connections there: the socket exists a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(closed, tmp_path):
    """What is opened next must not become standard output."""
    path = str(tmp_path / "socket")
    command = f"exec {sys.executable} -m spvn support.app:app --app-dir {SUPPORT.parent} --uds {path} {closed}"
    process = subprocess.Popen(["sh", "-c", command])
    try:
        assert until(lambda: listening(path))
        with Wire(path) as wire:
            for _ in range(3):
                assert wire.get("/").answer().body == b"hello"
    finally:
        process.terminate()
        assert process.wait(20) == 0
