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

    def seconds(self, default: float) -> float:
        """How long it is measured; twice as long with thousands of connections, whose opening is part of it."""
        whole = self.work.seconds or default
        return 2 * whole if self.work.kind == "wrk" and self.size >= MANY else whole

    @property
    def label(self) -> str:
        unit = {"rate": "/s", "overload": "/s", "startup": ""}.get(self.work.kind, " conn")
        return f"{self.work.name} {self.size}{unit}" if unit else self.work.name


MANY = 5000

JSON_ITEM = '{"name":"teapot","price":12.5,"tags":["kitchen","steel"],"note":"whistles"}'

WORKS = (
    # The ones that goals are set for come first: a run that is interrupted has them.
    Work("hello", "wrk", "apps:hello", (1, 64, 512, 5000, 10000), "hello, 13 bytes", (*LEADING, "hypercorn")),
    Work("echo10k", "wrk", "apps:echo", (1, 64, 512), "echo of 10 KB", options={"body": 10240}),
    Work("await", "wrk", "apps:sleep10ms", (512,), "10 ms await"),
    Work("fastapi", "wrk", "fastapi_app:app", (64,), "FastAPI hello"),
    Work("startup", "startup", "apps:hello", (1,), "start-up to the first answer", servers=ALL, rounds=3),
    Work("idle", "idle", "apps:hello", (15000,), "idle keep-alive connections", servers=ALL, rounds=1),
    Work("rate", "rate", "apps:echo", (1000, 5000, 10000), "constant rate, 4-byte body", CLAIMS, seconds=8, rounds=1),
    Work(
        *("crowd", "closed", "apps:hello", (100, 1000, 2500, 5000, 7500, 10000), "many clients, patient", CLAIMS),
        seconds=5,
        rounds=1,
    ),
    Work("burst", "burst", "apps:hello", (5000, 10000, 18000), "opened at once, three calls each", rounds=1),
    Work("answer10k", "wrk", "apps:answer10k", (64,), "answer of 10 KB", rounds=2),
    Work("echo1m", "wrk", "apps:echo", (16,), "echo of 1 MB", rounds=2, options={"body": 1048576}),
    Work("stream", "wrk", "apps:stream", (64,), "streamed answer, 20 x 1 KB", rounds=2),
    Work("sse", "sse", "apps:events", (1000,), "server-sent events, 10/s each", seconds=5, rounds=1),
    Work(
        *("fastapi-json", "wrk", "fastapi_app:app", (64,), "FastAPI JSON body"),
        rounds=2,
        options={"path": "/items", "text": JSON_ITEM},
    ),
    Work("hello-2", "wrk", "apps:hello", (64, 512), "hello, two workers", QUICK, workers=2),
    Work("ws", "websocket", "apps:websocket_echo", (1, 64, 512), "WebSocket echo of 64 bytes", SOCKETS),
    Work(
        *("ws-16", "websocket", "apps:websocket_echo", (64,), "WebSocket echo of 64 bytes, 16 in flight", SOCKETS),
        rounds=2,
        options={"flight": 16},
    ),
    Work(
        *("ws-16k", "websocket", "apps:websocket_echo", (64,), "WebSocket echo of 16 KB", SOCKETS),
        rounds=2,
        options={"size": 16384},
    ),
    Work(
        *("ws-broadcast", "websocket", "apps:websocket_broadcast", (1000,), "WebSocket broadcast of 64 bytes", SOCKETS),
        rounds=2,
        options={"broadcast": True},
    ),
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
            seconds=8,
            rounds=1,
            options={"path": path},
        )
        for when, path in (("before", "/burn"), ("behind", "/late"))
    ),
    Work(
        *("overload-later", "overload", "apps:faults", (400, 800), "5 ms 100 ms after the claim: 2x, 4x", FAULTS),
        seconds=8,
        rounds=1,
        options={"path": "/later"},
    ),
    Work(
        *("overload-mixed", "overload", "apps:faults", (400, 800), "5 ms at once or after 100 ms: 2x, 4x", FAULTS),
        seconds=8,
        rounds=1,
        options={"path": "/mixed"},
    ),
    *(
        Work(
            *(f"overload-{workers}", "overload", "apps:faults", (400 * workers,)),
            f"5 ms behind the first await, {workers} workers: 2x of what they can do on a core each",
            FAULTS,
            workers=workers,
            seconds=8,
            rounds=1,
            options={"path": "/late"},
        )
        for workers in (2, 4)
    ),
)

# What --check runs: every server once.
STARTS = Work("startup", "startup", "apps:hello", (1,), "start-up to the first answer", servers=ALL, rounds=1)

BY_NAME = {work.name: work for work in WORKS}


def full() -> list[Work]:
    """All of them, but of overload only a part: the whole of that has a run of its own (make perf-overload)."""
    return [
        replace(work, sizes=(400, 2000), servers=FAULTS[:3]) if work.name == "overload-before" else work
        for work in WORKS
        if work.kind != "overload" or work.name == "overload-before"
    ]


def quick() -> list[Work]:
    """The five-minute run: raw hello and 10 KB echo."""
    chosen = replace(BY_NAME["hello"], sizes=(1, 64, 512), servers=QUICK), replace(BY_NAME["echo10k"], servers=QUICK)
    return list(chosen)
