"""The command line: which servers, works and sizes, how long, and where the results go."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import claims, environment, machine, plots, publish, report, runner, works
from .context import Context
from .errors import PerfError
from .servers import HERE, SERVERS, Launch
from .summary import summarize


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="perf/run.py",
        description="Measures spvn beside its rivals: same app, same flags, interleaved rounds."
        " Results are JSON, a Markdown report and SVG plots.",
    )
    p.add_argument(
        "--quick", action="store_true", help="five minutes: raw hello and 10 KB echo at 1, 64 and 512 connections"
    )
    p.add_argument("--servers", type=names, metavar="A,B", help="only these (default: those each work names)")
    p.add_argument("--works", type=names, metavar="A,B", help="only these works")
    p.add_argument("--connections", type=numbers, metavar="N,M", help="these sizes instead of each work's own")
    p.add_argument("--rounds", type=positive(int), default=3, help="interleaved rounds (default: 3)")
    p.add_argument(
        "--seconds", type=positive(float), default=2, help="length of a measurement; wrk rounds it up (default: 2)"
    )
    p.add_argument("--warmup", type=positive(float), default=0.4, help="seconds of calls before it (default: 0.4)")
    p.add_argument("--backlog", type=positive(int), default=4096, help="every server's --backlog (default: 4096)")
    p.add_argument("--wrk-threads", type=positive(int), default=1, help="threads of wrk (default: 1)")
    p.add_argument(
        "--pin",
        choices=("auto", "apart", "off"),
        default="auto",
        help="own processors for the client (auto: from 4 on)",
    )
    p.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="results without suffix (default: perf/results/quick or .../full; for a part of either perf/out/part)",
    )
    p.add_argument(
        "--env", type=Path, default=HERE / ".env", help="the servers' virtual environment (default: perf/.env)"
    )
    p.add_argument("--python", help="interpreter for that environment (default: Python 3.13 where there is one)")
    p.add_argument(
        "--merge",
        action="store_true",
        help="keep what the results have of earlier runs, except the rows that are measured again",
    )
    p.add_argument("--list", action="store_true", help="list servers and works, and stop")
    p.add_argument("--plan", action="store_true", help="print the rows in order and about how long they take, and stop")
    p.add_argument("--check", action="store_true", help="only start every server once with its flags and ask one call")
    p.add_argument(
        "--render", type=Path, metavar="JSON", help="render the report and plots of earlier results again, and stop"
    )
    p.add_argument(
        "--publish", type=Path, metavar="JSON", help="the same, and the parts of README.md and docs/ made from results"
    )
    return p


def names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def numbers(value: str) -> tuple[int, ...]:
    return tuple(positive(int)(number) for number in names(value))


def positive(kind: Any) -> Any:
    def convert(value: str) -> Any:
        number = kind(value)
        if number <= 0:
            raise argparse.ArgumentTypeError(f"{value} is not above 0")
        return number

    convert.__name__ = kind.__name__
    return convert


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return command(options)
    except PerfError as error:
        print(f"perf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("perf: interrupted", file=sys.stderr)
        return 130


def command(options: argparse.Namespace) -> int:
    if options.list:
        return show_list()
    if options.render or options.publish:
        source = options.render or options.publish
        results = json.loads(source.read_text())
        print(f"report: {render(results, source)}", file=sys.stderr)
        for page in publish.publish(results, source.resolve()) if options.publish else ():
            print(f"written again: {page}", file=sys.stderr)
        return 0
    chosen, selected = choose(options)
    rows = list(runner.plan(selected, options.rounds, chosen))
    if not rows:
        raise PerfError("nothing to measure: none of these works names one of these servers")
    about = runner.estimate(rows, options.seconds)
    if options.plan:
        for cell, round_number, server in rows:
            print(f"{cell.label:<20} round {round_number + 1}  {server.name}")
        print(f"{len(rows)} rows, about {about / 60:.0f} minutes")
        return 0
    name = "quick" if options.quick else "full"
    output = (options.output or default_output(options, name)).with_suffix(".json")
    limit = machine.raise_descriptor_limit()
    largest = max(cell.connections for cell, _, _ in rows)
    if largest + 200 > limit:
        raise PerfError(
            f"{largest:,} connections need more than the {limit:,} open files allowed;"
            " raise ulimit -n or give fewer with --connections"
        )
    needed = {server.name for _, _, server in rows}
    where = environment.prepare(options.env.resolve(), options.python, with_spvn="spvn" in needed)
    context = make_context(options, where)
    results = describe(options, name, where, needed, context)
    keep = keeper(results, output, merge=options.merge)
    print(f"{len(rows)} rows, about {about / 60:.0f} minutes; results go to {output}", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server that is being measured is stopped first
    try:
        runner.run(context, rows, results, keep)
    finally:
        if results["rows"]:
            keep(True)
            print(f"report: {output.with_suffix('.md')}", file=sys.stderr)
    return 0


def default_output(options: argparse.Namespace, name: str) -> Path:
    """Where results go unless told: those of a whole run are kept, and nothing less takes their place unasked."""
    part = options.check or options.works or options.servers or options.connections
    return HERE / "out" / "part" if part and not options.merge else HERE / "results" / name


def keeper(results: dict[str, Any], output: Path, *, merge: bool) -> Callable[[bool], None]:
    """What writes the results, alone or in the place of those rows of earlier ones that were measured again."""
    earlier = json.loads(output.read_text()) if merge and output.exists() else None
    if earlier is not None and "runs" not in earlier:
        raise PerfError(f"{output} is of an older harness: nothing can be merged into it")

    def keep(with_report: bool) -> None:
        whole = runner.merge(earlier, results) if earlier else results
        runner.save(whole, output)
        if with_report:
            render(whole, output)

    return keep


def choose(options: argparse.Namespace) -> tuple[set[str], list[works.Work]]:
    """The servers and works of the run."""
    everything = {server.name for server in SERVERS}
    chosen = set(options.servers or everything)
    if chosen - everything:
        raise PerfError(
            f"no such server: {', '.join(sorted(chosen - everything))}; there are {', '.join(sorted(everything))}"
        )
    selected = [works.STARTS] if options.check else works.quick() if options.quick else works.full()
    if options.works:
        unknown = set(options.works) - set(works.BY_NAME)
        if unknown:
            raise PerfError(f"no such work: {', '.join(sorted(unknown))}; there are {', '.join(works.BY_NAME)}")
        pool = {work.name: work for work in selected} if options.quick else works.BY_NAME
        selected = [pool.get(name, works.BY_NAME[name]) for name in options.works]
    if options.servers:  # who names servers wants them in every work
        ordered = tuple(server.name for server in SERVERS if server.name in chosen)
        selected = [replace(work, servers=ordered) for work in selected]
    if options.connections:
        selected = [work if work.kind == "startup" else replace(work, sizes=options.connections) for work in selected]
    return chosen, selected


def make_context(options: argparse.Namespace, where: environment.Environment) -> Context:
    server_cpus, load_cpus = machine.split_cpus(options.pin)
    return Context(
        bin=where.bin,
        load=where.load,
        scratch=HERE / "out",
        seconds=options.seconds,
        warmup=options.warmup,
        backlog=options.backlog,
        wrk_threads=options.wrk_threads,
        server_cpus=server_cpus,
        load_cpus=load_cpus,
    )


def describe(
    options: argparse.Namespace, name: str, where: environment.Environment, needed: set[str], context: Context
) -> dict[str, Any]:
    """Everything about the run that is not a row."""
    example = Launch(Path(""), "APP", 8000, 1, options.backlog)
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    revision = environment.revision()
    settings = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "warmup": options.warmup,
        "backlog": options.backlog,
        "wrk_threads": options.wrk_threads,
        "server_cpus": context.server_cpus,
        "load_cpus": context.load_cpus,
    }
    return {
        "name": name,
        "started": started,
        "machine": machine.describe(),
        "versions": environment.versions(where),
        "revision": revision,
        "settings": settings,
        "runs": {started: {"revision": revision, "rounds": options.rounds, "seconds": options.seconds}},
        "commands": {
            server.name: " ".join(server.command(example))
            .replace(f"{HERE}{os.sep}", "")
            .replace(str(HERE), ".")
            .replace("./", "", 1)
            for server in SERVERS
            if server.name in needed
        },
        "rows": [],
    }


def render(results: dict[str, Any], output: Path) -> Path:
    """Writes the report and the plots beside the results."""
    folder = output.parent
    charts = plots.write(summarize(results), folder / output.stem)
    page = output.with_suffix(".md")
    page.write_text(report.render(results, charts, folder))
    again = claims.render(results)
    if again:
        output.with_name(f"{output.stem}-claims-2023.md").write_text(again)
    return page


def show_list() -> int:
    print("servers:")
    for server in SERVERS:
        print(f"  {server.name:<16}{server.note}")
    print("works:")
    for work in works.WORKS:
        sizes = ", ".join(f"{size:,}" for size in work.sizes)
        print(f"  {work.name:<16}{work.title} ({sizes})")
    return 0
