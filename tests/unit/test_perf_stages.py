"""`make perf-micro` runs: every stage of a call gives a figure. Which one is no matter of a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PERF = Path(__file__).resolve().parents[2] / "perf"


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("go") is None, reason="no go: half of the stages are benchmarks of Go packages")
def test_every_stage_runs() -> None:
    command = [sys.executable, str(PERF / "micro.py"), "--smoke", "--json", "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    assert set(stages) == set(json.loads((PERF / "stages" / "budgets.json").read_text()))
    assert all(nanoseconds > 0 for nanoseconds in stages.values()), stages
