"""Thousands of connections opened at once, three calls on each: how many calls are lost, and how long the others take.

The row's latency is the call's alone; "connect" and "first" (from dialling to the first answer) are beside it.
"""

from __future__ import annotations

from typing import Any

from .. import load, procfs
from ..context import Context, cost, resident
from ..servers import Server
from ..works import Cell
from .closed import account

CALLS = 3


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    with context.serve(server, cell, round_number) as running:
        common = ["closed", "-addr", running.address, "-calls", str(CALLS)]
        load.run(context.load, [*common, "-connections", "64"], limit=60, cpus=context.load_cpus)
        before = procfs.usage(running.root)
        arguments = [*common, "-connections", str(cell.size)]
        report = load.run(context.load, arguments, limit=150, cpus=context.load_cpus)
        after = procfs.usage(running.root)
        return {**account(report), **cost(before, after, report["call_us"]["count"]), **resident(running.root)}
