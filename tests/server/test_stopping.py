"""The end of a server: signals, draining, exit codes."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.process import Served
from support.wire import Cut, Wire, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_once_when_there_is_nothing_to_do(serve, number):
    server = serve()
    began = time.monotonic()
    server.end(number)
    assert time.monotonic() - began < 1.5


def test_a_start_that_hangs_can_be_stopped(serve):
    """And what it has opened so far is closed."""
    server = Served(app="support.app:hanging", wait=False)
    server.err.wait("Waiting for application startup")
    server.kick()
    said = server.end(None)
    assert "Shutting down before the app has started" in said and "cleaned up" in said


def test_tasks_that_do_not_end(serve):
    server = serve(transport="poll")
    with server.wire() as wire:
        assert wire.get("/undying").answer().status == 200
    assert "leaving without them" in server.end()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_signals_of_forked_processes_are_their_own(serve, loop):
    """A pool of the app that ends its processes must not end the server."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve("--loop", loop)
    with server.wire() as wire:
        for _ in range(3):
            assert int(wire.get("/forked").answer().body) == -signal.SIGTERM
        assert wire.get("/").answer().status == 200


def test_threads_that_do_not_end(serve):
    """The process ends without them: whoever started it waits for that."""
    server = serve(transport="poll")
    with server.wire() as wire:
        assert wire.get("/stuck").answer().status == 200
    assert "leaving without them" in server.end()


def test_calls_in_flight_finish(serve, name):
    server = serve()
    with server.wire() as wire, server.wire() as idle:
        idle.get("/").answer()
        wire.get(f"/slow?seconds=0.5&key={name}")
        server.noted(name, "begun")
        with server.wire() as late:
            late.get("/").answer()
            server.kick()
            idle.ended()
            late.ended()
        server.err.wait("Shutting down")
        # The control socket still answers, and nobody is let in any more.
        assert until(lambda: refuses(server.address))
        assert server.count("calls.in_flight") == 1
        answer = wire.answer()
        assert (answer.status, answer.field("connection")) == (200, "close")
        wire.ended()
    server.end(None)


def refuses(address):
    try:
        with socket.create_connection(address, timeout=1):
            return False
    except OSError:
        return True


def test_idle_clients_that_do_not_notice_do_not_delay_the_end(serve):
    """A pool of connections sees the FIN only when it wants to use one."""
    server = serve()
    wires = [server.wire() for _ in range(5)]
    for wire in wires[1:]:
        wire.get("/").answer()
    began = time.monotonic()
    server.end()
    assert time.monotonic() - began < 1.5
    for wire in wires:
        wire.ended()
        wire.close()


def test_requests_in_a_pipeline_are_finished_up_to_the_one_in_hand(serve, name):
    server = serve()
    with server.wire() as wire:
        wire.get(f"/slow?seconds=0.4&key={name}").send(GET * 3)
        server.noted(name, "begun")
        server.kick()
        first = wire.answer()
        assert (first.body, first.field("connection")) == (b"slow", "close")
        wire.ended()
    server.end(None)


def test_a_request_that_is_arriving_is_served(serve, name):
    """Its head had begun when the signal came."""
    server = serve()
    with server.wire() as wire:
        wire.send(GET[:20])
        assert until(lambda: server.count("connections.open") >= 1)
        assert wire.quiet(0.05)
        server.kick()
        server.err.wait("Shutting down")
        assert until(lambda: refuses(server.address))  # the core has begun to drain
        wire.send(GET[20:])
        answer = wire.answer()
        assert (answer.body, answer.field("connection")) == (b"hello", "close")
    server.end(None)


def test_an_upload_in_hand_is_finished(serve, name):
    server = serve()
    with server.wire() as wire:
        wire.send(f"POST /upload?key={name} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabcde".encode())
        server.noted(name, "first")
        server.kick()
        server.err.wait("Shutting down")
        wire.send(b"fghij")
        assert json.loads(wire.answer().body)["bytes"] == 10
    server.end(None)


def test_a_stream_in_hand_is_finished(serve):
    server = serve()
    with server.wire() as wire:
        wire.get("/parts?n=8&pause=0.05&part=abc")
        wire.head()
        server.kick()
        assert wire.chunks() == b"abc" * 8
    server.end(None)


def test_a_background_task_is_finished(serve, name):
    server = serve()
    server.get(f"/background?key={name}&seconds=0.4")
    server.end()
    assert f"done {name}" in server.out.all()


