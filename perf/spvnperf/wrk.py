"""wrk, a closed loop: each connection asks again as soon as it was answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import client
from .errors import RowError

TIMEOUT = 10
MARK = "SPVNPERF "

DONE = (
    """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{mark}{{"calls":%d,"microseconds":%d,"bytes":%d,'
    .. '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,'
    .. '"p50":%d,"p90":%d,"p99":%d,"p99.9":%d,"max":%d,"mean":%.1f}}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
    latency.max, latency.mean))
end
""".replace("{mark}", MARK)
    .replace("{{", "{")
    .replace("}}", "}")
)


@dataclass(frozen=True)
class Result:
    """calls are answers that came whole; errors are by kind, only those that happened; latency in microseconds."""

    calls: int
    seconds: float
    errors: dict[str, int]
    latency: dict[str, float]
    busy: float


def script(*, body: int = 0, text: str = "") -> str:
    """The Lua script of a run. A body makes it a POST; it is set once, so that no Lua runs per call."""
    lines = []
    if body or text:
        value = f'string.rep("x", {body})' if body else f"[=[{text}]=]"
        content_type = "application/octet-stream" if body else "application/json"
        lines = ['wrk.method = "POST"', f"wrk.body = {value}", f'wrk.headers["Content-Type"] = "{content_type}"']
    return "\n".join(lines) + DONE


def parse(output: str) -> tuple[int, float, dict[str, int], dict[str, float]]:
    """Reads what DONE printed: calls, seconds, errors, latency."""
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise RowError(f"wrk printed no summary: {output.strip()[-300:]}")
    values = json.loads(line[len(MARK) :])
    errors = {kind: values[kind] for kind in ("connect", "read", "write", "status", "timeout") if values[kind]}
    latency = {name: float(values[name]) for name in ("mean", "p50", "p90", "p99", "p99.9", "max")}
    return values["calls"], values["microseconds"] / 1e6, errors, latency


def run(
    url: str,
    *,
    connections: int,
    seconds: float,
    lua: Path,
    threads: int = 1,
    cpus: Sequence[int] | None = None,
) -> Result:
    """One measurement. wrk takes whole seconds only; fractions are rounded up."""
    whole = max(1, int(-(-seconds // 1)))
    command = ["wrk", "-t", str(min(threads, connections)), "-c", str(connections), "-d", f"{whole}s"]
    command += ["--timeout", f"{TIMEOUT}s", "-s", str(lua), url]
    done = client.run(command, limit=whole + 3 * TIMEOUT, cpus=cpus)
    calls, measured, errors, latency = parse(done.stdout)
    return Result(calls, measured, errors, latency, done.busy)
