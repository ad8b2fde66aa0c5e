"""Clients in crowds, in this process: an open loop whose clients give up, a closed loop of patient ones."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time


class Crowd:
    """What became of the calls: times of the answers by status, and how many gave up."""

    def __init__(self) -> None:
        self.times: dict[int, list[float]] = {}
        self.gave_up = 0
        self.failed: list[str] = []

    @property
    def ok(self) -> int:
        return len(self.times.get(200, ()))

    @property
    def median(self) -> float:
        return statistics.median(self.times[200])


async def call(address, path, patience, crowd):
    """One call on a connection of its own; the client closes it when its patience ends."""
    begun = time.perf_counter()
    try:
        status = await asyncio.wait_for(once(address, path), patience)
        crowd.times.setdefault(status, []).append(time.perf_counter() - begun)
    except asyncio.TimeoutError:
        crowd.gave_up += 1
    except (OSError, ValueError) as exc:
        crowd.failed.append(repr(exc))


async def once(address, path):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        return int((await reader.read())[9:12])
    finally:
        writer.close()


async def open_loop(address, path, rate, seconds, patience, crowd):
    """Calls at a constant rate, however slow the answers are."""
    calls = []
    begun = time.perf_counter()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(0, begun + n / rate - time.perf_counter()))
        calls.append(asyncio.create_task(call(address, path, patience, crowd)))
    await asyncio.gather(*calls)


async def closed_loop(address, path, clients, seconds, crowd, rounds=1):
    """Patient clients on a keep-alive connection each, who ask so often at least, and again when they are answered."""
    end = time.perf_counter() + seconds

    async def client():
        reader, writer = await asyncio.open_connection(*address)
        try:
            for n in itertools.count(1):
                begun = time.perf_counter()
                writer.write(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                crowd.times.setdefault(int(head[9:12]), []).append(time.perf_counter() - begun)
                if n >= rounds and time.perf_counter() >= end:  # connecting alone may have taken that long
                    break
        except (OSError, asyncio.IncompleteReadError) as exc:
            crowd.failed.append(repr(exc))
        finally:
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
