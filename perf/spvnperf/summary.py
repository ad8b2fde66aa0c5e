"""From raw rows to one entry for each cell and server: medians, spread, all errors added up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .stats import median, spread

# From this share of a core for each of its threads the client, not the server, may be what limits calls/s.
CLIENT_FULL = 0.95


@dataclass
class Entry:
    """One server in one cell. get() gives medians over the rounds that were measured, in microseconds and bytes."""

    work: str
    title: str
    kind: str
    size: int
    workers: int
    server: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def measured(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "failed" not in row and "skipped" not in row]

    @property
    def failed(self) -> str | None:
        return next((row["failed"] for row in self.rows if "failed" in row), None)

    @property
    def skipped(self) -> str | None:
        return next((row["skipped"] for row in self.rows if "skipped" in row), None)

    @property
    def errors(self) -> dict[str, int]:
        """Over all rounds, by kind."""
        total: dict[str, int] = {}
        for row in self.rows:
            for kind, count in (row.get("errors") or {}).items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def clean(self) -> bool:
        """Whether it may stand as a record: measured in every round, and without an error."""
        return bool(self.measured) and not self.errors and not self.failed

    def values(self, *path: str) -> list[float]:
        found = []
        for row in self.measured:
            value: Any = row
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, (int, float)):
                found.append(float(value))
        return found

    def get(self, *path: str) -> float | None:
        return median(self.values(*path))

    def spread(self, *path: str) -> float | None:
        return spread(self.values(*path))

    def busiest_thread(self) -> tuple[float | None, str]:
        """Microseconds a call of the thread that used most, and its name: with cores to spare it limits calls/s."""
        tops = [row["threads"][0] for row in self.measured if row.get("threads")]
        if not tops:
            return None, ""
        return median([float(top["us"]) for top in tops]), str(tops[0]["comm"]) + (" (main)" if tops[0]["main"] else "")

    def runs(self) -> list[str]:
        """The runs that its rows are of, by when they began: several after a merge."""
        return sorted({str(row["run"]) for row in self.rows if "run" in row})

    def other_threads(self) -> float | None:
        """Microseconds a call of all threads but the busiest main one: in spvn those of the Go core."""
        whole, main = self.get("cpu_us"), self.main_thread()
        return None if whole is None or main is None else max(whole - main, 0.0)

    def main_thread(self) -> float | None:
        """Microseconds a call of the busiest main thread of a process: in spvn the one that runs Python."""
        found = []
        for row in self.measured:
            mains = [float(thread["us"]) for thread in row.get("threads") or () if thread["main"]]
            if mains:
                found.append(max(mains))
        return median(found)


def summarize(results: dict[str, Any]) -> list[Entry]:
    """Entries in the order in which they were measured first."""
    entries: dict[tuple[str, int, str], Entry] = {}
    for row in results["rows"]:
        key = row["work"], row["size"], row["server"]
        if key not in entries:
            entries[key] = Entry(row["work"], row["title"], row["kind"], row["size"], row["workers"], row["server"])
        entries[key].rows.append(row)
    return list(entries.values())


def by_cell(entries: list[Entry]) -> dict[tuple[str, int], list[Entry]]:
    cells: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries:
        cells.setdefault((entry.work, entry.size), []).append(entry)
    return cells
