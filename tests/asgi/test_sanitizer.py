"""All of these tests once more, in a process whose extension is built with AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from . import extension

INSIDE = "SPVN_SANITIZED"


@pytest.mark.timeout(900)
@pytest.mark.skipif(INSIDE in os.environ, reason="this is that process")
def test_under_address_sanitizer(tmp_path: Path) -> None:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        found = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        if not os.path.isabs(found):
            pytest.skip(f"{compiler[0]} has no {name}")
        libraries.append(os.path.realpath(found))
    built = extension.build(tmp_path, "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-O1")
    environment = {
        **os.environ,
        INSIDE: "1",
        "SPVN_ASGI": str(built),
        "LD_PRELOAD": " ".join(libraries),
        # The interpreter itself leaks on purpose; its allocator hides what the sanitizer should see.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    here = Path(__file__).parent
    tests = [str(here), str(here.parent / "wsgi" / "test_link.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]
