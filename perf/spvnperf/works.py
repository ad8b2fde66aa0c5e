"""What is measured. A work names an app, the client that asks, and the numbers of connections; a cell is one row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

ALL = (
    *("spvn", "uvicorn", "uvicorn-zttp", "granian", "peregrine", "weft", "h2corn"),
    *("freastal", "fastpysgi", "gunicorn", "hypercorn"),
)
LEADING = ("spvn", "uvicorn", "granian", "peregrine", "weft", "h2corn", "freastal", "fastpysgi")
QUICK = ("spvn", "uvicorn", "granian", "peregrine", "freastal")
FAULTS = ("spvn", "uvicorn", "granian", "peregrine", "gunicorn")
SOCKETS = ("spvn", "uvicorn", "granian", "peregrine", "weft", "h2corn")
CLAIMS = ("spvn", "uvicorn", "hypercorn", "granian", "peregrine")


@dataclass(frozen=True)
class Work:
    """A kind of load.

    kind chooses the module that measures it; app is MODULE:ATTRIBUTE in perf/; sizes are connections (calls a second
    for the kinds "rate" and "fault"); options go to that module. seconds and rounds override the run's where the kind
    needs it.
    """

    name: str
    kind: str
    app: str
    sizes: tuple[int, ...]
    title: str
    servers: tuple[str, ...] = LEADING
    workers: int = 1
    seconds: float | None = None
    rounds: int | None = None
    options: dict[str, object] = field(default_factory=dict)

    def cells(self) -> Iterator[Cell]:
        for size in self.sizes:
            yield Cell(self, size)


@dataclass(frozen=True)
class Cell:
    """One row of the results for each server: a work at one size."""

    work: Work
    size: int

    @property
    def connections(self) -> int:
        """The most connections it opens; for constant rates the size is calls a second."""
        return 4200 if self.work.kind in ("fault", "overload") else 100 if self.work.kind == "rate" else self.size

    @property
    def label(self) -> str:
        unit = {"rate": "/s", "overload": "/s", "startup": ""}.get(self.work.kind, " conn")
        return f"{self.work.name} {self.size}{unit}" if unit else self.work.name


JSON_ITEM = '{"name":"teapot","price":12.5,"tags":["kitchen","steel"],"note":"whistles"}'

WORKS = (
    Work("hello", "wrk", "apps:hello", (1, 64, 512, 5000), "hello, 13 bytes", servers=ALL),
    Work("answer10k", "wrk", "apps:answer10k", (64,), "answer of 10 KB"),
    Work("echo10k", "wrk", "apps:echo", (1, 64, 512), "echo of 10 KB", options={"body": 10240}),
    Work("echo1m", "wrk", "apps:echo", (16,), "echo of 1 MB", options={"body": 1048576}),
    Work("await", "wrk", "apps:sleep10ms", (512,), "10 ms await"),
    Work("stream", "wrk", "apps:stream", (64,), "streamed answer, 20 x 1 KB"),
    Work("sse", "sse", "apps:events", (1000,), "server-sent events, 10/s each", seconds=5, rounds=1),
    Work("fastapi", "wrk", "fastapi_app:app", (64,), "FastAPI hello"),
    Work(
        *("fastapi-json", "wrk", "fastapi_app:app", (64,), "FastAPI JSON body"),
        options={"path": "/items", "text": JSON_ITEM},
    ),
    Work("hello-2", "wrk", "apps:hello", (64, 512), "hello, two workers", workers=2),
    Work("rate", "rate", "apps:echo", (1000, 5000, 10000), "constant rate, 4-byte body", CLAIMS, seconds=10, rounds=1),
    Work(
        *("crowd", "closed", "apps:hello", (100, 1000, 2500, 5000, 7500, 10000), "many clients, patient", CLAIMS),
        seconds=5,
        rounds=1,
    ),
    Work("burst", "burst", "apps:hello", (5000, 10000, 18000), "opened at once, three calls each", rounds=1),
    Work("idle", "idle", "apps:hello", (15000,), "idle keep-alive connections", servers=ALL, rounds=1),
    Work("ws", "websocket", "apps:websocket_echo", (1, 64, 512), "WebSocket echo of 64 bytes", SOCKETS),
    Work(
        *("ws-16", "websocket", "apps:websocket_echo", (64,), "WebSocket echo of 64 bytes, 16 in flight", SOCKETS),
        options={"flight": 16},
    ),
    Work(
        *("ws-16k", "websocket", "apps:websocket_echo", (64,), "WebSocket echo of 16 KB", SOCKETS),
        options={"size": 16384},
    ),
    Work(
        *("ws-broadcast", "websocket", "apps:websocket_broadcast", (1000,), "WebSocket broadcast of 64 bytes", SOCKETS),
        options={"broadcast": True},
    ),
    Work("startup", "startup", "apps:hello", (1,), "start-up to the first answer", servers=ALL, rounds=3),
    *(
        Work(
            name,
            "fault",
            "apps:faults",
            (size,),
            title,
            FAULTS,
            workers=2,
            seconds=8,
            rounds=1,
            options={"fault": name},
        )
        for name, size, title in (
            ("kill", 1500, "kill -9 of a worker at 1,500 calls/s"),
            ("restart", 1500, "rolling restart at 1,500 calls/s"),
            ("stall", 1500, "one loop blocked for 2 s, three times, at 1,500 calls/s"),
        )
    ),
    *(
        Work(
            *(f"overload-{when}", "overload", "apps:faults", (150, 400, 800, 2000)),
            f"5 ms {when} the first await: 0.75x, 2x, 4x, 10x of 200 calls/s",
            FAULTS,
            seconds=10,
            rounds=1,
            options={"path": path},
        )
        for when, path in (("before", "/burn"), ("behind", "/late"))
    ),
)

# What --check runs: every server once.
STARTS = Work("startup", "startup", "apps:hello", (1,), "start-up to the first answer", servers=ALL, rounds=1)

BY_NAME = {work.name: work for work in WORKS}


def quick() -> list[Work]:
    """The five-minute run: raw hello and 10 KB echo."""
    chosen = replace(BY_NAME["hello"], sizes=(1, 64, 512), servers=QUICK), replace(BY_NAME["echo10k"], servers=QUICK)
    return list(chosen)
