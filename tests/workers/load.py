"""A client that counts everything: keep-alive connections that send calls at a steady rate.

Nothing is repeated and nothing is hidden: a connection that the server closes is opened
again and counted, an answer that is cut is counted, and so is a call that was never
answered.
"""

from __future__ import annotations

import asyncio
import collections
from typing import Callable


class Load:
    """Calls on some connections. `statuses`, `closed`, `reset`, `cut` and `latencies` are what came of it."""

    def __init__(
        self,
        port: int,
        *,
        connections: int = 100,
        rate: float = 1500.0,
        request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ) -> None:
        self.statuses: collections.Counter[int] = collections.Counter()
        self.bodies: collections.Counter[bytes] = collections.Counter()
        self.sent = 0
        self.closed = 0
        """Connections that the server closed, or said it would (`Connection: close`)."""
        self.reset = 0
        self.cut = 0
        """Answers that began and did not end."""
        self.latencies: list[float] = []
        """Seconds, in the order of the answers."""
        self._port, self._connections, self._request = port, connections, request
        self._interval = connections / rate
        self._stopping = False

    @property
    def answered(self) -> int:
        """How many answers came whole."""
        return sum(self.statuses.values())

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Send until stop() is called or `until` says so; then wait for what is on its way."""
        tasks = [asyncio.create_task(self._connection(number)) for number in range(self._connections)]
        while not self._stopping and not until():
            await asyncio.sleep(0.02)
        self._stopping = True
        await asyncio.gather(*tasks)

    def stop(self) -> None:
        """Send no more."""
        self._stopping = True

    def assert_nothing_lost(self) -> None:
        """Assert that each call was answered, with 200, and that no connection was lost."""
        lost = {"statuses": dict(self.statuses), "closed": self.closed, "reset": self.reset, "cut": self.cut}
        assert lost == {"statuses": {200: self.sent}, "closed": 0, "reset": 0, "cut": 0}
        assert self.sent > 0

    def quantile(self, share: float) -> float:
        """The latency that this share of the answers was within, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    async def _connection(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        stream: _Stream | None = None
        due = loop.time() + self._interval * number / self._connections
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + self._interval, loop.time())
            if self._stopping:
                break
            if stream is None:
                _, stream = await loop.create_connection(_Stream, "127.0.0.1", self._port)
            began = loop.time()
            self.sent += 1
            status, body = await stream.call(self._request)
            if status:
                self.statuses[status] += 1
                self.bodies[body] += 1
                self.latencies.append(loop.time() - began)
            if stream.closing or stream.lost:
                self.closed += 1
                self.reset += stream.was_reset
                self.cut += stream.began and not status
                stream.close()
                stream = None
        if stream is not None:
            stream.close()


class _Stream(asyncio.Protocol):
    """One connection; answers have to have a Content-Length."""

    def __init__(self) -> None:
        self.lost = False
        self.was_reset = False
        self.closing = False
        self.began = False
        self._buffer = b""
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self.began = True
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self.closing = b"connection: close" in lines
        self._tell(int(lines[0].split()[1]), rest[:length])

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self.was_reset = True, exc is not None
        self._tell(0, b"")

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """The status and body of the answer; 0 where the connection ended before it was whole."""
        if self.lost:
            return 0, b""
        self.began = False
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return await self._waiter

    def close(self) -> None:
        self._transport.close()

    def _tell(self, status: int, body: bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result((status, body))
