"""Server-sent events: a thousand subscribers, an event every 100 ms each.

CPU is for each event; latency is from the app's stamp to the client's read.
"""

from __future__ import annotations

from typing import Any

from .. import load, procfs
from ..context import Context, cost, resident
from ..servers import Server
from ..works import Cell


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    seconds = cell.work.seconds or context.seconds
    with context.serve(server, cell, round_number) as running:
        arguments = ["sse", "-addr", running.address, "-connections", str(cell.size), "-duration", f"{seconds}s"]
        before = procfs.usage(running.root)
        report = load.run(context.load, arguments, limit=seconds + 60, cpus=context.load_cpus)
        after = procfs.usage(running.root)
        errors = dict(report["errors"])
        if report["gaps"]:
            errors["gaps"] = report["gaps"]
        return {
            "calls": report["events"],
            "seconds": report["seconds"],
            "rate": report["events"] / report["seconds"],
            "errors": errors,
            "latency": load.latency(report["late_us"]),
            "busy": report["busy"],
            **cost(before, after, report["events"]),
            **resident(running.root),
        }
