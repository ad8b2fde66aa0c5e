"""A worker's side of the app's timers: who has set what, and how it is run.

Rules:
- The core keeps the time; a Scheduler is told what is due by its link and says when it has
  run. Everything in it belongs to its worker's loop; register() and cancel() may be called
  from any thread.
- Until its worker is ready a Scheduler only remembers, so that a start-up that fails sets
  nothing. Delays are counted from the moment that the app asked.
- The functions of timers that were set while nothing served are in `_imported`: every
  Scheduler that starts in this process sets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import inspect
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from spvn._threads import DaemonThreads

if TYPE_CHECKING:
    from spvn._asgi import Link

logger = logging.getLogger("spvn.error")

_LOCAL = b"local "  # no pickle begins like this
_THREADS = min(32, (os.cpu_count() or 1) + 4)  # as concurrent.futures has it


@dataclasses.dataclass(frozen=True)
class Registration:
    """A timer as the app has set it; times are seconds."""

    key: str
    fn: Callable[[], Any] | None
    """None: `data` says it all."""
    data: bytes
    interval: float
    """0: once."""
    first: float
    jitter: float
    all: bool
    overlap: bool
    local: bool
    any: bool
    asked: float
    """When, by time.monotonic()."""
    serial: int = dataclasses.field(default_factory=itertools.count(1).__next__)

    @property
    def core_data(self) -> bytes:
        """What the core gives back when it is due. Of a function that only this worker has: which one it is."""
        if not self.local:
            return self.data
        return _LOCAL if self.interval else _LOCAL + b"%d" % self.serial


current_firing: contextvars.ContextVar[tuple[str, int, float] | None] = contextvars.ContextVar(
    "spvn_firing", default=None
)
_current: contextvars.ContextVar[Scheduler | None] = contextvars.ContextVar("spvn_scheduler", default=None)
_lock = threading.Lock()
_schedulers: list[Scheduler] = []  # of the workers in this process; guarded by _lock
_imported: dict[tuple[str, bool], Registration] = {}  # guarded by _lock


def current() -> Scheduler | None:
    """The scheduler of the worker that the calling code belongs to, as far as that can be known.

    Calls and timers carry it in their context; else the running loop tells; a thread without either belongs to the
    only worker of this process, if it is the only one.
    """
    scheduler = _current.get()
    if scheduler is not None and not scheduler.closed:
        return scheduler
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    with _lock:
        if loop is not None:
            return next((scheduler for scheduler in _schedulers if scheduler.loop is loop), None)
        return _schedulers[0] if len(_schedulers) == 1 else None


def register(registration: Registration) -> None:
    """Set a timer where it belongs: in the current worker, or in those that are to come."""
    scheduler = current()
    if scheduler is not None:
        scheduler.register(registration)
    else:
        with _lock:
            _imported[registration.key, registration.local] = registration


def cancel(key: str, local: bool) -> None:
    """Cancel a timer where it belongs."""
    scheduler = current()
    if scheduler is not None:
        scheduler.cancel(key, local)
    else:
        with _lock:
            _imported.pop((key, local), None)


def run_detached(loop: asyncio.AbstractEventLoop, key: str, call: Callable[[], Any]) -> None:
    """Run a function as a timer does, without a server: in a task, or in the loop's own pool."""

    async def run() -> None:
        try:
            if _is_async(call):
                await call()
            else:
                result = await loop.run_in_executor(None, contextvars.copy_context().run, call)
                if inspect.isawaitable(result):
                    await result
        except Exception as exc:
            _log(key, exc)

    task = loop.create_task(run())
    _detached.add(task)
    task.add_done_callback(_detached.discard)


_detached: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly


