"""Threads for work that may never end: nobody waits for them when the process does.

concurrent.futures has the interpreter join its threads at the end, so that one function that hangs would keep a
server from stopping. These are daemons; else they are as those.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class DaemonThreads(Executor):
    """An executor of up to so many threads, started as they are needed."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._started = 0  # guarded by _lock, as is what is put after shutdown()
        self._closed = False
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot start a function after shutdown")
            if not self._idle.acquire(blocking=False) and self._started < self._most:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{self._started + 1}", daemon=True)
                try:
                    thread.start()
                    self._started += 1
                except RuntimeError:
                    if not self._started:
                        raise
            self._work.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the threads end once they have nothing to do. They are never waited for."""
        with self._lock:
            self._closed = True
            for _ in range(self._started):
                self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as exc:
                    future.set_exception(exc)
            del item, future, call  # a thread that waits keeps nothing alive
            self._idle.release()
