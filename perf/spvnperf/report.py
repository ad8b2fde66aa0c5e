"""The Markdown report of a set of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from . import goals
from .summary import CLIENT_FULL, Entry, by_cell, summarize

Column = tuple[str, Callable[[Entry], str]]


def render(results: dict[str, Any], plots: list[Path], folder: Path) -> str:
    """The report; plots are linked relative to folder, where it will lie."""
    entries = summarize(results)
    links = {path.stem: path.relative_to(folder).as_posix() for path in plots}
    parts = [heading(results), goals_section(entries), *cell_sections(entries, results, links)]
    parts += [flat_section(entries, links), *scaling_sections(entries), method_section(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(results: dict[str, Any]) -> str:
    machine, settings = results["machine"], results["settings"]
    shared = (
        "the load generator shares them"
        if not settings["load_cpus"]
        else f"the client alone on {settings['load_cpus']}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results["versions"].items()))
    lines = [
        f"# spvn beside its rivals ({results['name']})",
        "",
        f"{results['started'][:10]}; {machine['cpu']}, {machine['cores']} cores"
        f"{' of a virtual machine' if machine['virtual'] else ''} ({shared}), {machine['memory_gb']} GB,"
        f" {machine['system']}, Linux {machine['kernel']}.",
        f"spvn at {results['revision'] or 'no commit'}; {versions}.",
        "",
        f"One worker unless the row says otherwise, backlog {settings['backlog']}, no access log, HTTP/1.1 in plain"
        f" text; rounds: {settings['rounds']}, interleaved, of {settings['seconds']:g} s, medians; spread is"
        " (max - min) / median."
        " CPU is user and system time of the whole process tree for each call. A row with errors is not a record.",
    ]
    runs = results.get("runs", {})
    if len(runs) > 1:
        began = "; ".join(f"{when[:16]} at {run['revision']}" for when, run in sorted(runs.items()))
        lines += ["", f"Of {len(runs)} runs ({began}): a table whose rows are not all of one run says so."]
    return "\n".join(lines)


def goals_section(entries: list[Entry]) -> str:
    verdicts = [v for v in goals.judge(entries) if v.ours is not None or v.met is not None]
    idle = next((e for e in entries if e.kind == "idle" and e.server == goals.US and e.measured), None)
    flat = goals.flatness(entries)
    overload = goals.overload(entries)
    if not verdicts and idle is None and flat is None and not overload:
        return ""
    lines = ["## What holds and what does not", "", "| goal | spvn | rival | ratio | |", "|---|---|---|---|---|"]
    for v in verdicts:
        state = {True: "holds", False: "**does not hold**", None: "rival not measured"}[v.met]
        shown = {("rss",): size, goals.P50: duration, goals.P99: duration}.get(v.goal.metric, number)
        theirs = f"{shown(v.theirs)} ({v.against})" if v.theirs is not None else ""
        ratio = f"{v.ratio:.2f}" if v.ratio is not None else ""
        lines.append(f"| {v.goal.text} | {shown(v.ours)} | {theirs} | {ratio} | {state} |")
    if idle is not None:
        each = idle.get("bytes_per_connection") or 0.0
        state = "holds" if each <= goals.IDLE_BYTES and idle.clean else "**does not hold**"
        lines.append(f"| an idle connection at most {goals.IDLE_BYTES} bytes | {each:,.0f} | | | {state} |")
    for worst in overload:
        for text, value, met in (
            (
                f"goodput at least {goals.GOODPUT:.0%} of the capacity at any rate",
                percent(worst.goodput),
                worst.goodput >= goals.GOODPUT,
            ),
            (
                f"median of a light call at most {duration(goals.LIGHT_US)}",
                duration(worst.light_us),
                worst.light_us <= goals.LIGHT_US,
            ),
            (
                f"normal again {duration(goals.RECOVERY_MS * 1000)} after the load",
                duration(worst.recovery_ms * 1000),
                worst.recovery_ms <= goals.RECOVERY_MS,
            ),
        ):
            lines.append(f"| {worst.work}: {text} | {value} | | | {'holds' if met else '**does not hold**'} |")
    if flat is not None:
        state = "holds" if flat.met else f"**does not hold** at {', '.join(f'{size:,}' for size in flat.missed)}"
        sizes = f"{min(flat.costs):,} to {max(flat.costs):,} connections"
        lines.append(
            f"| hello: CPU per call flat from {sizes}, at most {goals.FLAT:g} of that at {goals.FLAT_AT} |"
            f" {number(flat.costs[flat.worst])} | {number(flat.costs[goals.FLAT_AT])} (itself at {goals.FLAT_AT}) |"
            f" {flat.ratio(flat.worst):.2f} | {state} |"
        )
    return "\n".join(lines)


def cell_sections(entries: list[Entry], results: dict[str, Any], links: dict[str, str]) -> list[str]:
    threads = int(results["settings"]["wrk_threads"])
    sections = []
    for (work, size), cell in by_cell(entries).items():
        kind = cell[0].kind
        unit = {"rate": " calls/s", "overload": " calls/s", "fault": "", "startup": ""}.get(
            kind, " connection" if size == 1 else " connections"
        )
        workers = f", {cell[0].workers} workers" if cell[0].workers > 1 else ""
        title = f"## {cell[0].title}{f', {size:,}{unit}' if unit else ''}{workers}"
        lines = [title, "", *table(cell, COLUMNS.get(kind, SPEED))]
        lines += notes(cell, threads)
        for name in (
            f"{work}-{size}",
            f"{work}-{size}-latency",
            f"{work}-{size}-time",
            work if kind in ("idle", "startup") else "",
        ):
            if name in links:
                lines += ["", f"![{name}]({links[name]})"]
        sections.append("\n".join(lines))
    return sections


def table(cell: list[Entry], columns: list[Column]) -> list[str]:
    lines = ["| server | " + " | ".join(name for name, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for entry in cell:
        if not entry.measured:
            reason = entry.skipped or "not measured: " + (entry.failed or "").splitlines()[0][:120]
            lines.append(f"| {entry.server} | {escape(reason)}" + " |" * len(columns))
            continue
        lines.append(f"| {entry.server} | " + " | ".join(value(entry) for _, value in columns) + " |")
    return lines


def notes(cell: list[Entry], wrk_threads: int) -> list[str]:
    """Why a figure of this table may not be what it seems."""
    full = [e.server for e in cell if e.kind == "wrk" and (e.get("busy") or 0) >= CLIENT_FULL * wrk_threads]
    late = [e.server for e in cell if (e.get("late", "p99") or 0) > 1000]
    failed = [(e.server, e.failed) for e in cell if e.failed and e.measured]
    lines = []
    if full:
        lines += ["", f"The client had no CPU left with {', '.join(full)}: their calls/s may be the client's limit."]
    if late:
        lines += ["", f"The client sent late (p99 over 1 ms) with {', '.join(late)}; lateness counts in the latency."]
    runs: dict[str, list[str]] = {}
    for entry in cell:
        runs.setdefault(" and ".join(when[:16] for when in entry.runs()), []).append(entry.server)
    if len(runs) > 1:
        told = "; ".join(f"{', '.join(servers)}: {when}" for when, servers in runs.items())
        lines += ["", f"Not of one run, so not interleaved ({told})."]
    for server, reason in failed:
        lines += ["", f"{server} failed in a round: {escape((reason or '').splitlines()[0][:200])}"]
    return lines


def flat_section(entries: list[Entry], links: dict[str, str]) -> str:
    """What a call costs as connections grow."""
    servers = list(dict.fromkeys(entry.server for entry in entries if entry.work == "hello"))
    found = {server: flat for server in servers if (flat := goals.flatness(entries, server)) is not None}
    if not found:
        return ""
    sizes = sorted({size for flat in found.values() for size in flat.costs})
    lines = ["## Cost per call as connections grow", "", "CPU us for each hello, and in brackets times that at 64:", ""]
    lines += ["| server | " + " | ".join(f"{size:,}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for server, flat in found.items():
        cells = [f"{number(flat.costs[size])} ({flat.ratio(size):.2f})" if size in flat.costs else "" for size in sizes]
        lines.append(f"| {server} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "With one connection every call pays a wake-up of each thread it passes, which 64 calls share; from 64 on, what"
        " grows is what connections cost in caches of the processor and in the kernel, and, with thousands, that"
        " opening them is part of the few seconds that are measured.",
    ]
    for name in sorted(links):
        if "-connections" in name:
            lines += ["", f"![{name}]({links[name]})"]
    return "\n".join(lines)


def scaling_sections(entries: list[Entry]) -> list[str]:
    """What the per-thread CPU says about a machine with cores to spare."""
    ours = [e for e in entries if e.kind == "wrk" and e.workers == 1 and e.server == goals.US and e.main_thread()]
    hello = [e for e in entries if e.kind == "wrk" and e.work == "hello" and e.busiest_thread()[0]]
    if not hello and not ours:
        return []
    sections = []
    lines = [
        "## If cores were free",
        "",
        "Estimates, not measurements. The kernel counts the CPU of each thread (/proc/PID/task/*/schedstat, read before"
        " and after the run). The thread that runs Python is the only one of a worker that cannot be multiplied: if"
        " every other thread had a core, 1 s over its CPU per call is what one Python thread could serve. That is"
        " optimistic for two reasons: caches and wake-ups across cores, and that with cores to spare fewer share a"
        " wake-up, so that each costs more.",
    ]
    if ours:
        lines += [
            "",
            "| spvn | connections | CPU us | Python's thread us | the core's us | calls/s of one Python thread |",
            "|---|---|---|---|---|---|",
        ]
        for entry in ours:
            main = entry.main_thread()
            assert main is not None
            lines.append(
                f"| {entry.title} | {entry.size:,} | {number(entry.get('cpu_us'))} | {number(main)} |"
                f" {number(entry.other_threads())} | {1e6 / main:,.0f} |"
            )
    sections.append("\n".join(lines))
    if hello:
        lines = [
            "### The busiest thread of each server",
            "",
            "The same for hello and every server as it was started, so the thread that used most is the limit.",
            "",
            "| server | connections | CPU us | busiest thread us | its name | main thread us | calls/s in reach |",
            "|---|---|---|---|---|---|---|",
        ]
        for entry in hello:
            busiest, name = entry.busiest_thread()
            assert busiest is not None
            lines.append(
                f"| {entry.server} | {entry.size:,} | {number(entry.get('cpu_us'))} | {number(busiest)} |"
                f" {escape(name)} | {number(entry.main_thread())} | {1e6 / busiest:,.0f} |"
            )
        sections.append("\n".join(lines))
    return sections


def method_section(results: dict[str, Any]) -> str:
    lines = ["## Command lines", "", "```"]
    lines += [f"{name}: {command}" for name, command in results["commands"].items()]
    lines += ["```", "", "`perf/README.md` says how to read this and what it does not show."]
    return "\n".join(lines)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def duration(micros: float | None) -> str:
    if micros is None:
        return ""
    if micros < 1000:
        return f"{micros:.0f} us"
    return f"{micros / 1000:.1f} ms" if micros < 1e6 else f"{micros / 1e6:.2f} s"


def size(count: float | None) -> str:
    return "" if count is None else f"{count / 2**20:.1f} MB"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.0f} %"


def errors(entry: Entry) -> str:
    found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(entry.errors.items()))
    return f"**{escape(found)}**" if found else ("a round failed" if entry.failed else "none")


def escape(content: str) -> str:
    return content.replace("|", "\\|").replace("<", "&lt;")


def split(entry: Entry) -> str:
    user, system = entry.get("user_us"), entry.get("system_us")
    return f"{number(user)} + {number(system)}" if user is not None else ""


def at(*path: str) -> Callable[[Entry], str]:
    return lambda entry: duration(entry.get(*path))


LATENCY: list[Column] = [
    ("p50", at("latency", "p50")),
    ("p99", at("latency", "p99")),
    ("p99.9", at("latency", "p99.9")),
    ("max", at("latency", "max")),
]
COST: list[Column] = [
    ("CPU us", lambda e: number(e.get("cpu_us"))),
    ("user + system", split),
]
MEMORY: list[Column] = [
    ("RSS", lambda e: size(e.get("rss"))),
    ("PSS", lambda e: size(e.get("pss"))),
]
PER_SECOND: Column = ("per second", lambda e: number(e.get("rate")))
ERRORS: Column = ("errors", errors)
SPEED: list[Column] = [
    PER_SECOND,
    ("spread", lambda e: percent(e.spread("rate"))),
    *COST,
    ("spread", lambda e: percent(e.spread("cpu_us"))),
    *LATENCY,
    *MEMORY,
    ERRORS,
]
COLUMNS: dict[str, list[Column]] = {
    "rate": [
        ("planned", lambda e: whole(e.get("planned"))),
        ("answered", lambda e: whole(e.get("calls"))),
        *COST,
        *LATENCY,
        ERRORS,
    ],
    "closed": [
        PER_SECOND,
        ("planned", lambda e: whole(e.get("planned"))),
        *COST,
        *LATENCY,
        ("first answer p99", at("first", "p99")),
        ERRORS,
    ],
    "burst": [
        ("planned", lambda e: whole(e.get("planned"))),
        ("answered", lambda e: whole(e.get("calls"))),
        ("all done in", lambda e: duration((e.get("seconds") or 0) * 1e6)),
        ("connect p99", at("connect", "p99")),
        ("first answer p99", at("first", "p99")),
        *LATENCY,
        *MEMORY,
        ERRORS,
    ],
    "idle": [
        ("held", lambda e: whole(e.get("open"))),
        ("answered afterwards", lambda e: whole(e.get("answered_after"))),
        ("bytes each", lambda e: whole(e.get("bytes_per_connection"))),
        ("RSS before", lambda e: size(e.get("rss_before"))),
        *MEMORY,
        ERRORS,
    ],
    "startup": [
        ("ready in", lambda e: duration((e.get("ready_ms") or 0) * 1000)),
        ("spread", lambda e: percent(e.spread("ready_ms"))),
        ("CPU until then", lambda e: duration((e.get("start_cpu_ms") or 0) * 1000)),
        ("processes", lambda e: whole(e.get("processes"))),
        ("backlog", lambda e: whole(e.get("backlog"))),
        *MEMORY,
        ERRORS,
    ],
    "overload": [
        ("planned", lambda e: whole(e.get("planned"))),
        ("in time", lambda e: whole(e.get("ok"))),
        ("goodput", lambda e: percent(e.get("goodput"))),
        ("light call p50", at("light", "latency", "p50")),
        ("light call p99", at("light", "latency", "p99")),
        ("recovery", lambda e: duration((e.get("recovery_ms") or 0) * 1000)),
        *LATENCY,
        ERRORS,
    ],
    "fault": [
        ("planned", lambda e: whole(e.get("planned"))),
        ("lost", lambda e: whole(e.get("lost"))),
        ("connections lost", lambda e: whole(e.get("ended"))),
        *LATENCY,
        ERRORS,
    ],
}
