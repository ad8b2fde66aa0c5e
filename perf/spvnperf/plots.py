"""Which charts a set of results gives, and under which names they are written."""

from __future__ import annotations

from pathlib import Path

from . import svg
from .servers import BY_NAME
from .summary import Entry, by_cell

PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


def color(server: str) -> str:
    return BY_NAME[server].color if server in BY_NAME else "#000000"


def write(entries: list[Entry], folder: Path) -> list[Path]:
    """Writes every chart that there is data for; returns their paths."""
    charts: dict[str, str] = {}
    for (work, size), cell in by_cell(entries).items():
        measured = [entry for entry in cell if entry.measured]
        if not measured:
            continue
        kind, title = measured[0].kind, measured[0].title
        if kind in ("wrk", "sse"):
            charts[f"{work}-{size}"] = speed(f"{title}, {size:,} connections", measured)
            charts[f"{work}-{size}-latency"] = percentiles(f"{title}, {size:,} connections: latency", measured)
        elif kind in ("rate", "fault", "overload"):
            charts[f"{work}-{size}-time"] = over_time(f"{title}: p99 at {size:,} calls/s", measured)
        elif kind == "burst":
            charts[f"{work}-{size}"] = percentiles(f"{size:,} connections at once, three calls each: latency", measured)
        elif kind == "idle":
            charts["idle"] = idle(measured, size)
        elif kind == "startup":
            charts["startup"] = startup(measured)
    for work, sizes in many_sizes(entries).items():
        charts[f"{work}-connections"] = over_sizes(f"{work}: CPU per call", sizes, "cpu_us")
        charts[f"{work}-connections-p99"] = over_sizes(f"{work}: p99", sizes, "latency", "p99")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.svg"):
        stale.unlink()
    paths = []
    for name, chart in charts.items():
        path = folder / f"{name}.svg"
        path.write_text(chart)
        paths.append(path)
    return paths


def panel(cell: list[Entry], *path: str, smallest_first: bool, scale: float = 1.0) -> list[svg.Bar]:
    """Bars of one figure, best first; those with errors are faint and say so."""
    found = [(entry, entry.get(*path)) for entry in cell]
    ordered = sorted(((e, v) for e, v in found if v is not None), key=lambda pair: pair[1], reverse=not smallest_first)
    return [
        svg.Bar(e.server, v * scale, color(e.server), "" if e.clean else " (errors)", faint=not e.clean)
        for e, v in ordered
    ]


def speed(title: str, cell: list[Entry]) -> str:
    unit = "events" if cell[0].kind == "sse" else "calls"
    return svg.bars(
        title,
        [
            (f"{unit}/s (more is better)", "{:,.0f}", panel(cell, "rate", smallest_first=False)),
            (f"CPU, us for each of the {unit} (less is better)", "{:,.1f}", panel(cell, "cpu_us", smallest_first=True)),
        ],
    )


def percentiles(title: str, cell: list[Entry]) -> str:
    lines = []
    for entry in cell:
        points = [(float(i), entry.get("latency", name) or 0.0) for i, name in enumerate(PERCENTILES)]
        lines.append(svg.Line(entry.server, points, color(entry.server)))
    marks = [(float(i), name) for i, name in enumerate(PERCENTILES)]
    return svg.lines(
        title, lines, x_label="percentile of calls", y_label="latency (log)", y_text=svg.latency, x_ticks=marks
    )


def over_time(title: str, cell: list[Entry]) -> str:
    """The first round's slices; one line for each server."""
    lines = []
    for entry in cell:
        points = [(float(p["second"]), float(p["p99"])) for p in entry.measured[0].get("series") or ()]
        lines.append(svg.Line(entry.server, points, color(entry.server)))
    return svg.lines(title, lines, x_label="seconds into the run", y_label="p99 (log)", y_text=svg.latency)


def many_sizes(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Works of closed loops that were measured at three sizes or more."""
    works: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.kind in ("wrk", "closed") and entry.measured:
            works.setdefault(entry.work, []).append(entry)
    return {work: found for work, found in works.items() if len({entry.size for entry in found}) >= 3}


def over_sizes(title: str, entries: list[Entry], *path: str) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        lines.setdefault(entry.server, []).append((float(entry.size), entry.get(*path) or 0.0))
    series = [svg.Line(server, sorted(points), color(server)) for server, points in lines.items()]
    marks = [(float(size), f"{size:,}") for size in sorted({entry.size for entry in entries})]
    return svg.lines(title, series, x_label="connections", y_label="log", y_text=svg.latency, x_ticks=marks, log_x=True)


def idle(cell: list[Entry], size: int) -> str:
    return svg.bars(
        f"{size:,} idle keep-alive connections",
        [
            ("KB each, resident", "{:,.1f}", panel(cell, "bytes_per_connection", smallest_first=True, scale=1 / 1024)),
            ("MB in all, resident", "{:,.0f}", panel(cell, "rss", smallest_first=True, scale=1 / 2**20)),
        ],
    )


def startup(cell: list[Entry]) -> str:
    return svg.bars(
        "start-up",
        [
            ("ms to the first answer", "{:,.0f}", panel(cell, "ready_ms", smallest_first=True)),
            ("MB then resident (PSS)", "{:,.0f}", panel(cell, "pss", smallest_first=True, scale=1 / 2**20)),
        ],
    )
