"""Timers for apps: run a function every so often, or once after a while.

>>> from spvn import schedule
>>> @schedule.every(60)                      # by one of the workers
... async def clean_up(): ...
>>> @schedule.every(5, on="all")             # by each worker
... def reload_settings(): ...
>>> schedule.after(30, send_mail, "to@example.com")   # once, by any worker

The timers live in spvn's core: they outlive the worker that asked for them, and each due
time is run at most once. `docs/scheduling.md` has the rules.

Where a timer belongs: what is set while an app serves (in its start-up, a call or another
timer) belongs to that server; what is set while modules are imported belongs to every
server that is started in this process afterwards. Without a server nothing runs
periodically, so that importing a module in a test starts nothing, and `after` runs on
the running event loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import pickle
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

from spvn import _timers
from spvn._timers import Registration

__all__ = ["Firing", "Timer", "after", "cancel", "every", "firing"]

F = TypeVar("F", bound=Callable[..., Any])

_MIN_INTERVAL = 0.001
_MAX_SECONDS = 100 * 365 * 86400.0
_MAX_KEY = 1024
_MAX_DATA = 64 << 10


class Timer:
    """A timer that was set. `key` is its name; `cancel()` ends it."""

    def __init__(self, key: str, local: bool) -> None:
        self.key = key
        self.local = local
        self._handle: asyncio.TimerHandle | None = None  # without a server

    def cancel(self) -> None:
        """Run it no more, in any worker. What has begun goes on; a timer that is over is no error."""
        if self._handle is not None:
            self._handle.cancel()
        cancel(self.key, local=self.local)

    def __repr__(self) -> str:
        return f"<spvn timer {self.key!r}>"


class Firing(NamedTuple):
    """One due time of a timer, as `firing()` tells it.

    `number` counts the timer's due times from 1, those that were missed included, and is the same in every worker:
    (key, number) names the run. It begins anew when the server does, or when the timer is changed.
    """

    key: str
    number: int
    due: float
    """When it was due, as time.time() counts."""


def firing() -> Firing | None:
    """The due time that the running code was started for; None outside of a timer."""
    current = _timers.current_firing.get()
    return None if current is None else Firing(*current)


@overload
def every(
    interval: float,
    fn: Callable[[], Any],
    *,
    on: str = ...,
    key: str | None = ...,
    first: float | None = ...,
    jitter: float = ...,
    overlap: bool = ...,
    local: bool = ...,
) -> Timer: ...
@overload
def every(
    interval: float,
    fn: None = None,
    *,
    on: str = ...,
    key: str | None = ...,
    first: float | None = ...,
    jitter: float = ...,
    overlap: bool = ...,
    local: bool = ...,
) -> Callable[[F], F]: ...
def every(
    interval: float,
    fn: Callable[[], Any] | None = None,
    *,
    on: str = "one",
    key: str | None = None,
    first: float | None = None,
    jitter: float = 0.0,
    overlap: bool = False,
    local: bool = False,
) -> Any:
    """Run a function every `interval` seconds. Without `fn` it is a decorator, which returns the function as it is.

    Args:
        interval: Seconds between due times, 0.001 at the least. They do not drift: the next one counts from the last
            one, not from the end of its run.
        fn: Called without arguments. A coroutine function runs on the worker's loop, any other one in a thread.
            An exception is logged (`spvn.error`), and the timer goes on.
        on: "one": each due time is run by one worker, at most once. "all": by each worker that has set the timer.
        key: The timer's name; by default the function's module and qualified name, such as "shop.jobs:clean_up".
            Setting a key again replaces its timer; setting the same timer again changes nothing.
        first: Seconds until the first due time; by default `interval`.
        jitter: Each run starts up to so many seconds later than due, at random.
        overlap: Start a run although the one before has not ended; by default that due time is skipped, which is
            logged.
        local: The timer is this worker's own and ends with it; its due times go to this worker only.

    Raises:
        TypeError: fn cannot be called.
        ValueError: A time is out of range; or the function has no name that could be its key.
    """
    if on not in ("one", "all"):
        raise ValueError(f'on must be "one" or "all", got {on!r}')
    interval = _seconds("interval", interval, _MIN_INTERVAL)
    first = interval if first is None else _seconds("first", first)
    jitter = _seconds("jitter", jitter)
    if jitter >= interval:
        raise ValueError(f"jitter must be less than the interval of {interval:g} seconds, got {jitter:g}")
    if fn is None:
        return functools.partial(
            _decorate, interval, on=on, key=key, first=first, jitter=jitter, overlap=overlap, local=local
        )
    if not callable(fn):
        raise TypeError(f"every() needs a function, got {fn!r}")
    registration = Registration(
        key=_key(fn) if key is None else _check_key(key),
        fn=fn,
        data=b"",
        interval=interval,
        first=first,
        jitter=jitter,
        all=on == "all",
        overlap=bool(overlap),
        local=bool(local),
        any=False,
        asked=time.monotonic(),
    )
    _timers.register(registration)
    return Timer(registration.key, registration.local)


def _decorate(interval: float, fn: F, **options: Any) -> F:
    every(interval, fn, **options)
    return fn


def after(delay: float, fn: Callable[..., Any], /, *args: Any, key: str | None = None, local: bool = False) -> Timer:
    """Run a function once, `delay` seconds from now, with these arguments.

    Any worker may run it, also when the one that asked has died or was replaced by then; so the function must be
    importable by its name and the arguments picklable (64 KiB at the most). For keyword arguments use
    functools.partial. It is run at most once: if the worker that has begun it dies, it is not run again; and it is
    forgotten when the server stops.

    Args:
        delay: Seconds; 0 means soon.
        fn: A coroutine function runs on the worker's loop, any other one in a thread. An exception is logged.
        args: Its arguments.
        key: A name: a later call with the same key takes the place of this one, which is how a delay is extended. By
            default each call is one of its own.
        local: Run it in this worker or, if that has ended, not at all; then fn and args may be anything.

    Raises:
        TypeError: fn cannot be called, or it or an argument cannot be pickled.
        ValueError: The delay is out of range, or the arguments are too large.
        RuntimeError: No server and no event loop runs here.
    """
    delay = _seconds("delay", delay)
    if not callable(fn):
        raise TypeError(f"after() needs a function, got {fn!r}")
    key = f"after:{uuid.uuid4().hex}" if key is None else _check_key(key)
    data = b"" if local else _pickle(fn, args)
    timer = Timer(key, bool(local))
    scheduler = _timers.current()
    if scheduler is None:
        timer._handle = _after_on_loop(key, delay, functools.partial(fn, *args))
        return timer
    registration = Registration(
        key=key,
        fn=functools.partial(fn, *args) if local else None,
        data=data,
        interval=0.0,
        first=delay,
        jitter=0.0,
        all=False,
        overlap=False,
        local=bool(local),
        any=not local,
        asked=time.monotonic(),
    )
    scheduler.register(registration)
    return timer


def cancel(key: str, *, local: bool = False) -> None:
    """Cancel the timer with this key, in all workers; local=True: this worker's own timer of that key.

    What has begun goes on. A key that nobody has set is no error.
    """
    _timers.cancel(_check_key(key), local)


def _after_on_loop(key: str, delay: float, call: Callable[[], Any]) -> asyncio.TimerHandle:
    """Without a server, as in a test that calls the app directly: the running loop does it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "after() was called where no server runs: call it while the app serves (in a call, in its start-up, in "
            "a timer), not while its modules are imported; in a test, call it with an event loop running"
        ) from None
    return loop.call_later(delay, _timers.run_detached, loop, key, call)


