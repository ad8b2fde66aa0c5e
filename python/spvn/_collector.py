"""Python's garbage collector in a process that does nothing but serve.

Objects of calls that wait are looked at by every collection of the youngest generation, which comes after so few new
ones that a server with hundreds of calls in flight spends a tenth of its time on it. What the app has built when its
start-up is done stays for good, and a full collection that looks at it is a pause in the middle of somebody's call.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def settled(threshold: int) -> Generator[None]:
    """Freeze what is there, and collect the young only after `threshold` new objects, until the end of the block.

    0, a collector that was switched off and a threshold that the app itself has made higher stay as they are.
    """
    youngest, *older = gc.get_threshold()
    if threshold == 0 or youngest == 0 or not gc.isenabled():
        yield
        return
    gc.freeze()
    gc.set_threshold(max(threshold, youngest), *older)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(youngest, *older)
