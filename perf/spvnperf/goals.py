"""What spvn set out to reach beside its rivals, and whether these results show it.

A goal that does not hold is printed as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from .summary import Entry

US = "spvn"
EVERY = "every rival"


@dataclass(frozen=True)
class Goal:
    """spvn's metric in a cell is at most (or, for calls/s, at least) factor times the rival's."""

    text: str
    work: str
    size: int
    metric: tuple[str, ...]
    rival: str
    factor: float
    at_least: bool = False


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    ours: float | None
    theirs: float | None
    against: str
    met: bool | None  # None: not measured

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.ours is not None and self.theirs else None


CPU, RATE, P50, P99 = ("cpu_us",), ("rate",), ("latency", "p50"), ("latency", "p99")

GOALS = (
    Goal("hello at 64: CPU per call at most 0.90 of peregrine's", "hello", 64, CPU, "peregrine", 0.90),
    Goal("hello at 512: CPU per call at most 0.80 of peregrine's", "hello", 512, CPU, "peregrine", 0.80),
    Goal("hello at 64: CPU per call at most freastal's", "hello", 64, CPU, "freastal", 1.0),
    Goal("hello at 512: CPU per call at most freastal's", "hello", 512, CPU, "freastal", 1.0),
    Goal("hello at 64: calls/s above every rival", "hello", 64, RATE, EVERY, 1.0, at_least=True),
    Goal("hello at 512: calls/s above every rival", "hello", 512, RATE, EVERY, 1.0, at_least=True),
    Goal("hello at 1: p50 at most 1.1 of uvicorn's", "hello", 1, P50, "uvicorn", 1.1),
    Goal("10 KB echo at 64: CPU per call at most 0.95 of peregrine's", "echo10k", 64, CPU, "peregrine", 0.95),
    Goal("10 KB echo at 64: CPU per call at most 0.95 of weft's", "echo10k", 64, CPU, "weft", 0.95),
    Goal("10 ms await at 512: CPU per call at most peregrine's", "await", 512, CPU, "peregrine", 1.0),
    Goal("FastAPI hello at 64: calls/s above every rival", "fastapi", 64, RATE, EVERY, 1.0, at_least=True),
    *(
        Goal(f"{title} at {size}: CPU per call at most 1/1.5 of {rival}'s", work, size, CPU, rival, 1 / 1.5)
        for work, title in (("hello", "hello"), ("echo10k", "10 KB echo"))
        for size in (64, 512)
        for rival in ("uvicorn", "granian")
    ),
    Goal("18,000 connections at once: p99 no worse than peregrine's", "burst", 18000, P99, "peregrine", 1.0),
    Goal("resident memory while serving hello at 64 below uvicorn's", "hello", 64, ("rss",), "uvicorn", 1.0),
    Goal("resident memory after start below uvicorn's", "startup", 1, ("rss",), "uvicorn", 1.0),
)

# Goals of ours alone.
IDLE_BYTES = 1024
FLAT = 1.25  # cost per call of hello at any number of connections, of the one at FLAT_AT
FLAT_AT = 64


@dataclass(frozen=True)
class Flatness:
    """Cost per call of hello at each number of connections, in microseconds."""

    costs: dict[int, float]

    def ratio(self, size: int) -> float:
        return self.costs[size] / self.costs[FLAT_AT]

    @property
    def worst(self) -> int:
        return max(self.costs, key=self.ratio)

    @property
    def missed(self) -> list[int]:
        return [size for size in self.costs if self.ratio(size) > FLAT]

    @property
    def met(self) -> bool:
        return not self.missed


def flatness(entries: list[Entry], server: str = US) -> Flatness | None:
    """None when there is nothing to compare: FLAT_AT and two sizes more are wanted."""
    found = {
        entry.size: cost
        for entry in entries
        if (entry.work, entry.server) == ("hello", server) and entry.clean and (cost := entry.get("cpu_us")) is not None
    }
    return Flatness(dict(sorted(found.items()))) if FLAT_AT in found and len(found) >= 3 else None


# Under overload: goodput, the median of a light call on a priority path, how long after the load all is normal again.
GOODPUT, LIGHT_US, RECOVERY_MS = 0.9, 50_000, 1000


@dataclass(frozen=True)
class Overload:
    """The worst of spvn's rows under one pattern of burning."""

    work: str
    goodput: float
    light_us: float
    recovery_ms: float


def overload(entries: list[Entry]) -> list[Overload]:
    """Clients who gave up are what is measured, and no error here."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.kind == "overload" and entry.server == US and entry.measured:
            found.setdefault(entry.work, []).append(entry)
    return [
        Overload(
            work,
            min(entry.get("goodput") or 0.0 for entry in rows),
            max(light(entry) for entry in rows),
            max(entry.get("recovery_ms") or 0.0 for entry in rows),
        )
        for work, rows in found.items()
    ]


def light(entry: Entry) -> float:
    p50 = entry.get("light", "latency", "p50")
    return float("inf") if p50 is None else p50


def judge(entries: list[Entry]) -> list[Verdict]:
    return [_judge(goal, entries) for goal in GOALS]


def _judge(goal: Goal, entries: list[Entry]) -> Verdict:
    cell = [entry for entry in entries if (entry.work, entry.size) == (goal.work, goal.size)]
    us = next((entry for entry in cell if entry.server == US and entry.clean), None)
    rivals = [
        entry
        for entry in cell
        if entry.server != US and goal.rival in (EVERY, entry.server) and entry.get(*goal.metric) is not None
    ]
    ours = us.get(*goal.metric) if us else None
    if not rivals:
        return Verdict(goal, ours, None, goal.rival, None)
    pick = max if goal.at_least else min
    best = pick(rivals, key=lambda entry: entry.get(*goal.metric) or 0.0)
    theirs = best.get(*goal.metric)
    if ours is None or theirs is None:
        tried = any(entry.server == US and not entry.skipped for entry in cell)
        return Verdict(goal, ours, theirs, best.server, False if tried else None)
    met = ours > theirs * goal.factor if goal.at_least else ours <= theirs * goal.factor
    return Verdict(goal, ours, theirs, best.server, met)
