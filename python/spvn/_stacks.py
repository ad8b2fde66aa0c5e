"""Where this process's Python code is, for who asks the core.

faulthandler writes the stacks of all threads into a pipe when a signal comes. Its handler is
C and takes no lock, so it answers also while the event loop is blocked, or another
extension keeps the interpreter to itself.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading

STACK_SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""Makes a process write its stacks: the last real-time signal, which hardly any app uses."""

_lock = threading.Lock()
_pipe: tuple[int, int] | None = None


def pipe() -> int:
    """The read end of this process's pipe of stacks, which does not block; made by the first call, never closed."""
    global _pipe
    with _lock:
        if _pipe is None:
            _pipe = os.pipe()
            for end in _pipe:
                os.set_blocking(end, False)  # a full pipe must never stop the process
            faulthandler.register(STACK_SIGNAL, file=_pipe[1], all_threads=True, chain=False)
        return _pipe[0]
