"""Flow control, pings, limits and the end of servers and workers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
import zlib

import pytest
from support.process import key
from ws_client import BINARY, FIN, PING, PONG, RSV1, TEXT, Client, closing, frame, text, until


def test_a_lagging_app_stops_the_client(ws_serve):
    """With --ws-max-queue 4 a few messages wait in the core and the worker, and the rest in the client's kernel."""
    server = ws_serve("--ws-max-queue", "4", "--ws-ping-interval", "off")
    name = key()
    with Client(server.port).open(f"/gate?key={name}") as client, Client(server.port) as other:
        server.noted(name, "accepted")
        client.socket.settimeout(0.5)
        sent = 0
        message = frame(FIN | BINARY, b"x" * 100_000)
        with contextlib.suppress(socket.timeout):
            for _ in range(1000):
                client.socket.sendall(message)
                sent += 1
        assert sent < 200, "the client could send 20 MB to an app that receives nothing"
        assert server.count("connections.reads_paused") == 1
        assert server.count("websockets.messages_in") <= 8
        other.open(f"/opens?key={name}")
        client.socket.settimeout(10)
        for _ in range(sent):
            assert client.message() == b"x" * 100_000


def test_a_blocked_loop_delays_no_pong_and_kills_nobody(ws_serve):
    """The loop stands still for longer than the client's ping timeout, and than the server's own."""
    server = ws_serve("--ws-ping-interval", "0.3", "--ws-ping-timeout", "0.5")
    name = key()
    with Client(server.port).open(f"/block?seconds=3&key={name}") as client:
        client.send(text("block"))
        begun = time.monotonic()
        pings = 0
        while time.monotonic() - begun < 2.5:
            asked = time.monotonic()
            client.send(frame(FIN | PING, b"?"))
            while (got := client.frame()) != (FIN | PONG, b"?"):
                assert got[0] == FIN | PING
                client.send(frame(FIN | PONG))
                pings += 1
            assert time.monotonic() - asked < 1
            time.sleep(0.1)
        assert pings >= 2, "the core pings while the loop stands still"
        while (got := client.frame()) == (FIN | PING, b""):
            client.send(frame(FIN | PONG))
        assert got == (FIN | TEXT, b"done")


def test_ping_timeout(ws_serve):
    server = ws_serve("--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.3")
    name = key()
    with Client(server.port).open(f"/echo?key={name}") as client:
        assert client.frame() == (FIN | PING, b"")
        assert client.closed() == (1011, b"keepalive ping timeout")
        client.ended()
    server.noted(name, "disconnect 1006")
    assert server.count("websockets.timed_out.ping") == 1


def test_no_pings(ws_serve):
    server = ws_serve("--ws-ping-interval", "off", "--ws-ping-timeout", "off")
    with Client(server.port).open("/echo") as client:
        client.socket.settimeout(0.8)
        with contextlib.suppress(socket.timeout):
            raise AssertionError(client.frame())


def test_a_client_that_takes_little(ws_serve):
    """The kernel takes nothing more for longer than any deadline, and yet nobody is stuck."""
    server = ws_serve(
        *("--timeout-ws-send", "0.8", "--timeout-write", "0.8"),
        *("--ws-ping-interval", "0.8", "--ws-ping-timeout", "0.8"),
        transport="poll",
    )
    with Client(server.port, receive_buffer=65536).open("/flood") as client:
        begun = time.monotonic()
        while time.monotonic() - begun < 4:
            assert client.socket.recv(8192)
            time.sleep(0.02)
    assert until(lambda: server.stats()["websockets"]["open"] == 0)
    assert server.count("websockets.timed_out.send") == server.count("connections.timed_out.write") == 0


def test_a_client_that_takes_nothing(ws_serve):
    """send() waits for it, the memory is bounded, and after --timeout-ws-send it is cut and counted."""
    server = ws_serve("--timeout-ws-send", "1.6", "--timeout-write", "0.3", "--ws-ping-interval", "off")
    name = key()
    before = server.resident()
    with Client(server.port, receive_buffer=4096).open(f"/flood?key={name}") as client:
        begun = time.monotonic()
        server.noted(name, "OSError")
        assert 1.5 < time.monotonic() - begun < 2.8
        assert server.count("websockets.timed_out.send") == 1
        assert server.resident() - before < 30 << 20
        with contextlib.suppress(ConnectionError):
            client.rest()


def test_max_size(ws_serve):
    server = ws_serve("--ws-max-size", "1K")
    with Client(server.port).open("/echo") as client:
        client.send(frame(FIN | TEXT, b"x" * 1024))
        assert client.message() == "x" * 1024
        client.send(frame(TEXT, b"x" * 1024) + frame(FIN, b"y"))
        assert client.closed() == (1009, b"message too large")


