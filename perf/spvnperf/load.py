"""The harness's own client, perf/load: builds it and reads its reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import client
from .errors import RowError


def run(binary: Path, arguments: list[str], *, limit: float, cpus: Sequence[int] | None = None) -> dict[str, Any]:
    """Runs `load ARGUMENTS` and returns its report, with "busy" (share of a core) added."""
    done = client.run([str(binary), *arguments], limit=limit, cpus=cpus)
    report = parse(done.stdout)
    report["busy"] = done.busy
    return report


def parse(output: str) -> dict[str, Any]:
    """The last line of the output is the report."""
    lines = output.strip().splitlines()
    try:
        report = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise RowError(f"load printed no report: {output.strip()[-300:]}") from None
    if not isinstance(report, dict):
        raise RowError(f"load printed {lines[-1][:100]!r}, which is not a report")
    return report


def problems(report: dict[str, Any]) -> dict[str, int]:
    """Everything in an account that is not a 200, by kind."""
    found = dict(report.get("errors") or {})
    found.update({f"status {code}": count for code, count in (report.get("status") or {}).items()})
    if report.get("unsent"):
        found["unsent"] = report["unsent"]
    return found


def latency(quantiles: dict[str, Any]) -> dict[str, float]:
    return {name: float(quantiles[name]) for name in ("mean", "p50", "p90", "p99", "p99.9", "max")}
