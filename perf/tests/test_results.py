"""From rows to medians, goals, report and plots; and the order of a run."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from spvnperf import cli, goals, plots, report, runner, stats, svg, works
from spvnperf.errors import PerfError
from spvnperf.servers import SERVERS, Launch
from spvnperf.summary import summarize


def row(server, round_number, cpu, rate, **more):
    return {
        **{"work": "hello", "title": "hello", "kind": "wrk", "size": 64, "workers": 1, "server": server},
        **{"round": round_number, "cpu_us": cpu, "user_us": cpu / 2, "system_us": cpu / 2, "rate": rate, "errors": {}},
        "threads": [{"comm": "python", "pid": 1, "tid": 1, "main": True, "us": cpu / 4}],
        "latency": {"mean": 2, "p50": 1, "p90": 2, "p99": 3, "p99.9": 4, "max": 5},
        "rss": 2**20,
        "pss": 2**20,
        "busy": 0.5,
        **more,
    }


def results(*rows):
    return {
        **{"name": "quick", "started": "2026-01-02T03:04:05", "revision": "abc", "versions": {"uvicorn": "1"}},
        "machine": {"cpu": "X", "cores": 2, "virtual": True, "memory_gb": 4, "system": "S", "kernel": "K"},
        "settings": {"backlog": 4096, "rounds": 3, "seconds": 2, "load_cpus": None, "wrk_threads": 1},
        "commands": {"spvn": "spvn APP"},
        "rows": list(rows),
    }


def test_median_and_spread():
    assert stats.median([3, 1, 2]) == 2
    assert stats.median([]) is None
    assert stats.spread([9, 10, 11]) == pytest.approx(0.2)
    assert stats.spread([10]) is None


def test_an_entry_with_errors_is_no_record():
    clean, dirty = summarize(results(row("spvn", 0, 7, 100), row("peregrine", 0, 9, 90, errors={"read": 2})))
    assert clean.clean and not dirty.clean
    assert dirty.errors == {"read": 2}


def test_a_failed_round_is_left_out_of_the_median():
    (entry,) = summarize(results(row("spvn", 0, 7, 100), {**row("spvn", 1, 0, 0), "failed": "it ended"}))
    assert entry.get("cpu_us") == 7
    assert entry.failed == "it ended" and not entry.clean


def verdicts(*rows):
    return {v.goal.text: v.met for v in goals.judge(summarize(results(*rows)))}


def test_goals_hold_or_do_not():
    text = "hello at 64: CPU per call at most 0.90 of peregrine's"
    assert verdicts(row("spvn", 0, 8.9, 1), row("peregrine", 0, 10, 1))[text] is True
    assert verdicts(row("spvn", 0, 9.1, 1), row("peregrine", 0, 10, 1))[text] is False
    assert verdicts(row("spvn", 0, 9.1, 1))[text] is None
    assert verdicts(row("spvn", 0, 5, 1, errors={"read": 1}), row("peregrine", 0, 10, 1))[text] is False
    every = "hello at 64: calls/s above every rival"
    assert verdicts(row("spvn", 0, 1, 100), row("weft", 0, 1, 99), row("granian", 0, 1, 101))[every] is False


def test_report_and_plots(tmp_path):
    data = results(
        row("spvn", 0, 7, 100_000),
        row("uvicorn", 0, 17, 60_000, errors={"timeout": 3}),
        {**row("weft", 0, 0, 0), "failed": "the server ended with 1 | before it answered"},
    )
    paths = plots.write(summarize(data), tmp_path / "quick")
    assert {path.name for path in paths} == {"hello-64.svg", "hello-64-latency.svg"}
    for path in paths:
        ElementTree.parse(path)
    page = report.render(data, paths, tmp_path)
    assert "**3 timeout**" in page
    assert "not measured: the server ended with 1 \\| before it answered" in page
    assert "![hello-64](quick/hello-64.svg)" in page


def test_lines_without_points():
    ElementTree.fromstring(svg.lines("a < b", [], x_label="x", y_label="y"))


def test_every_round_starts_with_another_server():
    rows = list(runner.plan([works.BY_NAME["answer10k"]], 2, {"spvn", "uvicorn", "granian"}))
    order = [(number, server.name) for _, number, server in rows]
    assert order == [(0, "spvn"), (0, "uvicorn"), (0, "granian"), (1, "uvicorn"), (1, "granian"), (1, "spvn")]


def test_every_command_line_names_app_port_and_backlog(tmp_path):
    for server in SERVERS:
        line = " ".join(server.command(Launch(tmp_path, "apps:hello", 23456, 2, 4096)))
        assert "apps:hello" in line and "23456" in line and "4096" in line, server.name


def test_quick_takes_about_five_minutes():
    rows = list(runner.plan(works.quick(), 3, {server.name for server in SERVERS}))
    assert runner.estimate(rows, 2) < 330


def test_unknown_names_are_told(capsys):
    with pytest.raises(PerfError, match="no such server: nginx"):
        cli.choose(cli.parser().parse_args(["--servers", "nginx"]))
    assert cli.main(["--works", "nothing", "--plan"]) == 1
    assert "no such work: nothing" in capsys.readouterr().err


def test_a_part_of_the_rows_does_not_take_the_place_of_a_whole_run():
    def where(*arguments):
        output = cli.default_output(cli.parser().parse_args(arguments), "full")
        return str(output.relative_to(cli.HERE))

    assert where() == where("--rounds", "5") == "results/full"
    assert where("--works", "await", "--merge") == "results/full"
    assert where("--check") == where("--works", "await") == where("--servers", "spvn") == "out/part"


def test_rows_are_saved_one_by_one(tmp_path):
    runner.save({"rows": [1]}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"rows": [1]}


def broken(context, server, cell, round_number):
    if server.name == "uvicorn":
        raise ProcessLookupError(3, "No such process")
    return {"errors": {}, "rate": 5.0}


def test_a_rival_that_breaks_does_not_end_the_run(monkeypatch, capsys):
    monkeypatch.setitem(runner.KINDS, "wrk", broken)
    rows = list(runner.plan([works.BY_NAME["fastapi"]], 1, {"spvn", "uvicorn", "granian"}))
    rows += list(runner.plan([works.BY_NAME["await"]], 1, {"spvn"}))
    found = {"started": "now", "rows": []}
    kept = []
    runner.run(None, rows, found, lambda ended: kept.append((len(found["rows"]), ended)))
    assert [row.get("failed") for row in found["rows"]] == [
        None,
        "ProcessLookupError: [Errno 3] No such process",
        None,
        None,
    ]
    assert kept == [(1, False), (2, False), (3, True), (4, True)]
    assert "FAILED" in capsys.readouterr().err


def test_a_later_run_takes_the_place_of_what_it_measured_again():
    run = {"revision": "abc", "rounds": 3, "seconds": 2}
    earlier = {**results(row("spvn", 0, 9, 1), row("spvn", 1, 9, 1), row("weft", 0, 8, 1)), "runs": {"one": run}}
    again = {**results(row("spvn", 0, 7, 2)), "runs": {"two": run}, "versions": {"spvn": "2"}, "commands": {}}
    for number, part in (("one", earlier), ("two", again)):
        part["rows"] = [{**one, "run": number} for one in part["rows"]]
    merged = runner.merge(earlier, again)
    assert [(entry.server, entry.get("cpu_us"), len(entry.rows)) for entry in summarize(merged)] == [
        ("weft", 8, 1),
        ("spvn", 7, 1),
    ]
    assert merged["versions"] == {"uvicorn": "1", "spvn": "2"} and set(merged["runs"]) == {"one", "two"}
    assert set(runner.merge({**earlier, "rows": earlier["rows"][:2]}, again)["runs"]) == {"two"}


def test_cost_is_flat_or_it_says_where_not():
    costs = {1: 50, 64: 7, 512: 7.5, 10000: 8.7}
    rows = [row("spvn", 0, cost, 1, size=size) for size, cost in costs.items()]
    flat = goals.flatness(summarize(results(*rows[1:])))
    assert flat is not None and flat.met and flat.worst == 10000
    assert not goals.flatness(summarize(results(*rows))).met
    assert goals.flatness(summarize(results(*rows[:2]))) is None
    page = report.render(results(*rows), [], Path("."))
    assert "**does not hold** at 1 |" in page and "| 50.0 (7.14) |" in page


def test_the_scaling_estimate_is_of_the_python_thread():
    threads = [
        {"comm": "spvn", "pid": 1, "tid": 2, "main": False, "us": 4.5},
        {"comm": "spvn", "pid": 1, "tid": 1, "main": True, "us": 2.0},
    ]
    page = report.render(results(row("spvn", 0, 6.5, 1, threads=threads)), [], Path("."))
    assert "| hello | 64 | 6.50 | 2.00 | 4.50 | 500,000 |" in page


def test_rows_of_several_runs_are_told():
    rows = row("spvn", 0, 7, 1, run="2026-01-03T10:00:00"), row("weft", 0, 8, 1, run="2026-01-02T10:00:00")
    data = {**results(*rows), "runs": {one["run"]: {"revision": "abc", "rounds": 3, "seconds": 2} for one in rows}}
    page = report.render(data, [], Path("."))
    assert "Not of one run, so not interleaved (spvn: 2026-01-03T10:00; weft: 2026-01-02T10:00)." in page


def test_thousands_of_connections_are_measured_longer():
    seconds = {cell.size: cell.seconds(2) for cell in works.BY_NAME["hello"].cells()}
    assert seconds == {1: 2, 64: 2, 512: 2, 5000: 4, 10000: 4}
    assert {cell.seconds(2) for cell in works.BY_NAME["burst"].cells()} == {2}


def overloaded(size, goodput, light_us, recovery_ms):
    return {
        **row("spvn", 0, 7, 100, errors={"read: timeout": 9}),
        **{"work": "overload-before", "kind": "overload", "size": size, "goodput": goodput, "recovery_ms": recovery_ms},
        "light": {"latency": {"p50": light_us}},
    }


def test_the_worst_rate_decides_about_overload():
    entries = summarize(results(overloaded(400, 0.97, 9_000, 0), overloaded(2000, 0.89, 60_000, 1200)))
    (worst,) = goals.overload(entries)
    assert (worst.goodput, worst.light_us, worst.recovery_ms) == (0.89, 60_000, 1200)
    assert report.goals_section(entries).count("**does not hold**") == 3
    assert report.goals_section(entries[:1]).count("| holds |") == 3
