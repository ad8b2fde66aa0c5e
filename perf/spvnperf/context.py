"""What a measurement needs to know of the run it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import procfs
from .process import Running, serving
from .servers import Server
from .works import Cell


@dataclass(frozen=True)
class Context:
    """bin is the environment's; scratch holds logs and scripts; cpus are None where nothing is pinned."""

    bin: Path
    load: Path
    scratch: Path
    seconds: float
    warmup: float
    backlog: int
    wrk_threads: int
    server_cpus: Sequence[int] | None = None
    load_cpus: Sequence[int] | None = None

    def serve(self, server: Server, cell: Cell, round_number: int) -> AbstractContextManager[Running]:
        log = self.scratch / "logs" / f"{server.name}-{cell.work.name}-{cell.size}-{round_number}.log"
        return serving(
            server,
            cell.work.app,
            bin=self.bin,
            workers=cell.work.workers,
            backlog=self.backlog,
            log=log,
            cpus=self.server_cpus,
        )


def cost(before: procfs.Usage, after: procfs.Usage, calls: int) -> dict[str, Any]:
    """The CPU of the tree between two snapshots, in microseconds a call, with its busiest threads."""
    used = after - before
    if calls <= 0:
        return {"cpu_us": None, "user_us": None, "system_us": None, "threads": []}
    threads: list[dict[str, Any]] = [
        {"comm": key.comm, "pid": key.pid, "tid": key.tid, "main": key.pid == key.tid, "us": seconds * 1e6 / calls}
        for key, seconds in used.threads.items()
        if seconds > 0
    ]
    threads.sort(key=lambda thread: -thread["us"])
    return {
        "cpu_us": used.total * 1e6 / calls,
        "user_us": used.user * 1e6 / calls,
        "system_us": used.system * 1e6 / calls,
        "threads": threads[:8],
    }


def resident(root: int) -> dict[str, int]:
    now = procfs.memory(root)
    return {"rss": now.rss, "pss": now.pss}
