"""The core: spvn's Go half, which owns the sockets.

Importing this package loads nothing. The library, with Go's runtime and its threads, is loaded when the first
function is asked for:

    >>> from spvn import _core
    >>> _core.Version()                 # loads it
    '{"version": "0.1.0"}'

The functions are those of the Go package control, bound by gopy (tools/bindings.py): ints and JSON texts in, a JSON
text out, RuntimeError with the core's words when a call fails. They return at once and may be called from any thread.
A process that was forked after the library was loaded cannot use it, and every function says so there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .control import (
        AddWorker,
        Drain,
        Events,
        RemoveWorker,
        Start,
        Stats,
        Stop,
        Version,
        Watch,
        WatchWorker,
        WorkerGone,
    )

__all__ = [
    "AddWorker",
    "Drain",
    "Events",
    "RemoveWorker",
    "Start",
    "Stats",
    "Stop",
    "Version",
    "Watch",
    "WatchWorker",
    "WorkerGone",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import control

    return getattr(control, name)