def test_max_size_of_what_cannot_be_compressed(ws_serve):
    """Compressing makes random bytes longer; what counts is what they are."""
    server = ws_serve("--ws-max-size", "100000")

    def deflated(n):
        compressor = zlib.compressobj(wbits=-15)
        return (compressor.compress(random.Random(1).randbytes(n)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    with Client(server.port).open("/echo", "Sec-WebSocket-Extensions: permessage-deflate") as client:
        compressed = deflated(100_000)
        assert len(compressed) > 100_000
        whole = frame(FIN | RSV1 | BINARY, compressed)
        parts = frame(RSV1 | BINARY, compressed[:60_000]) + frame(FIN, compressed[60_000:])
        for message in (whole, parts):
            client.send(message)
            first, _ = client.frame()
            assert first & 15 == BINARY
            while not first & FIN:
                first, _ = client.frame()
        client.send(frame(FIN | RSV1 | BINARY, deflated(100_001)))
        assert client.closed() == (1009, b"message too large")


def test_no_compression(ws_serve):
    server = ws_serve("--ws-per-message-deflate", "false")
    with Client(server.port).open("/echo", "Sec-WebSocket-Extensions: permessage-deflate") as client:
        assert "sec-websocket-extensions" not in dict(client.answer)


def test_broadcast_with_clients_that_never_read(ws_serve):
    """Those that do not read delay nobody, and are closed in the end."""
    server = ws_serve("--timeout-ws-send", "1", "--ws-ping-interval", "off")
    server.checked = False
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Client(server.port)).open("/broadcast") for _ in range(60)]
        for _ in range(4):
            stack.enter_context(Client(server.port, receive_buffer=4096)).open("/broadcast")
        message = b"x" * 50_000
        slowest = 0.0
        rounds = 0
        while server.count("websockets.timed_out.send") < 4:
            begun = time.monotonic()
            readers[0].send(frame(FIN | BINARY, message))
            for reader in readers:
                assert reader.message() == message
            slowest = max(slowest, time.monotonic() - begun)
            rounds += 1
            assert rounds < 1500
        assert slowest < 0.9, f"a delivery took {slowest:.2f} s"
        assert server.count("websockets.open") == len(readers)
        assert server.resident() < 200 << 20


def test_drain(ws_serve):
    """SIGTERM: 1012 to the clients and websocket.disconnect to the app, and nobody waits for the grace time."""
    server = ws_serve("--timeout-graceful-shutdown", "20")
    clients = [Client(server.port).open("/echo") for _ in range(5)]
    begun = time.monotonic()
    server.kick()
    for client in clients:
        assert client.closed() == (1012, b"service restart")
        client.send(closing(1012))
        client.ended()
        client.socket.close()
    server.end(None)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("how", ["shutdown", "rolling restart", "recycling"])
def test_the_app_hears_that_its_worker_goes(ws_serve, how):
    options = () if how == "shutdown" else ("--workers", "1")
    server = ws_serve(*options, *(("--limit-max-requests", "2") if how == "recycling" else ()))
    name = key()
    with Client(server.port).open(f"/shouts?key={name}") as client:
        if how == "recycling":
            with Client(server.port).open("/goes") as other:  # the last call that this worker takes
                other.send(closing(1000))
                other.closed()
        else:
            server.kick(signal.SIGTERM if how == "shutdown" else signal.SIGHUP)
        assert client.closed() == (1012, b"service restart")
        client.send(closing(1012))
        client.ended()
    line = server.err.wait(f"{name} heard ")
    assert line.endswith("heard {'type': 'websocket.disconnect', 'code': 1012, 'reason': 'service restart'}")


def test_drain_with_a_client_that_says_nothing(ws_serve):
    server = ws_serve("--timeout-graceful-shutdown", "20")
    with Client(server.port).open("/echo") as client:
        begun = time.monotonic()
        server.kick()
        assert client.closed() == (1012, b"service restart")
        client.ended()
        server.end(None)
        assert time.monotonic() - begun < 12


def worker_pids(server):
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as children:
        return sorted(int(pid) for pid in children.read().split())


def test_death_of_a_worker(ws_serve):
    """The core says 1012 in its place; a reset would look like a broken network."""
    server = ws_serve("--workers", "2")
    clients = [Client(server.port).open("/echo") for _ in range(6)]
    for client in clients:
        client.send(text("there"))
        assert client.message() == "there"
    for pid in worker_pids(server)[:2]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for client in clients:
        assert client.closed() == (1012, b"service restart")
        client.send(closing(1012))
        client.ended()
        client.socket.close()
    assert until(lambda: server.count("websockets.open") == 0)
    # Calls wait for the workers that come instead.
    with Client(server.port).open("/echo") as client:
        client.send(text("again"))
        assert client.message() == "again"
        client.send(closing(1000))
        client.closed()


def test_rolling_restart(ws_serve):
    """SIGHUP: every connection is told to come again, and finds a new worker."""
    server = ws_serve("--workers", "2")
    old = worker_pids(server)
    clients = [Client(server.port).open("/echo") for _ in range(6)]
    server.kick(signal.SIGHUP)
    for client in clients:
        assert client.closed() == (1012, b"service restart")
        client.send(closing(1012))
        client.ended()
        client.socket.close()
    with Client(server.port).open("/echo") as client:
        client.send(text("again"))
        assert client.message() == "again"
        client.send(closing(1000))
        client.closed()
    assert until(lambda: not set(old) & set(worker_pids(server)))