def test_what_is_in_the_backlog_is_served(serve, name):
    """Connected, and with their requests sent, while the loop could not accept anybody."""
    server = serve("--backlog", "64")
    server.kick(signal.SIGSTOP)
    wires = [server.wire().send(GET) for _ in range(20)]
    server.kick(signal.SIGTERM)
    server.kick(signal.SIGCONT)
    for wire in wires:
        answer = wire.answer()
        assert answer.body == b"hello"
        wire.close()
    server.end(None)


def test_no_call_is_lost_by_clients_that_keep_asking(serve):
    """Every request that was begun on a connection gets its answer, or finds it closed before anything was sent."""
    server = serve()
    address = server.address

    def ask(_):
        done = 0
        while True:
            try:
                wire = Wire(address)
            except OSError:
                return done
            with wire:
                try:
                    while True:
                        answer = wire.get("/").answer()
                        assert answer.body == b"hello"
                        done += 1
                        if answer.field("connection") == "close":
                            break
                except Cut as cut:
                    assert cut.got == b""
                except OSError:
                    pass

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        assert until(lambda: server.count("calls.answered") > 200)
        server.end()
        assert sum(one.result() for one in asking) > 200


def test_a_second_signal_stops_now(serve, name):
    server = serve()
    with server.wire() as wire:
        wire.get(f"/slow?seconds=20&key={name}")
        server.noted(name, "begun")
        server.kick()
        server.err.wait("Shutting down")
        began = time.monotonic()
        server.end(signal.SIGTERM)
        assert time.monotonic() - began < 2
        try:
            assert wire.answer().status >= 500
        except Cut:
            pass


def test_the_grace_is_bounded(serve, name):
    server = serve("--timeout-graceful-shutdown", "0.3")
    with server.wire() as wire:
        wire.get(f"/slow?seconds=20&key={name}")
        server.noted(name, "begun")
        began = time.monotonic()
        said = server.end()
        assert time.monotonic() - began < 3
        assert "timeout graceful shutdown exceeded" in said
        try:
            assert wire.answer().status == 500
        except Cut:
            pass


def test_signals_while_a_handler_blocks_the_loop(serve):
    """Both are taken once it lets go."""
    server = serve()
    with server.wire() as wire:
        server.block(wire, 0.6)
        server.kick()
        assert wire.answer().body == b"blocked"
    server.end(None)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_app_that_exits(serve, loop, name):
    """sys.exit() ends the call, not the server and the calls of others."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve("--loop", loop)
    with server.wire() as wire, server.wire() as other:
        other.get(f"/slow?seconds=1&key={name}")
        server.noted(name, "begun")
        for how in ("exit", "interrupt"):
            for pause in ("", "0", "0.01"):
                assert wire.get(f"/exit?how={how}&pause={pause}").answer().status == 500
        assert other.answer().body == b"slow"
    server.check()
    said = server.end()
    # Where a task runs at once (Python 3.12 and later) asyncio says so too, as nobody asks that task.
    assert said.count("Exception in ASGI application") == 6, said
    assert said.count("\nSystemExit: 3\n") >= 3 <= said.count("\nKeyboardInterrupt\n"), said


def test_exit_codes(tmp_path):
    def run(*arguments, app="support.app:app", code):
        said = Served(*arguments, app=app, wait=False).end(None, code)
        assert "Traceback" not in said or code == 3, said
        return said

    assert "nowhere" in run(app="nowhere:app", code=1)
    assert "missing" in run(app="support.app:missing", code=1)
    assert "--no-such-option" in run("--no-such-option", code=2)
    assert "--port" in run("--port", "many", code=2)
    assert "the database is not there" in run(app="support.app:broken", code=3)


def test_a_server_whose_start_up_failed_does_not_keep_its_address(serve):
    failed = Served(app="support.app:broken", wait=False)
    failed.end(None, 3)
    serve()


def test_limit_max_requests(serve):
    server = serve("--limit-max-requests", "3")
    server.checked = False
    for _ in range(3):
        server.get("/")
    said = server.end(None)
    assert "Maximum request limit" in said


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_restart_on_the_same_port(serve):
    """Connections in TIME_WAIT do not keep the next server from binding."""
    server = serve()
    with server.wire() as wire:
        wire.get("/", "Connection: close").answer()
    server.end()
    again = serve("--port", str(server.port))
    assert again.get("/").body == b"hello"
