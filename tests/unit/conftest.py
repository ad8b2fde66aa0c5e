from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from spvn import core, worker

from . import fakes

PYTHON = str(Path(__file__).parents[2] / "python")


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> fakes.FakeFunctions:
    """The fake core that servers of this test get."""
    made = fakes.FakeFunctions()
    use(monkeypatch, made)
    return made


def use(monkeypatch: pytest.MonkeyPatch, functions: fakes.FakeFunctions) -> None:
    link = type("Link", (fakes.FakeLink,), {"functions": functions})
    monkeypatch.setattr(core, "load", lambda: core.Core(functions))
    monkeypatch.setattr(worker, "_link_type", lambda: link)


@pytest.fixture(autouse=True)
def no_options_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SPVN_", "UVICORN_")) or name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("spvn", "spvn.error", "spvn.access", "spvn.asgi")]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


Spvn = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def spvn(tmp_path: Path) -> Spvn:
    """Run the command line in an empty directory; `files` are put there first."""

    def run(
        *arguments: str, files: dict[str, str] | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        for name, text in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SPVN_", "UVICORN_"))}
        clean.pop("WEB_CONCURRENCY", None)
        clean.update({"PYTHONPATH": PYTHON, "COLUMNS": "80", **(env or {})})
        return subprocess.run(
            [sys.executable, "-m", "spvn", *arguments],
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
