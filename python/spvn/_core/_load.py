"""Loads the core's library, once, in a way that keeps it out of Python's affairs.

- Signals belong to Python. Go's threads inherit the signal mask of the thread that loads the library, so signals
  that can come from outside are blocked meanwhile: a SIGTERM then always finds a Python thread. Not blocked are those
  that a thread causes itself (a fault), and SIGURG, with which Go's scheduler interrupts its own threads.
- Go does not survive a fork: in the child none of its threads runs, and a call could wait for one for ever.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_STAYS_UNBLOCKED = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGPROF", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGURG"}

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
