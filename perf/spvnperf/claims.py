"""The claims that the first spvn was shown with in 2023, asked again: a page that is written from the results.

Nothing in it is fixed but the claims: a verdict follows from the rows, and where there are none it says so.
"""

from __future__ import annotations

from typing import Any

from .report import duration, number
from .summary import Entry, summarize

US = "spvn"
CROWD, RATE, HELLO = "crowd", "rate", "hello"
ACCUSED = ("uvicorn", "hypercorn")
MANY = 7500  # clients from which on they were said to drop requests and to stall
STALL_US = 1e6  # a stall: a call waited this long or more, and
STALL_MEDIANS = 5  # this many times the median, so that it is not only that a slow server has a long queue
THEN = {"spvn": (159, 222), "hypercorn": (683, 788)}


def render(results: dict[str, Any]) -> str:
    """The page; empty where nothing of it was measured."""
    entries = [entry for entry in summarize(results) if entry.work in (CROWD, RATE, HELLO) and entry.measured]
    crowd, rate, hello = (
        sorted((entry for entry in entries if entry.work == work), key=lambda entry: entry.size)
        for work in (CROWD, RATE, HELLO)
    )
    if not crowd and not rate:
        return ""
    return (
        "\n\n".join([heading(results), *crowd_section(crowd), *rate_section(rate), *cost_section(hello), ENDING]) + "\n"
    )


