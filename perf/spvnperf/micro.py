"""Each stage of a call on its own, in nanoseconds beside its budget (perf/stages/budgets.json).

The stages in Go are benchmarks of their packages, those of the Python side are in perf/stages. A stage over its budget
is told and is no failure: machines differ. A stage that does not run is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import environment, machine
from .errors import PerfError
from .servers import HERE

STAGES = HERE / "stages"
LIMIT = 300

# Benchmark of a Go package: the stage it is.
GO = {
    "BenchmarkHeadSmall": "parse",
    "BenchmarkHead": "parse, ten fields",
    "BenchmarkAnswer": "serialize",
    "BenchmarkExchange": "exchange",
    "BenchmarkRing": "ring, Go",
}
PACKAGES = ("./gosrc/http1", "./gosrc/link")


@dataclass(frozen=True)
class Effort:
    """How long to measure: Go's -benchtime and -count, rounds on the Python side."""

    benchtime: str
    count: int
    rounds: int


FULL = Effort("200ms", 5, 64 * 200)
SMOKE = Effort("50x", 1, 64)


def budgets() -> dict[str, tuple[float, str]]:
    """For each stage its nanoseconds and what it does, in the order of a call."""
    found: dict[str, Any] = json.loads((STAGES / "budgets.json").read_text())
    return {name: (float(nanoseconds), text) for name, (nanoseconds, text) in found.items()}


def parse_go(output: str) -> dict[str, float]:
    """The median of each benchmark in the output of `go test -bench`."""
    found: dict[str, list[float]] = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0].startswith("Benchmark") and words[3] == "ns/op":
            stage = GO.get(words[0].partition("-")[0])
            if stage:
                found.setdefault(stage, []).append(float(words[2]))
    return {stage: statistics.median(values) for stage, values in found.items()}


def measure_go(effort: Effort) -> dict[str, float]:
    go = shutil.which("go")
    if go is None:
        raise PerfError("no go on this machine; `make perf-micro` brings one")
    names = "|".join(f"{name}$" for name in GO)
    command = [go, "test", "-run", "^$", "-bench", f"^({names})", "-benchtime", effort.benchtime]
    return parse_go(run([*command, "-count", str(effort.count), *PACKAGES]))


def measure_python(python: str, effort: Effort) -> tuple[str, dict[str, float]]:
    """The interpreter's version, and the stages in it."""
    answer = json.loads(run([python, str(STAGES / "python_side.py"), str(effort.rounds)]).splitlines()[-1])
    return answer["python"], answer["stages"]


def run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, cwd=environment.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PerfError(f"{command[0]} did not run: {error}") from None
    if done.returncode != 0:
        raise PerfError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


def table(found: dict[str, float]) -> str:
    """Markdown, so that it can be pasted into docs/performance.md."""
    lines = ["| stage | ns | budget | | |", "|---|--:|--:|---|---|"]
    for stage, (budget, text) in budgets().items():
        took = found[stage]
        lines.append(f"| {stage} | {took:,.0f} | {budget:,.0f} | {'' if took <= budget else '**over**'} | {text} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="perf/micro.py", description="Times each stage of a call on its own.")
    p.add_argument("--smoke", action="store_true", help="as short as possible: whether every stage runs")
    p.add_argument("--python", help="interpreter of the Python side (default: Python 3.13 where there is one)")
    p.add_argument("--json", action="store_true", help="the figures as JSON")
    options = p.parse_args(arguments)
    effort = SMOKE if options.smoke else FULL
    try:
        version, found = measure_python(options.python or environment.default_python(), effort)
        found.update(measure_go(effort))
    except PerfError as error:
        print(f"perf: {error}", file=sys.stderr)
        return 1
    missing = set(budgets()) ^ set(found)
    if missing:
        print(f"perf: without figure or without budget: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"python": version, "cpu": machine.cpu_model(), "stages": found}))
    else:
        print(f"{machine.cpu_model()}, Python {version}\n\n{table(found)}")
    return 0
