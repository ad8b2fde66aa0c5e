"""The Autobahn testsuite as a client of an echo.

It needs Python 2.7, so it is not installed by itself: python2.7 -m pip install autobahntestsuite, and
SPVN_WSTEST=.../bin/wstest if that is not on the PATH. Groups 1 to 7 and 10 take ten seconds; SPVN_SOAK=1
adds 9, 12 and 13, which take twelve minutes.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess

import pytest

WSTEST = os.environ.get("SPVN_WSTEST") or shutil.which("wstest")
GROUPS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
LARGE = ["9.*", "12.*", "13.*"]

# Where the verdict is not OK, and why.
LATE = (
    "A good message comes together with a frame that breaks the rules. The connection is failed at once (RFC 6455"
    " 7.1.7), before the app, on its own thread, has sent its echo of the first."
)
OTHERWISE = {
    "3.[234]": ("NON-STRICT", LATE),
    "4.[12].[345]": ("NON-STRICT", LATE),
    "5.15": ("NON-STRICT", LATE),
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


@pytest.mark.skipif(WSTEST is None, reason="no wstest: python2.7 -m pip install autobahntestsuite")
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