def _seconds(name: str, value: float, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number of seconds, got {value!r}")
    if not least <= value <= _MAX_SECONDS:
        raise ValueError(f"{name} must be between {least:g} and {_MAX_SECONDS:g} seconds, got {value:g}")
    return float(value)


def _check_key(key: str) -> str:
    if not isinstance(key, str) or not key or len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY:
        raise ValueError(f"key must be a text of 1 to {_MAX_KEY} bytes, got {key!r:.100}")
    return key


def _key(fn: Callable[..., Any]) -> str:
    """The function's module and qualified name, where they say which one it is."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    bound = inspect.ismethod(fn) and not inspect.isclass(fn.__self__)
    if not module or not name or "<lambda>" in name or bound:
        raise ValueError(f"{fn!r} has no name of its own that could be the timer's key: give it one, as key=...")
    return _check_key(f"{module}:{name}")


def _pickle(fn: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        data = pickle.dumps((fn, args), protocol=4)
    except Exception as exc:
        raise TypeError(
            f"after() cannot hand {fn!r} and its arguments to another worker ({exc}): use a function that can be "
            "imported by its name and arguments that can be pickled, or local=True"
        ) from exc
    if len(data) > _MAX_DATA:
        raise ValueError(f"after(): the arguments take {len(data)} bytes and may take {_MAX_DATA}")
    return data
