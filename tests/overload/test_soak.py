"""Everything of this folder at once, with workers killed meanwhile: afterwards nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest
from support.wire import until

from .clients import Crowd, closed_loop, open_loop

SECONDS = 180


async def dripping(address, path, head, pause, until_time):
    """A client that sends or reads a little from time to time."""
    while time.monotonic() < until_time:
        try:
            reader, writer = await asyncio.open_connection(*address)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.write(head % path.encode())
            for _ in range(40):
                await asyncio.sleep(pause)
                writer.write(b"x")
                await writer.drain()
            writer.close()
        except OSError:
            await asyncio.sleep(pause)


async def killing(server, until_time):
    """Kills a worker every few seconds."""
    while time.monotonic() < until_time:
        await asyncio.sleep(7)
        workers = [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]
        if workers:
            os.kill(random.choice(workers), signal.SIGKILL)


async def everything(server, seconds):
    end = time.monotonic() + seconds
    crowd = Crowd()
    slow_head = b"GET %s HTTP/1.1\r\nHost: a\r\nX: "
    slow_body = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    slow_reader = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
    await asyncio.gather(
        open_loop(server.address, "/early", 150, seconds, 1, crowd),
        open_loop(server.address, "/late", 300, seconds, 1, crowd),
        open_loop(server.address, "/health", 20, seconds, 10, crowd),
        closed_loop(server.address, "/sleep", 100, seconds, Crowd()),
        killing(server, end),
        *(dripping(server.address, "/", slow_head, 0.7, end) for _ in range(50)),
        *(dripping(server.address, "/sleep", slow_body, 0.7, end) for _ in range(50)),
        *(dripping(server.address, "/big", slow_reader, 0.7, end) for _ in range(50)),
        *(dripping(server.address, "/", b"%.0s", 1, end) for _ in range(50)),
    )
    return crowd


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_three_minutes_of_everything(start):
    server = start("--workers", "2", "--timeout-header", "5", "--min-body-rate", "10", "--timeout-request", "20")
    assert asyncio.run(everything(server, 10)).ok  # what is allocated once is there from now on
    until(lambda: server.count("connections.open") == 0, 40)
    memory, files = server.resident(), len(os.listdir(f"/proc/{server.pid}/fd"))
    crowd = asyncio.run(everything(server, SECONDS))
    assert crowd.ok > 100 * SECONDS
    until(lambda: server.count("connections.open") == 0 and server.count("calls.held") == 0, 40)
    assert server.count("memory.bodies") == server.count("memory.output") == 0
    assert server.resident() < memory + (64 << 20)
    assert len(os.listdir(f"/proc/{server.pid}/fd")) <= files + 8
