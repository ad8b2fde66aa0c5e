"""Slow clients cost the core memory, within its budget; what one address may do is bounded where that is asked for."""

from __future__ import annotations

import time

from support.wire import until


def test_connections_of_one_address(start):
    server = start("--limit-connections-per-address", "3")
    # The control socket is a unix socket, and not counted.
    wires = [server.wire() for _ in range(3)]
    for wire in wires:
        assert wire.get("/").answer().status == 200
    with server.wire() as refused:
        refused.ended()
    wires[0].close()
    until(lambda: server.count("connections.open") < 3)
    assert server.get("/").status == 200
    assert server.count("connections.over_limit_per_address") == 1
    for wire in wires:
        wire.close()


def test_new_connections_of_one_address(start):
    server = start("--limit-connection-rate", "5")
    wires = [server.wire() for _ in range(8)]
    until(lambda: server.count("connections.accepted") + server.count("connections.over_rate") == 8)
    assert server.count("connections.accepted") in (5, 6)
    for wire in wires:
        wire.close()


def test_requests_on_one_connection(start):
    server = start("--limit-connection-requests", "2")
    with server.wire() as wire:
        assert wire.get("/").answer().field("connection") is None
        assert wire.get("/").answer().field("connection") == "close"
        wire.ended()


def test_a_body_that_drips(start):
    server = start("--min-body-rate", "1000")
    with server.wire() as wire:
        wire.send(b"POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        begun = time.monotonic()
        while time.monotonic() - begun < 4 and wire.quiet(0.3):
            wire.send(b"x")
        assert wire.answer().status == 408
        assert 1.5 < time.monotonic() - begun < 3.5
    server.kill()  # the call would go on for half a minute


def test_uploads_that_nobody_receives(start):
    server = start("--limit-buffered-bodies", "1M")
    wires = [server.wire() for _ in range(200)]
    for wire in wires:
        wire.send(b"POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
        wire.socket.setblocking(False)
    for _ in range(10):
        for wire in wires:
            try:
                wire.socket.send(b"x" * 20000)
            except BlockingIOError:
                pass
    until(lambda: server.count("connections.reads_paused") == 200)
    held = server.count("memory.bodies")
    # What the first ones sent before the budget was overdrawn, and a little of each.
    assert held < (1 << 20) + 65536 + 200 * 8192, held
    assert server.count("memory.reads_paused") > 0
    server.kill()  # the calls would go on for half a minute
    for wire in wires:
        wire.close()


def test_clients_who_read_slowly(start):
    server = start("--limit-buffered-output", "4M")
    wires = [server.wire(receive_buffer=4096) for _ in range(40)]
    for wire in wires:
        wire.get("/big")
    until(lambda: server.count("memory.output") > 4 << 20)
    until(lambda: server.count("calls.answering") == 40)
    assert server.count("memory.output") < 16 << 20
    with server.wire() as quick:  # whoever keeps up is not held back
        begun = time.monotonic()
        assert len(quick.get("/big").answer().body) == 10_000_000
        assert time.monotonic() - begun < 5
    for wire in wires:
        wire.close()
    until(lambda: server.count("memory.output") == 0)
