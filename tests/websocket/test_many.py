"""Many connections: what an idle one costs, and a broadcast in which some never read."""

from __future__ import annotations

import contextlib
import os
import time

import pytest
from ws_client import BINARY, FIN, Client, frame, text

SOAK = os.environ.get("SPVN_SOAK") == "1"


@pytest.fixture
def transport():
    return "poll"


# Bytes of memory for each, the app's task included; fewer connections share what is allocated in large pieces.
@pytest.mark.parametrize(("count", "limit"), [(2000, 8 << 10), pytest.param(10_000, 6 << 10, marks=pytest.mark.soak)])
def test_idle_connections(ws_serve, descriptors, count, limit):
    if descriptors < count + 1000:
        pytest.skip(f"only {descriptors} descriptors: ulimit -n {count + 1000}")
    server = ws_serve()
    server.checked = False  # thousands of them end at once below

    def opened():
        client = stack.enter_context(Client(server.port)).open("/bare")
        client.send(text("x"))
        assert client.message() == "x"
        return client

    with contextlib.ExitStack() as stack:
        for _ in range(300):  # what is allocated once
            opened()
        before = server.resident()
        clients = [opened() for _ in range(count)]
        each = (server.resident() - before) / count
        assert each <= limit, f"an idle connection costs {each:.0f} bytes"
        for client in clients[:: count // 100]:
            client.send(text("still there"))
            assert client.message() == "still there"


@pytest.mark.soak
def test_a_large_broadcast(ws_serve, descriptors):
    """To 1,000 clients, of which ten never read."""
    server = ws_serve("--timeout-ws-send", "2", "--ws-ping-interval", "off")
    server.checked = False
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Client(server.port)).open("/broadcast") for _ in range(990)]
        for _ in range(10):
            stack.enter_context(Client(server.port, receive_buffer=4096)).open("/broadcast")
        message = b"x" * 20_000
        slowest, rounds = 0.0, 0
        while server.count("websockets.timed_out.send") < 10:
            begun = time.monotonic()
            readers[0].send(frame(FIN | BINARY, message))
            for reader in readers:
                assert reader.message() == message
            slowest = max(slowest, time.monotonic() - begun)
            rounds += 1
            assert rounds < 3000
        assert slowest < 1.9, f"a delivery took {slowest:.2f} s"
        assert server.count("websockets.open") == len(readers)
        assert server.resident() < 300 << 20
