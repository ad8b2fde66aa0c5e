"""What the README and docs/performance.md show of the results: the parts between two marks are written from the JSON.

    <!-- results: NAME -->
    ...
    <!-- end of results -->

NAME is one of BLOCKS. Everything else in those pages is left alone.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any, Callable

from . import report
from .environment import ROOT
from .errors import PerfError
from .servers import BY_NAME
from .summary import Entry, summarize

PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
MARK = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

# Columns of the README's table.
MAIN = (("hello", 64, "hello, 64 connections"), ("hello", 512, "hello, 512"), ("echo10k", 64, "echo of 10 KB, 64"))
PLOTS = (
    ("hello-64", "calls/s and CPU per call of a hello, 64 connections"),
    ("crowd-connections-p99", "p99 with 100 to 10,000 clients"),
    ("rate-10000-time", "p99 over time at 10,000 calls/s"),
    ("idle", "memory of 15,000 idle connections"),
)


def publish(results: dict[str, Any], output: Path, pages: tuple[Path, ...] = PAGES) -> list[Path]:
    """Rewrites the parts of the pages that are made from results; returns the pages that changed."""
    changed = []
    for page in pages:
        text = page.read_text()
        new = MARK.sub(functools.partial(part, results, output, page), text)
        if new != text:
            page.write_text(new)
            changed.append(page)
    return changed


def part(results: dict[str, Any], output: Path, page: Path, found: re.Match[str]) -> str:
    """A part as it is to be: its marks and what is between them."""
    write = BLOCKS.get(found[2])
    if write is None:
        raise PerfError(f"{page}: no such part of the results: {found[2]}; there are {', '.join(BLOCKS)}")
    return f"{found[1]}{write(results, output, page.parent)}\n{found[3]}"


def main_table(results: dict[str, Any], output: Path, folder: Path) -> str:
    """Date, machine, and CPU and calls/s of the cells in MAIN, the cheapest server first."""
    cells: dict[str, dict[tuple[str, int], Entry]] = {}
    for entry in summarize(results):
        if entry.measured and entry.get("cpu_us"):
            cells.setdefault(entry.server, {})[entry.work, entry.size] = entry
    wanted = [(work, size) for work, size, _ in MAIN]
    full = {server: found for server, found in cells.items() if all(cell in found for cell in wanted)}
    order = sorted(full, key=lambda server: full[server][wanted[0]].get("cpu_us") or 0.0)
    machine, settings = results["machine"], results["settings"]
    where = "a virtual machine of" if machine["virtual"] else "a machine of"
    lines = [
        "CPU per request over the whole process tree, and requests per second, of a raw ASGI app in one worker; medians"
        f" of {settings['rounds']} interleaved rounds on {where} {machine['cores']} cores"
        f"{'' if settings['load_cpus'] else ' that the load generator shares'} ({results['started'][:10]},"
        f" {machine['cpu']}, Python {results['versions']['python']}, HTTP/1.1 in plain text):",
        "",
        "| | " + " | ".join(title for _, _, title in MAIN) + " |",
        "|---" * (len(MAIN) + 1) + "|",
    ]
    for server in sorted(order, key=lambda name: name != "spvn"):
        entries = [full[server][cell] for cell in wanted]
        lines.append(f"| {label(server, results)} | " + " | ".join(figure(entry) for entry in entries) + " |")
    lines += ["", f"[The whole report]({relative(output.with_suffix('.md'), folder)}), with what does not hold."]
    again = output.with_name(f"{output.stem}-claims-2023.md")
    if again.exists():
        lines[-1] += f" [The claims of 2023]({relative(again, folder)}), asked again."
    return "\n".join(lines)


def label(server: str, results: dict[str, Any]) -> str:
    known = BY_NAME.get(server)
    version = results["versions"].get(known.distribution, "") if known else ""
    note = f" ({known.note})" if known and known.note.startswith("uvloop") else ""
    return f"{server} {version}{note}".strip()


def figure(entry: Entry) -> str:
    if not entry.clean:
        return f"errors: {sum(entry.errors.values()):,}"
    rate = entry.get("rate") or 0.0
    return f"{report.number(entry.get('cpu_us'))} us, {round(rate, -3):,.0f}/s"


def plots(results: dict[str, Any], output: Path, folder: Path) -> str:
    """The main plots, those of them that there are."""
    found = []
    for name, title in PLOTS:
        plot = output.with_suffix("") / f"{name}.svg"
        if plot.exists():
            found.append(f"![{title}]({relative(plot, folder)})")
    return "\n\n".join(found)


def goals_table(results: dict[str, Any], output: Path, folder: Path) -> str:
    section = report.goals_section(summarize(results))
    return f"{source(results, output, folder)}\n\n" + section.partition("\n\n")[2]


def costs(results: dict[str, Any], output: Path, folder: Path) -> str:
    """spvn's cost per call: by thread, and by connections."""
    entries = summarize(results)
    parts = [source(results, output, folder)]
    split = report.scaling_sections(entries)
    if split:
        parts.append(split[0].partition("\n\n")[2])
    flat = report.flat_section(entries, {})
    if flat:
        parts.append(flat.partition("\n\n")[2])
    return "\n\n".join(parts)


def source(results: dict[str, Any], output: Path, folder: Path) -> str:
    page = relative(output.with_suffix(".md"), folder)
    return f"From [{output.stem}.md]({page}), {results['started'][:10]}, spvn at {results['revision']}."


def relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


BLOCKS: dict[str, Callable[[dict[str, Any], Path, Path], str]] = {
    "main": main_table,
    "plots": plots,
    "goals": goals_table,
    "costs": costs,
}
