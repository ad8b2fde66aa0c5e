"""What a process tree used, from /proc: CPU of the tree and of each thread, resident memory.

A process ends and its CPU moves into its parent's `cutime` when it is reaped, so the sum of utime, stime, cutime and
cstime over the living tree loses nothing of a child that came or went in between. See proc_pid_stat(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that matter here; times in seconds."""

    comm: str
    user: float
    system: float
    reaped_user: float
    reaped_system: float


def parse_stat(text: str) -> Stat:
    """Parses a stat line. The name may contain spaces and parentheses, so it ends at the last one."""
    comm = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    user, system, reaped_user, reaped_system = (int(value) / TICK for value in fields[11:15])
    return Stat(comm, user, system, reaped_user, reaped_system)


@dataclass(frozen=True)
class ThreadKey:
    pid: int
    tid: int
    comm: str


@dataclass
class Usage:
    """A snapshot of a tree; `a - b` is what happened between two. Seconds of CPU."""

    user: float = 0.0
    system: float = 0.0
    threads: dict[ThreadKey, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, before: Usage) -> Usage:
        threads = {}
        for key, seconds in self.threads.items():
            same = next((s for k, s in before.threads.items() if (k.pid, k.tid) == (key.pid, key.tid)), 0.0)
            threads[key] = seconds - same
        return Usage(self.user - before.user, self.system - before.system, threads)


def tree(root: int) -> list[int]:
    """The pids of root and all its living descendants; root first. Empty if root is gone."""
    found: list[int] = []
    pending = [root]
    while pending:
        pid = pending.pop(0)
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        found.append(pid)
        for task in tasks:
            try:
                pending += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def usage(root: int) -> Usage:
    """CPU of root's tree until now. A process that vanishes while it is read is left out."""
    total = Usage()
    for pid in tree(root):
        try:
            stat = parse_stat(Path(f"/proc/{pid}/stat").read_text())
            total.user += stat.user + stat.reaped_user
            total.system += stat.system + stat.reaped_system
            for task in Path(f"/proc/{pid}/task").iterdir():
                seconds, comm = _thread(task)
                total.threads[ThreadKey(pid, int(task.name), comm)] = seconds
        except OSError:
            continue
    return total


def _thread(task: Path) -> tuple[float, str]:
    """CPU seconds and name of a thread; schedstat counts nanoseconds where the kernel has it, stat only ticks."""
    stat = parse_stat((task / "stat").read_text())
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9, stat.comm
    except (OSError, IndexError, ValueError):
        return stat.user + stat.system, stat.comm


@dataclass(frozen=True)
class Memory:
    """Bytes over a process tree. rss counts a shared page once per process, pss once in all."""

    rss: int
    pss: int


def parse_smaps_rollup(text: str) -> Memory:
    values = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            values[name] = int(rest.split()[0]) * 1024
    return Memory(values.get("Rss", 0), values.get("Pss", 0))


def memory(root: int) -> Memory:
    """Resident memory of root's tree now."""
    rss = pss = 0
    for pid in tree(root):
        try:
            one = parse_smaps_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except OSError:
            continue
        rss += one.rss
        pss += one.pss
    return Memory(rss, pss)


def listening_backlog(port: int) -> int | None:
    """The backlog the kernel gave the listener on 127.0.0.1:port, by `ss -ltn`; None where ss is not there."""
    import subprocess

    try:
        out = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    sizes = [int(line.split()[2]) for line in out.splitlines() if len(line.split()) > 3]
    return min(sizes) if sizes else None
