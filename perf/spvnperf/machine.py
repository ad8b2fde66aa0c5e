"""The machine that figures belong to, and which of its processors go to whom."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """What a reader needs to judge the figures; no name or address of the machine."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "system": distribution(),
        "virtual": "hypervisor" in read("/proc/cpuinfo"),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "somaxconn": int(read("/proc/sys/net/core/somaxconn") or 0),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def cpu_model() -> str:
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def distribution() -> str:
    for line in read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def raise_descriptor_limit() -> int:
    """Lifts the soft limit on open files to the hard one, for us and all we start; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def split_cpus(mode: str) -> tuple[Sequence[int] | None, Sequence[int] | None]:
    """Processors for the server and for the client: (None, None) when they share.

    "auto" pins them apart on four processors or more (a quarter, at least two, for the client), "apart" also on two,
    "off" never.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if mode == "off" or (mode == "auto" and len(cpus) < 4) or len(cpus) < 2:
        return None, None
    for_load = max(1 if len(cpus) < 4 else 2, len(cpus) // 4)
    return cpus[:-for_load], cpus[-for_load:]
