"""When a worker has served long enough: calls, memory, time, each with some chance in it.

The chance keeps workers that started together from ending together; that never two are
replaced at once is the supervisor's part.
"""

from __future__ import annotations

import random
from typing import Any

from spvn.config import Config

_EARLIER = 0.1


class Limits:
    """The limits of one worker."""

    def __init__(self, config: Config) -> None:
        self._calls: int | None = None
        if config.limit_max_requests is not None:
            self._calls = config.limit_max_requests + random.randint(0, config.limit_max_requests_jitter)
        self._rss = _a_little_less(config.limit_max_rss)
        self._lifetime = _a_little_less(config.worker_lifetime)

    def reached(self, pid: int, calls: int, lived: float) -> str | None:
        """Which limit a worker has reached that began so many calls and has been ready for so many seconds."""
        if self._calls is not None and calls >= self._calls:
            return f"{calls} calls"
        if self._lifetime is not None and lived >= self._lifetime:
            return f"{lived:.0f} s of life"
        if self._rss is not None:
            used = anonymous_memory(pid)
            if used >= self._rss:
                return f"{used >> 20} MiB of memory"
        return None


def limited(config: Config) -> bool:
    """Whether workers have any limit."""
    return any(limit is not None for limit in (config.limit_max_requests, config.limit_max_rss, config.worker_lifetime))


def calls_of(stats: dict[str, Any], worker: int) -> int:
    """How many calls a worker has begun, from the core's counters."""
    for entry in stats.get("worker_list") or []:
        if entry.get("worker") == worker:
            return int(entry.get("claimed_total") or 0)
    return 0


def anonymous_memory(pid: int) -> int:
    """Bytes of resident memory that a process shares with no file and no link: RssAnon in proc(5). 0 if unknown."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _a_little_less(limit: float | None) -> float | None:
    return None if limit is None else limit * (1 - _EARLIER * random.random())
