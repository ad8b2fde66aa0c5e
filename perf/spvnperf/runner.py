"""The order of a run: for each cell, rounds; in each round every server once, starting with another one each time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .context import Context
from .errors import RowError, Skipped
from .kinds import KINDS
from .servers import BY_NAME, Server
from .works import Cell, Work

# Seconds a row takes beside its measurement: start, warm-up, stop. Only for the estimate that is printed.
OVERHEAD = 1.3
KIND_SECONDS = {"burst": 6.0, "idle": 14.0, "startup": 0.5, "fault": 9.0, "overload": 14.0}


def plan(works: Iterable[Work], rounds: int, chosen: set[str]) -> Iterator[tuple[Cell, int, Server]]:
    """Every row of the run, in order."""
    for work in works:
        servers = [BY_NAME[name] for name in work.servers if name in chosen]
        for cell in work.cells():
            for round_number in range(work.rounds or rounds):
                turn = round_number % max(len(servers), 1)
                for server in servers[turn:] + servers[:turn]:
                    yield cell, round_number, server


def estimate(rows: Iterable[tuple[Cell, int, Server]], seconds: float) -> float:
    """About how many seconds the rows take."""
    return sum(OVERHEAD + KIND_SECONDS.get(cell.work.kind, cell.work.seconds or seconds) for cell, _, _ in rows)


def run(context: Context, rows: list[tuple[Cell, int, Server]], results: dict[str, Any], output: Path) -> None:
    """Measures the rows into results["rows"], and saves after each: an interrupted run keeps what it has."""
    for number, (cell, round_number, server) in enumerate(rows, 1):
        row: dict[str, Any] = {
            "work": cell.work.name,
            "title": cell.work.title,
            "kind": cell.work.kind,
            "size": cell.size,
            "workers": cell.work.workers,
            "server": server.name,
            "round": round_number,
        }
        try:
            row.update(KINDS[cell.work.kind](context, server, cell, round_number))
        except Skipped as reason:
            row["skipped"] = str(reason)
        except RowError as error:
            row["failed"] = str(error)
        results["rows"].append(row)
        results["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        save(results, output)
        print(f"[{number}/{len(rows)}] {cell.label:<18} {server.name:<13} {brief(row)}", file=sys.stderr, flush=True)


def save(results: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".json.new")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.replace(output)


def brief(row: dict[str, Any]) -> str:
    """One line on a row, for whoever watches."""
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    if "failed" in row:
        return f"FAILED: {row['failed']}"
    parts = []
    if row.get("rate"):
        parts.append(f"{row['rate']:>9,.0f}/s")
    if row.get("cpu_us"):
        parts.append(f"{row['cpu_us']:>7.2f} us CPU")
    if row.get("latency"):
        parts.append(f"p50 {row['latency']['p50']:,.0f} us  p99 {row['latency']['p99']:,.0f} us")
    if "lost" in row:
        parts.append(f"lost {row['lost']}")
    if "goodput" in row:
        light = row["light"]["latency"]
        parts.append(f"goodput {row['goodput']:.0%}  light p50 {light['p50']:,.0f} us")
        parts.append(f"recovery {row['recovery_ms']:.0f} ms")
    if "bytes_per_connection" in row:
        parts.append(f"{row['bytes_per_connection']:,.0f} bytes a connection")
    if "ready_ms" in row:
        parts.append(f"ready in {row['ready_ms']:.0f} ms")
    if row.get("errors"):
        parts.append(f"ERRORS {row['errors']}")
    return "  ".join(parts)
