"""Many patient clients: each connection asks again when it was answered, and every call is accounted for."""

from __future__ import annotations

from typing import Any

from .. import load, procfs
from ..context import Context, cost, resident
from ..servers import Server
from ..works import Cell


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    seconds = cell.work.seconds or context.seconds
    with context.serve(server, cell, round_number) as running:
        arguments = ["closed", "-addr", running.address, "-connections", str(cell.size), "-duration", f"{seconds}s"]
        before = procfs.usage(running.root)
        report = load.run(context.load, arguments, limit=seconds + 90, cpus=context.load_cpus)
        after = procfs.usage(running.root)
        return {**account(report), **cost(before, after, report["call_us"]["count"]), **resident(running.root)}


def account(report: dict[str, Any]) -> dict[str, Any]:
    """The row of a report of `load closed`."""
    return {
        "calls": report["call_us"]["count"],
        "planned": report["planned"],
        "seconds": report["seconds"],
        "rate": report["ok"] / report["seconds"],
        "errors": load.problems(report),
        "latency": load.latency(report["call_us"]),
        "connect": load.latency(report["connect_us"]),
        "first": load.latency(report["first_us"]),
        "busy": report["busy"],
    }
