"""Where the tests get spvn._asgi from: the file in SPVN_ASGI, else the installed one, else one that is built here."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

SOURCES = Path(__file__).resolve().parents[2] / "python" / "_asgi"
NAME = "spvn._asgi"


def build(directory: Path, *flags: str) -> Path:
    """Compiles the extension for this interpreter into a directory."""
    target = directory / ("_asgi" + sysconfig.get_config_var("EXT_SUFFIX"))
    compiler = shlex.split(os.environ.get("CC", "cc"))
    include = "-I" + sysconfig.get_paths()["include"]
    options = ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-cast-function-type", "-shared", "-fPIC"]
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    subprocess.run([*compiler, *options, *flags, include, *sources, "-o", str(target)], check=True)
    return target


def from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
    return module


def load() -> ModuleType:
    if NAME in sys.modules:
        return sys.modules[NAME]
    if "SPVN_ASGI" in os.environ:
        return from_file(Path(os.environ["SPVN_ASGI"]))
    try:
        return importlib.import_module(NAME)
    except ImportError:
        return from_file(build(Path(tempfile.mkdtemp(prefix="spvn-asgi-"))))
