"""What is generated and committed is what the generators write today."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{ROOT / '.tools'}{os.pathsep}{os.environ.get('PATH', '')}"
BINDINGS = [
    "gosrc/core/core.go",
    "gosrc/core/core.c",
    "python/spvn/_core/control.py",
    "python/spvn/_core/_core.pyi",
]


def go() -> str:
    found = shutil.which("go", path=PATH)
    if found is None:
        pytest.skip("there is no go on PATH: type `make test`, which brings one")
    return found


def test_bindings_are_current(tmp_path):
    for tool in ("gopy", "goimports"):
        if shutil.which(tool, path=PATH) is None:
            pytest.skip(f"{tool} is not there: type `make tools`")
    if importlib.util.find_spec("pybindgen") is None:
        pytest.skip("pybindgen is not there: type `pip install pybindgen`")
    go()
    command = [sys.executable, str(ROOT / "tools/bindings.py"), "--root", str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    stale = [name for name in BINDINGS if (ROOT / name).read_text() != (tmp_path / name).read_text()]
    assert not stale, "gosrc/control has changed since: type `make generate`"


def test_schema_is_current(tmp_path):
    schema = ["gosrc/link/schema.go", "python/_asgi/schema.h"]
    shutil.copytree(ROOT / "gosrc/link/schemagen", tmp_path / "gosrc/link/schemagen")
    shutil.copy(ROOT / "gosrc/link/schema.json", tmp_path / "gosrc/link")
    shutil.copy(ROOT / "go.mod", tmp_path)
    (tmp_path / "python/_asgi").mkdir(parents=True)
    env = dict(os.environ, PATH=PATH, GOFLAGS="-mod=mod", GOWORK="off")
    command = [go(), "run", "./gosrc/link/schemagen"]
    done = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    stale = [name for name in schema if (ROOT / name).read_text() != (tmp_path / name).read_text()]
    assert not stale, "gosrc/link/schema.json has changed since: type `make generate`"


def test_bindings_carry_nothing_of_the_machine_that_made_them():
    for name in BINDINGS:
        text = (ROOT / name).read_text()
        for word in ("-rpath", "-lpython", "#cgo LDFLAGS", "chdir", "setdlopenflags", "gc.callbacks", str(ROOT)):
            assert word not in text, f"{name} has {word}"
