"""Processes that the app forks are not the server: signals to them are their own business.

Without this asyncio would hand such a signal to the process that forked, which shares the wake-up descriptor: a
multiprocessing pool that ends its processes would end the server, and they would not end. The signals are blocked
around the fork, because one may come at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable

_numbers: tuple[int, ...] = ()  # the signals that this process handles now
_mask = threading.local()
_registered = False


def keep_out(numbers: Iterable[int]) -> None:
    """From now on forked processes have the default actions for these signals; none: no fork is looked at."""
    global _numbers, _registered
    _numbers = tuple(numbers)
    if not _registered and _numbers:
        os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
        _registered = True


def _before() -> None:
    _mask.numbers = _numbers
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _numbers)


def _after() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _in_child() -> None:
    with contextlib.suppress(ValueError):  # a sub-interpreter
        if _mask.numbers:
            signal.set_wakeup_fd(-1)
        for number in _mask.numbers:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _after()
