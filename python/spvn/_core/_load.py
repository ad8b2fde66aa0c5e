"""Loads the core's library, once, in a way that keeps it out of Python's affairs.

- Signals belong to Python. Go's threads inherit the signal mask of the thread that loads the library, so signals
  that can come from outside are blocked meanwhile: a SIGTERM then always finds a Python thread. Not blocked are those
  that a thread causes itself (a fault), and SIGURG, with which Go's scheduler interrupts its own threads.
- Go's monitor thread sleeps for 20 us at a time, over and over, for some milliseconds after each time that the process
  was idle: a server that is called now and then spent five times as much on it as on the calls. Threads inherit how
  late the kernel may wake them, so that is milliseconds meanwhile; the core's poll loops set it back for themselves.
- Go does not survive a fork: in the child none of its threads runs, and a call could wait for one for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

_STAYS_UNBLOCKED = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGPROF", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGURG"}

_SLACK = 4_000_000  # ns; the monitor's longest sleep is 10 ms


def _set_timer_slack(nanoseconds: int) -> int | None:
    """Set this thread's (PR_SET_TIMERSLACK) and return what it was; None where only the main thread's can be had."""
    if threading.get_native_id() != os.getpid():
        return None
    slack = Path("/proc/self/timerslack_ns")
    try:
        before = int(slack.read_text())
        slack.write_text(str(nanoseconds))
    except (OSError, ValueError):
        return None  # it only saves CPU
    return before


_slack_before = _set_timer_slack(_SLACK)
_before = signal.pthread_sigmask(
    signal.SIG_BLOCK,
    {s for s in signal.valid_signals() if not (isinstance(s, signal.Signals) and s.name in _STAYS_UNBLOCKED)},
)
try:
    from . import _core as _core
except ImportError as _error:
    raise ImportError(
        f"spvn's core could not be loaded: {_error}. Was spvn built for this Python? "
        f"`{sys.executable} -m pip install --force-reinstall --no-deps spvn` builds it again"
    ) from None
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before)
    if _slack_before is not None:
        _set_timer_slack(_slack_before)


class _Forked:
    """Stands in for the library in a forked child."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(
            "spvn's core is running in the parent of this process and cannot be used after a fork: "
            "start a new interpreter instead (subprocess, or multiprocessing's spawn)"
        )


def _after_fork() -> None:
    control = sys.modules.get("spvn._core.control")
    if control is not None:
        vars(control)["_core"] = _Forked()


os.register_at_fork(after_in_child=_after_fork)
