"""Everything at once for a while: bodies both ways, large answers, clients that leave. Nothing is lost or mixed up."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

import pytest
from support.wire import until

from .live import OK, connect, serving

SECONDS = 20.0 if os.environ.get("SPVN_SOAK") else 1.0
LARGE = b"z" * 2_000_000


def app(environ: Any, start_response: Any) -> Any:
    start_response(OK, [])
    if environ["PATH_INFO"] == "/echo":
        return iter(lambda: environ["wsgi.input"].read(random.choice([100, 5_000, 70_000])), b"")
    if environ["PATH_INFO"] == "/burn":
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        return iter([b"bur", b"nt"])
    return [LARGE]


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 9_999] for at in range(0, len(body), 9_999)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class Client(threading.Thread):
    """Asks one thing after the other over one connection."""

    def __init__(self, server: Any, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.random = server, random.Random(seed)
        self.wrong: list[str] = []
        self.done = 0

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        with connect(self.server) as wire:
            while time.monotonic() < end:
                kind = self.random.choice(["echo", "chunks", "burn", "large", "leave"])
                try:
                    getattr(self, kind)(wire)
                    self.done += 1
                except Exception as exc:
                    self.wrong.append(f"{kind}: {exc!r}")
                    return

    def leave(self, _: Any) -> None:
        with connect(self.server) as wire:
            wire.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
            wire.send(b"x" * self.random.choice([0, 10, 60_000]))
            if self.random.random() < 0.5:
                wire.reset()

    def body(self) -> bytes:
        return os.urandom(self.random.choice([0, 10, 20_000, 60_000]))

    def echo(self, wire: Any) -> None:
        body = self.body()
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert wire.send(head + body).answer().body == body

    def chunks(self, wire: Any) -> None:
        body = self.body()
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert wire.send(head + chunked(body)).answer().body == body

    def burn(self, wire: Any) -> None:
        assert wire.get("/burn").answer().body == b"burnt"

    def large(self, wire: Any) -> None:
        assert wire.get("/large").answer().body == LARGE


@pytest.mark.parametrize(("threads", "loops"), [(1, 1), (4, 1), (8, 2)])
def test_everything_at_once(threads: int, loops: int, caplog: pytest.LogCaptureFixture) -> None:
    with serving(app, valid=False, threads=threads, io_threads=loops) as server:
        clients = [Client(server, seed) for seed in range(16)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert not [wrong for client in clients for wrong in client.wrong]
        assert all(client.done for client in clients)
        assert until(lambda: server.stats()["calls"]["held"] == 0)
        calls = server.stats()["calls"]
        assert calls["failed"] == calls["refused"] == calls["in_flight"] == 0
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
