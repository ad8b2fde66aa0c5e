"""The core's library in a process: loaded late, and without a trace on what belongs to Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spvn
from spvn import _core

ROOT = Path(__file__).resolve().parents[2]


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_importing_spvn_does_not_load_it():
    assert run("import spvn, spvn._core; print('_core.cpython' in open('/proc/self/maps').read())") == "False\n"


def test_the_first_function_loads_it():
    out = run("import spvn._core as c; c.Version(); print('_core.cpython' in open('/proc/self/maps').read())")
    assert out == "True\n"


def test_it_has_no_second_http_and_no_tls():
    # All of a package's initialisation is linked in with it, used or not, and resident in every process that serves.
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}")
    if go is None:
        pytest.skip("there is no go on PATH: type `make test`, which brings one")
    command = [go, "list", "-tags=python", "-deps", "./gosrc/core"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert not {"net/http", "crypto/tls", "crypto/sha1", "regexp", "text/template"} & set(done.stdout.split())


def test_every_function_of_the_control_plane_is_there():
    source = (ROOT / "python/spvn/_core/control.py").read_text()
    assert sorted(re.findall(r"^def (\w+)", source, re.MULTILINE)) == _core.__all__


def test_an_attribute_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _core.Nothing  # noqa: B018


def test_its_threads_take_no_signal_of_the_process():
    code = """
import os, signal, spvn._core
spvn._core.Version()
assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "the mask of the loading thread is not restored"
for task in os.listdir("/proc/self/task"):
    if int(task) != os.getpid():
        line = next(l for l in open(f"/proc/self/task/{task}/status") if l.startswith("SigBlk"))
        print(*(int(line.split()[1], 16) >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT)))
"""
    assert set(run(code).splitlines()) == {"1 1"}


def test_sigpipe_stays_ignored():
    code = """
import os, signal, spvn._core
spvn._core.Version()
r, w = os.pipe()
os.close(r)
try:
    os.write(w, b"x")
except BrokenPipeError:
    ignored = next(l for l in open("/proc/self/status") if l.startswith("SigIgn"))
    print(int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1)
"""
    assert run(code) == "1\n"


def test_it_hooks_nothing():
    code = """
import gc, os, sys
before = list(gc.callbacks), os.getcwd(), sys.getdlopenflags()
import spvn._core
spvn._core.Version()
print((list(gc.callbacks), os.getcwd(), sys.getdlopenflags()) == before)
"""
    assert run(code) == "True\n"


def test_a_forked_child_is_told():
    code = """
import os, spvn._core
spvn._core.Version()
child = os.fork()
if child == 0:
    try:
        spvn._core.Version()
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert "cannot be used after a fork" in run(code)


def test_an_error_of_the_core_is_a_runtime_error():
    with pytest.raises(RuntimeError):
        _core.Start("this is not JSON")


def test_a_text_that_c_cannot_hold():
    with pytest.raises(ValueError):
        _core.Start("\0")


def test_its_version_is_the_package_s():
    assert json.loads(_core.Version())["version"] == spvn.__version__
