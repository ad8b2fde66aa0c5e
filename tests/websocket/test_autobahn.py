"""The Autobahn testsuite as a client of an echo.

`make tools` installs it where there is a Python 2.7, which it needs; SPVN_WSTEST=.../bin/wstest names another.
Groups 1 to 7, 9 and 10, and small cases of 12 and 13, take half a minute; `make soak` runs all of 12 and 13, which
take ten. test_cases.py has the same cases without it.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
WSTEST = os.environ.get("SPVN_WSTEST") or shutil.which("wstest") or shutil.which("wstest", path=str(TOOLS))
GROUPS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
GROUPS += ["12.1.1", "12.2.5", *(f"13.{i}.3" for i in range(1, 8))]
LARGE = ["12.*", "13.*"]

# Where the verdict is not OK, and why.
OTHERWISE = {
    "7.1.6": ("INFORMATIONAL", "There is no rule."),
    "7.13.[12]": ("INFORMATIONAL", "There is no rule for close codes of 5000 and more; they are refused with 1002."),
    "13.[35].*": (
        "UNIMPLEMENTED",
        "The offer wants a server window of 512 bytes. Go's compressor has none; it is declined (RFC 7692 7.1.2.1).",
    ),
}


def expected(case: str) -> set[str]:
    for pattern, (verdict, _) in OTHERWISE.items():
        if fnmatch.fnmatchcase(case, pattern):
            return {"OK", verdict}
    return {"OK"}


@pytest.fixture
def transport():
    return "poll"


@pytest.mark.skipif(WSTEST is None, reason="no wstest: make tools, with a Python 2.7")
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("cases", [GROUPS, pytest.param(LARGE, marks=pytest.mark.soak)])
def test_autobahn(ws_serve, tmp_path, cases):
    server = ws_serve()
    (tmp_path / "spec.json").write_text(
        json.dumps(
            {
                "outdir": str(tmp_path / "reports"),
                "servers": [{"agent": "spvn", "url": f"ws://127.0.0.1:{server.port}/echo"}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    command = [WSTEST, "-m", "fuzzingclient", "-s", "spec.json"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=1400)
    report = json.loads((tmp_path / "reports" / "index.json").read_text())["spvn"]
    assert report
    wrong = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in report.items()
        if result["behavior"] not in expected(case) or result["behaviorClose"] not in ("OK", "INFORMATIONAL")
    }
    assert not wrong, wrong
