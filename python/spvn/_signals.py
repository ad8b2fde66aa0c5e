"""Signals for the servers of this process: SIGINT, SIGTERM, and those of who asks for more.

One set of handlers serves them all: it is installed with the first server that runs in
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

from spvn import _forks

HANDLED = (signal.SIGINT, signal.SIGTERM)

_listeners: list[tuple[Callable[[int], None], tuple[int, ...]]] = []
_previous: dict[int, Any] = {}
_captured: list[int] = []


@contextlib.contextmanager
def captured(
    loop: asyncio.AbstractEventLoop,
    listener: Callable[[int], None],
    numbers: tuple[int, ...] = HANDLED,
    *,
    pass_on: bool,
) -> Generator[None, None, None]:
    """Call `listener` on the loop with each signal of `numbers` that arrives meanwhile.

    pass_on: afterwards raise a captured SIGINT or SIGTERM again for a handler that had been there before (asyncio's
    own, or the program's), so that Ctrl-C ends a program that a server is only a part of. The default action of
    SIGTERM, which would kill the program before it could clean up, does not count as a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _listeners:
        _captured.clear()
    for number in numbers:
        if number not in _previous:
            _install(loop, number)
    _forks.keep_out(_previous)
    entry = (listener, numbers)
    _listeners.append(entry)
    try:
        yield
    finally:
        _listeners.remove(entry)
        if not _listeners:
            _restore(loop, pass_on)


def is_default(number: int) -> bool:
    """Whether nobody but a server of this process handles this signal, and it is not ignored."""
    return _previous.get(number, signal.getsignal(number)) is signal.SIG_DFL


def _install(loop: asyncio.AbstractEventLoop, number: int) -> None:
    _previous[number] = signal.getsignal(number)
    try:
        loop.add_signal_handler(number, _handle, number)
    except NotImplementedError:  # a loop of the user's that knows no signals
        signal.signal(number, lambda number, frame: _handle(number))


def _handle(number: int) -> None:
    _captured.append(number)
    for listener, numbers in list(_listeners):
        if number in numbers:
            listener(number)


def _restore(loop: asyncio.AbstractEventLoop, pass_on: bool) -> None:
    previous, numbers = dict(_previous), list(dict.fromkeys(_captured))
    _previous.clear()
    _forks.keep_out(())
    for number, handler in previous.items():
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(number)
        # None: a handler that was not installed from Python, which cannot be put back from here.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if pass_on:
        for number in reversed(numbers):
            if number in HANDLED and callable(previous.get(number)):
                signal.raise_signal(number)