def heading(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    used = ", ".join(
        f"{name} {versions[package]}"
        for name, package in (
            *(("spvn", "spvn"), ("uvicorn", "uvicorn"), ("hypercorn", "hypercorn"), ("granian", "granian")),
            *(("peregrine", "peregrine-server"), ("Python", "python")),
        )
        if package in versions
    )
    return (
        "# The claims of 2023, asked again\n\n"
        "The first spvn was an experiment in Rust. It was shown with three claims: that uvicorn and hypercorn drop"
        " requests and stall above 7,500 concurrent clients; plots of latency at fixed rates; and a caller of 159 to"
        " 222 us a call beside hypercorn's 683 to 788. This spvn is another program, its rivals have changed, and so"
        " has the method: open loops, every call accounted for, the same number of connections and the same backlog"
        f" ({results['settings']['backlog']}) for all, one worker each.\n\n"
        f"{results['started'][:10]}; {machine['cpu']}, {machine['cores']} cores shared with the load generator; {used}."
        " `perf/ali/README.md` says how each is measured, `make perf` measures it again and writes this page."
    )


def lost(entry: Entry) -> int:
    return sum(entry.errors.values())


def stalled(entry: Entry) -> bool:
    longest, middle = entry.get("latency", "max"), entry.get("latency", "p50")
    return longest is not None and middle is not None and longest >= max(STALL_US, STALL_MEDIANS * middle)


def crowd_section(crowd: list[Entry]) -> list[str]:
    if not crowd:
        return ["## Many clients\n\nNot measured in this run."]
    lines = [
        "## “uvicorn and hypercorn drop requests and stall above 7,500 concurrent clients”",
        "",
        "Patient clients: each opens a connection, asks, and asks again as soon as it was answered, for five seconds; a"
        " call that has begun is waited for. Lost is every call without a 200. A stall is a call that waited a second"
        f" or more, and {STALL_MEDIANS} times the median.",
        "",
        "| clients | server | asked | lost | calls/s | p50 | p99 | max |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for e in crowd:
        lines.append(
            f"| {e.size:,} | {e.server} | {number(e.get('planned'))} | {lost(e) or 'none'} | {number(e.get('rate'))} |"
            f" {duration(e.get('latency', 'p50'))} | {duration(e.get('latency', 'p99'))} |"
            f" {duration(e.get('latency', 'max'))} |"
        )
    return ["\n".join(lines), *(crowd_verdict(name, crowd) for name in (*ACCUSED, US))]


def crowd_verdict(server: str, crowd: list[Entry]) -> str:
    many = [entry for entry in crowd if entry.server == server and entry.size >= MANY]
    if not many:
        return f"**{server}** was not asked by {MANY:,} clients or more in this run."
    sizes = " and ".join(f"{entry.size:,}" for entry in many)
    drops = [entry for entry in many if lost(entry)]
    stalls = [entry for entry in many if stalled(entry)]
    parts = []
    for entry in drops:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(entry.errors.items()))
        parts.append(f"it lost {lost(entry):,} calls of {entry.size:,} clients ({kinds})")
    for entry in stalls:
        parts.append(
            f"with {entry.size:,} clients a call waited {duration(entry.get('latency', 'max'))},"
            f" where half took no more than {duration(entry.get('latency', 'p50'))}"
        )
    text = "; ".join(parts) if parts else f"every call of {sizes} clients was answered, and none stalled"
    if server == US:
        return f"**{server}** in the same place: {text}."
    verdict = {
        (True, True): "the claim holds",
        (True, False): "that it drops requests holds, that it stalls does not",
        (False, True): "that it drops requests does not hold today, that it stalls does",
        (False, False): "the claim does not hold today",
    }[bool(drops), bool(stalls)]
    return f"**{server}: {verdict}**: {text}."


def rate_section(rate: list[Entry]) -> list[str]:
    if not rate:
        return ["## Constant rates\n\nNot measured in this run."]
    seconds = max((entry.get("planned") or 0) / entry.size for entry in rate)
    lines = [
        "## Constant rates",
        "",
        "An open loop of vegeta over at most 100 connections, a POST of 4 bytes that is echoed,"
        f" {seconds:.0f} s for each rate.",
        "",
        "| calls/s | server | planned | lost | CPU us | p50 | p99 | p99.9 | max |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for e in rate:
        lines.append(
            f"| {e.size:,} | {e.server} | {number(e.get('planned'))} | {lost(e) or 'none'} |"
            f" {number(e.get('cpu_us'))} | {duration(e.get('latency', 'p50'))} | {duration(e.get('latency', 'p99'))} |"
            f" {duration(e.get('latency', 'p99.9'))} | {duration(e.get('latency', 'max'))} |"
        )
    most = max(entry.size for entry in rate)
    late = [entry.server for entry in rate if entry.size == most and (entry.get("latency", "p50") or 0) >= 100_000]
    verdict = (
        f"At {most:,} calls/s {', '.join(late)} did not keep up: half of the calls took 100 ms or more."
        if late
        else f"All of them kept up with {most:,} calls/s."
    )
    best = min((e for e in rate if e.size == most), key=lambda e: e.get("latency", "p99") or 0)
    verdict += f" The lowest p99 there is {best.server}'s, {duration(best.get('latency', 'p99'))}."
    return ["\n".join(lines), verdict]


def cost_section(hello: list[Entry]) -> list[str]:
    """The caller's microseconds: today as CPU for each call, over the whole process tree."""
    pairs = []
    for size in sorted({entry.size for entry in hello}):
        cell = {entry.server: entry.get("cpu_us") for entry in hello if entry.size == size}
        ours, theirs = cell.get(US), cell.get("hypercorn")
        if ours and theirs:
            pairs.append((size, ours, theirs))
    title = "## “159 to 222 us a call, hypercorn 683 to 788”"
    if not pairs:
        return [f"{title}\n\nNot measured in this run."]
    low, high = THEN["hypercorn"][0] / THEN["spvn"][1], THEN["hypercorn"][1] / THEN["spvn"][0]
    lines = [
        title,
        "",
        f"Then {low:.1f} to {high:.1f} times. Today, as CPU for each hello over all processes of the server:",
        "",
        "| connections | spvn us | hypercorn us | times |",
        "|--:|--:|--:|--:|",
    ]
    for size, ours, theirs in pairs:
        lines.append(f"| {size:,} | {number(ours)} | {number(theirs)} | {theirs / ours:.1f} |")
    least = min(theirs / ours for _, ours, theirs in pairs)
    if least > high:
        verdict = "The difference is larger than was claimed then, at every number of connections."
    elif least >= low:
        verdict = "The claim holds at every number of connections."
    else:
        verdict = f"The claim does not hold at every number of connections: at the least it is {least:.1f} times."
    return [
        "\n".join(lines),
        f"{verdict} The figures of 2023 were times and these are CPU, so only the ratio compares.",
    ]


ENDING = """## What these figures do not show

Client and server share a few cores, so a server that leaves more to the client looks better than it would alone, and
a tail of some milliseconds is the scheduler's. The whole run, with memory, other works and the servers that had no part
in the claims, is in the report beside this page."""
