"""Runs a load generator, bounded in time, and says how much CPU it used."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import RowError
from .process import pinned


@dataclass(frozen=True)
class Finished:
    """What a client printed. cpu is in seconds; busy is the share of one core that it used."""

    stdout: str
    stderr: str
    cpu: float
    wall: float

    @property
    def busy(self) -> float:
        return self.cpu / self.wall if self.wall else 0.0


def run(command: list[str], limit: float, cpus: Sequence[int] | None = None) -> Finished:
    """Runs a client to its end. Raises RowError when it fails or takes longer than limit seconds."""
    before = os.times()
    started = time.perf_counter()
    try:
        done = subprocess.run(
            pinned(command, cpus), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise RowError(f"{command[0]} was not done after {limit:.0f} s") from None
    except OSError as error:
        raise RowError(f"{command[0]} does not run: {error}") from None
    after = os.times()
    if done.returncode != 0:
        raise RowError(f"{command[0]} failed with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Finished(done.stdout, done.stderr, cpu, time.perf_counter() - started)
