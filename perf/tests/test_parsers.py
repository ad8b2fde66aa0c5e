"""What the harness reads from wrk, the load client and /proc."""

import os
import subprocess
import sys
import time

import pytest

from spvnperf import load, procfs, wrk
from spvnperf.errors import RowError

WRK_OUTPUT = """Running 1s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
Requests/sec:  37016.10
SPVNPERF {"calls":40718,"microseconds":1100008,"bytes":5374776,"connect":0,"read":3,"write":0,"status":7,"timeout":0,\
"p50":1622,"p90":2011,"p99":3654,"p99.9":5120,"max":6011,"mean":1702.4}
"""

STAT = "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 1500 20 0 0 {user} {system} {cuser} {csystem} 20 0 1 0 100 0 0"


def test_wrk_summary():
    calls, seconds, errors, latency = wrk.parse(WRK_OUTPUT)
    assert (calls, seconds) == (40718, 1.100008)
    assert errors == {"read": 3, "status": 7}
    assert latency == {"mean": 1702.4, "p50": 1622, "p90": 2011, "p99": 3654, "p99.9": 5120, "max": 6011}


def test_wrk_without_summary():
    with pytest.raises(RowError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:8000 Connection refused")


def test_wrk_script_posts_what_it_is_given():
    assert "wrk.method" not in wrk.script()
    assert 'string.rep("x", 10240)' in wrk.script(body=10240)
    assert '[=[{"a":1}]=]' in wrk.script(text='{"a":1}')
    for script in (wrk.script(), wrk.script(body=1)):
        assert "{{" not in script and wrk.MARK in script


def test_load_report_is_the_last_line():
    assert load.parse('{"event":"open"}\n{"ok":3}\n') == {"ok": 3}
    with pytest.raises(RowError, match="no report"):
        load.parse("")


def test_load_problems_are_everything_but_200():
    report = {"ok": 5, "errors": {"read: reset": 2}, "status": {"503": 1}, "unsent": 4}
    assert load.problems(report) == {"read: reset": 2, "status 503": 1, "unsent": 4}
    assert load.problems({"ok": 5, "errors": {}, "status": {}, "unsent": 0}) == {}


def test_stat_with_parentheses_in_the_name():
    stat = procfs.parse_stat(STAT.format(user=250, system=50, cuser=10, csystem=20))
    assert stat.comm == "a (b) c"
    tick = procfs.TICK
    assert (stat.user, stat.system) == (250 / tick, 50 / tick)
    assert (stat.reaped_user, stat.reaped_system) == (10 / tick, 20 / tick)


def test_smaps_rollup():
    text = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:    20480 kB\nPss:    10240 kB\nPss_Dirty:  1 kB\n"
    assert procfs.parse_smaps_rollup(text) == procfs.Memory(20480 * 1024, 10240 * 1024)


def test_usage_of_a_tree_counts_a_child_that_ended():
    burn = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('done', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "done\n"
            used = procfs.usage(process.pid)
            assert used.total >= 0.19
            assert process.pid in procfs.tree(process.pid)
            assert procfs.memory(process.pid).rss > 1 << 20
        finally:
            process.kill()


def test_usage_difference_by_thread():
    before = procfs.usage(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    used = procfs.usage(os.getpid()) - before
    assert used.total >= 0.03
    assert max(used.threads.values()) >= 0.03
