"""WebSocket messages: an echo with one or more of them on their way on each connection, or a broadcast.

CPU is for each message that came back, so for a broadcast for each delivery.
"""

from __future__ import annotations

from typing import Any

from .. import load, procfs
from ..context import Context, cost, resident
from ..servers import Server
from ..works import Cell


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    seconds = cell.work.seconds or context.seconds
    options = cell.work.options
    with context.serve(server, cell, round_number) as running:
        arguments = ["websocket", "-addr", running.address, "-connections", str(cell.size), "-duration", f"{seconds}s"]
        arguments += ["-size", str(options.get("size", 64)), "-flight", str(options.get("flight", 1))]
        arguments += ["-broadcast"] if options.get("broadcast") else []
        before = procfs.usage(running.root)
        report = load.run(context.load, arguments, limit=seconds + 60, cpus=context.load_cpus)
        after = procfs.usage(running.root)
        return {
            "calls": report["ok"],
            "seconds": report["seconds"],
            "rate": report["ok"] / report["seconds"],
            "errors": load.problems(report),
            "latency": load.latency(report["call_us"]),
            "busy": report["busy"],
            **cost(before, after, report["ok"]),
            **resident(running.root),
        }
