"""SIGINT and SIGTERM for the servers of this process.

One pair of handlers serves them all: it is installed with the first server that runs in
the main thread and taken away with the last. Python allows handlers in the main thread
only, so a server in another thread has none and is stopped by its `should_exit`.

The handlers are the loop's own (add_signal_handler): a plain signal.signal handler may run
late, because a signal that comes just before the loop's system call does not interrupt it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)

_listeners: list[Callable[[int], None]] = []
_previous: dict[int, Any] = {}
_captured: list[int] = []


@contextlib.contextmanager
def captured(
    loop: asyncio.AbstractEventLoop, listener: Callable[[int], None], *, pass_on: bool
) -> Generator[None, None, None]:
    """Call `listener` on the loop with each signal that arrives meanwhile.

    pass_on: afterwards raise what was captured again for a handler that had been there before (asyncio's own, or the
    program's), so that Ctrl-C ends a program that a server is only a part of. The default action of SIGTERM, which
    would kill the program before it could clean up, does not count as a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _listeners:
        _captured.clear()
        for number in HANDLED:
            _previous[number] = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, _handle, number)
            except NotImplementedError:  # a loop of the user's that knows no signals
                signal.signal(number, lambda number, frame: _handle(number))
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
        if not _listeners:
            _restore(loop, pass_on)


def _handle(number: int) -> None:
    _captured.append(number)
    for listener in _listeners:
        listener(number)


def _restore(loop: asyncio.AbstractEventLoop, pass_on: bool) -> None:
    previous, numbers = dict(_previous), list(dict.fromkeys(_captured))
    _previous.clear()
    for number, handler in previous.items():
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(number)
        # None: a handler that was not installed from Python, which cannot be put back from here.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if pass_on:
        for number in reversed(numbers):
            if callable(previous.get(number)):
                signal.raise_signal(number)