class Scheduler:
    """The timers of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self._link: Link | None = None
        self._thread = threading.get_ident()
        self._set: dict[tuple[str, bool], Registration] = {}
        self._waiting: list[Callable[[], None]] | None = []  # until the worker is ready
        self._running: dict[asyncio.Task[None], tuple[int, str]] = {}
        self._pool: DaemonThreads | None = None
        with _lock:
            for registration in _imported.values():
                self._waiting.append(self._setter(registration))
            _schedulers.append(self)

    def enter(self, context: contextvars.Context) -> None:
        """Have code that runs in this context, and in copies of it, belong to this worker."""
        context.run(_current.set, self)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The same for the code in the block and the tasks that it starts."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def bind(self, link: Link) -> None:
        """Use this link, whose on_timer is `due`."""
        self._link = link

    def start(self) -> None:
        """Set in the core what was asked for so far: the worker is about to say that it is ready."""
        waiting, self._waiting = self._waiting, None
        for call in waiting or ():
            call()

    def register(self, registration: Registration) -> None:
        """Set a timer. From any thread."""
        self._do(self._setter(registration))

    def cancel(self, key: str, local: bool) -> None:
        """Cancel a timer. From any thread."""

        def do() -> None:
            self._set.pop((key, local), None)
            if self._link is not None:
                self._link.timer_cancel(_encode(key), local=local)

        self._do(do)

    def _setter(self, r: Registration) -> Callable[[], None]:
        def do() -> None:
            if r.fn is not None:
                self._set[r.key, r.local] = r
            if self._link is None:
                return
            # What an import asked for begins with the worker; a delay counts from when the app asked.
            first = r.first if r.interval else max(0.0, r.first - (time.monotonic() - r.asked))
            self._link.timer_set(
                _encode(r.key),
                r.core_data,
                r.interval,
                first,
                r.jitter,
                all=r.all,
                overlap=r.overlap,
                local=r.local,
                any=r.any,
            )

        return do

    def _do(self, call: Callable[[], None]) -> None:
        if self.closed:
            return
        if threading.get_ident() != self._thread:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._guarded, call)
        else:
            self._guarded(call)

    def _guarded(self, call: Callable[[], None]) -> None:
        if self.closed:
            return
        if self._waiting is not None:
            self._waiting.append(call)
            return
        try:
            call()
        except OSError:
            pass  # the link is closed: the worker is about to end

    # What is due.

    def due(self, id: int, number: int, due: float, key: bytes, data: bytes) -> None:
        """Run what the core says is due: the link's on_timer. Returns at once."""
        name = _decode(key)
        context = contextvars.copy_context()
        context.run(_current.set, self)
        context.run(current_firing.set, (name, number, due))
        try:
            call = self._function(name, data)
        except Exception as exc:
            _log(name, exc)
            self._say_done(id, True)
            return
        task = context.run(self.loop.create_task, self._run(call))
        self._running[task] = id, name
        task.add_done_callback(self._ended)

    async def _run(self, call: Callable[[], Any]) -> None:
        try:
            await self._run_any(call)
        except (SystemExit, KeyboardInterrupt) as exc:
            # In a task they would end the loop, with all that runs in it.
            raise RuntimeError(f"a timer cannot end the process by {type(exc).__name__}") from exc

    async def _run_any(self, call: Callable[[], Any]) -> None:
        if _is_async(call):
            await call()
            return
        if self._pool is None:
            self._pool = DaemonThreads(_THREADS, "spvn-timer")
        result = await self.loop.run_in_executor(self._pool, contextvars.copy_context().run, call)
        if inspect.isawaitable(result):  # a plain function that returns a coroutine
            await result

    def _function(self, key: str, data: bytes) -> Callable[[], Any]:
        """What is to be called."""
        local = data.startswith(_LOCAL)
        if data and not local:
            import pickle  # most apps have no timers

            fn, args = pickle.loads(data)  # written by a worker of this app: see schedule._pickle
            return functools.partial(fn, *args)
        registration = self._set.get((key, local))
        if registration is None or registration.fn is None or registration.core_data != data:
            return _nothing  # cancelled or replaced as it was on its way
        if not registration.interval:
            del self._set[key, local]
        return registration.fn

    def _ended(self, task: asyncio.Task[None]) -> None:
        id, name = self._running.pop(task)
        exc = None if task.cancelled() else task.exception()
        if exc is not None:
            _log(name, exc)
        self._say_done(id, task.cancelled() or exc is not None)

    def _say_done(self, id: int, failed: bool) -> None:
        if self._link is not None and not self.closed:
            with contextlib.suppress(OSError):  # the link is closed
                self._link.timer_done(id, failed)

    # The end.

    def cancel_running(self) -> int:
        """Cancel the runs that go on; returns how many. A thread cannot be cancelled: it is left behind."""
        for task in self._running:
            task.cancel()
        return len(self._running)

    @property
    def running(self) -> int:
        """How many runs go on."""
        return len(self._running)

    def close(self) -> None:
        """Run and set nothing any more."""
        self.closed = True
        with _lock:
            if self in _schedulers:
                _schedulers.remove(self)
        self.cancel_running()
        if self._pool is not None:
            self._pool.shutdown()
        self._link = None
        self._set.clear()
        self._waiting = None


async def _nothing() -> None:
    pass


def _unwrapped(call: Any) -> Any:
    """What is called in the end."""
    while isinstance(call, functools.partial):
        call = call.func
    return call


def _is_async(call: Any) -> bool:
    target = _unwrapped(call)
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)


def _encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _decode(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


def _log(key: str, exc: BaseException) -> None:
    logger.error("Exception in the timer %r\n", key, exc_info=exc)
