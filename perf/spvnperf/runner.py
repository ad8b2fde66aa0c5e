"""The order of a run: for each cell, rounds; in each round every server once, starting with another one each time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .context import Context
from .errors import RowError, Skipped
from .kinds import KINDS
from .servers import BY_NAME, Server
from .works import WORKS, Cell, Work

# Seconds a row takes beside its measurement: start, warm-up, stop. Only for the estimate that is printed.
OVERHEAD = 0.9
KIND_SECONDS = {"burst": 2.5, "idle": 10.0, "startup": 0.5, "fault": 9.0, "overload": 14.0}


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
    return sum(OVERHEAD + KIND_SECONDS.get(cell.work.kind, cell.seconds(seconds)) for cell, _, _ in rows)


def run(
    context: Context,
    rows: list[tuple[Cell, int, Server]],
    results: dict[str, Any],
    keep: Callable[[bool], object],
) -> None:
    """Measures the rows into results["rows"], and has them kept after each: an interrupted run loses nothing.

    keep is told whether a work has ended, which is when the report is written too.
    """
    for number, (cell, round_number, server) in enumerate(rows, 1):
        row = measure(context, cell, round_number, server)
        row["run"] = results["started"]
        results["rows"].append(row)
        results["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        keep(number == len(rows) or rows[number][0].work != cell.work)
        line = f"{cell.label:<18} {server.name:<13} {row['took']:>4.1f} s  {brief(row)}"
        print(f"[{number}/{len(rows)}] {line}", file=sys.stderr, flush=True)


def measure(context: Context, cell: Cell, round_number: int, server: Server) -> dict[str, Any]:
    """One row. Whatever goes wrong with it is its own matter: it says so, and the run goes on."""
    row: dict[str, Any] = {
        "work": cell.work.name,
        "title": cell.work.title,
        "kind": cell.work.kind,
        "size": cell.size,
        "workers": cell.work.workers,
        "server": server.name,
        "round": round_number,
    }
    started = time.monotonic()
    try:
        row.update(KINDS[cell.work.kind](context, server, cell, round_number))
    except Skipped as reason:
        row["skipped"] = str(reason)
    except RowError as error:
        row["failed"] = str(error)
    except Exception as error:  # a server that dies at the wrong moment breaks what nobody thought of
        row["failed"] = f"{type(error).__name__}: {error}".strip()
    row["took"] = round(time.monotonic() - started, 2)
    return row


def merge(earlier: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Earlier results with what was measured again in its place: for each work, size and server either old or new.

    Machine and settings stay those of the earlier run; "runs" has what is another one's.
    """

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["work"], row["size"], row["server"]

    again = {key(row) for row in results["rows"]}
    order = {work.name: number for number, work in enumerate(WORKS)}
    kept = [row for row in earlier["rows"] if key(row) not in again]
    merged = {**earlier, "finished": results.get("finished", earlier.get("finished"))}
    merged["rows"] = sorted(kept + results["rows"], key=lambda row: (order.get(row["work"], len(order)), row["size"]))
    for name in ("versions", "commands"):
        merged[name] = {**earlier[name], **results[name]}
    merged["runs"] = {**earlier["runs"], **results["runs"]}
    used = {row["run"] for row in merged["rows"]}
    merged["runs"] = {name: run for name, run in merged["runs"].items() if name in used}
    return merged


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
        return f"FAILED: {row['failed'].splitlines()[0][:160]}"
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
