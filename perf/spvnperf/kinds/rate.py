"""Constant rate, an open loop: calls are sent on a schedule, however slow the answers are; each is accounted for."""

from __future__ import annotations

from typing import Any

from .. import load, procfs
from ..context import Context, cost, resident
from ..servers import Server
from ..works import Cell

CONNECTIONS = 100


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    seconds = cell.work.seconds or context.seconds
    with context.serve(server, cell, round_number) as running:
        common = ["rate", "-url", f"http://{running.address}/", "-connections", str(CONNECTIONS)]

        def ask(rate: int, length: float) -> dict[str, Any]:
            arguments = [*common, "-rate", str(rate), "-duration", f"{length}s"]
            return load.run(context.load, arguments, limit=length + 60, cpus=context.load_cpus)

        ask(min(cell.size, 1000), context.warmup)
        before = procfs.usage(running.root)
        report = ask(cell.size, seconds)
        after = procfs.usage(running.root)
        calls = report["call_us"]["count"]
        return {
            "calls": calls,
            "planned": report["planned"],
            "seconds": report["seconds"],
            "rate": report["ok"] / report["seconds"],
            "errors": load.problems(report),
            "latency": load.latency(report["call_us"]),
            "late": load.latency(report["late_us"]),
            "series": report["series"],
            "busy": report["busy"],
            **cost(before, after, calls),
            **resident(running.root),
        }
