"""A closed loop of wrk: calls/s, CPU per call, latency."""

from __future__ import annotations

from typing import Any

from .. import load, procfs, wrk
from ..context import Context, cost, resident
from ..errors import RowError
from ..process import Running
from ..servers import Server
from ..works import Cell


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    options = cell.work.options
    context.scratch.mkdir(parents=True, exist_ok=True)
    lua = context.scratch / f"{cell.work.name}.lua"
    lua.write_text(wrk.script(body=int(str(options.get("body", 0))), text=str(options.get("text", ""))))
    with context.serve(server, cell, round_number) as running:
        url = f"http://{running.address}{options.get('path', '/')}"

        warm_up(context, running, cell)
        before = procfs.usage(running.root)
        result = wrk.run(
            url,
            connections=cell.size,
            seconds=cell.seconds(context.seconds),
            lua=lua,
            threads=context.wrk_threads,
            cpus=context.load_cpus,
        )
        after = procfs.usage(running.root)
        if not result.calls:
            raise RowError(f"no call was answered: {result.errors}")
        return {
            "calls": result.calls,
            "seconds": result.seconds,
            "rate": result.calls / result.seconds,
            "errors": result.errors,
            "latency": result.latency,
            "busy": result.busy,
            **cost(before, after, result.calls),
            **resident(running.root),
        }


def warm_up(context: Context, running: Running, cell: Cell) -> None:
    """The same calls for a moment, by the client that takes fractions of a second."""
    options = cell.work.options
    arguments = ["closed", "-addr", running.address, "-path", str(options.get("path", "/"))]
    arguments += ["-connections", str(min(cell.size, 64)), "-duration", f"{context.warmup}s"]
    if "body" in options or "text" in options:
        arguments += ["-method", "POST", "-body", str(options.get("body", 0)), "-text", str(options.get("text", ""))]
    load.run(context.load, arguments, limit=context.warmup + 90, cpus=context.load_cpus)
