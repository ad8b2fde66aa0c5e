"""Event loops: which one, and how a coroutine is run on it from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from spvn.errors import AppError, ConfigError
from spvn.importer import import_attribute

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
T = TypeVar("T")


def loop_factory(name: str) -> LoopFactory:
    """What makes loops of this name: auto, asyncio, uvloop, none (asyncio's default policy), or "module:factory".

    Raises ConfigError when there is no such loop.
    """
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    if name == "none":
        return asyncio.new_event_loop
    if name in ("auto", "uvloop"):
        try:
            import uvloop
        except ImportError:
            if name == "auto":
                return asyncio.SelectorEventLoop
            raise ConfigError("--loop", "uvloop is not installed: pip install uvloop, or use --loop asyncio") from None
        return cast(LoopFactory, uvloop.new_event_loop)
    if ":" not in name:
        raise ConfigError("--loop", f"{name!r} is not auto, asyncio, uvloop, none or MODULE:FACTORY")
    try:
        factory = import_attribute(name)
    except AppError as exc:
        raise ConfigError("--loop", str(exc)) from exc
    if not callable(factory):
        raise ConfigError("--loop", f"{name} is a {type(factory).__name__}, which cannot be called")
    return cast(LoopFactory, factory)


_calls: dict[asyncio.AbstractEventLoop, Callable[[BaseException], bool]] = {}


def calls_raise(loop: asyncio.AbstractEventLoop, raised: Callable[[BaseException], bool] | None) -> None:
    """Have run() go on where an exception ended the loop's run that a call raised, as this function says; None: never.

    A task keeps no SystemExit and no KeyboardInterrupt to itself (asyncio.Task), and the others are not to end with it.
    """
    if raised is None:
        _calls.pop(loop, None)
    else:
        _calls[loop] = raised


def run(main: Callable[[], Coroutine[Any, Any, T]], factory: LoopFactory) -> T:
    """Run main()'s coroutine on a new loop, then cancel what it left behind and close the loop.

    main itself is called with the loop set but not running, so that a module it imports may call asyncio.run(), and
    may make a lock or a queue (which bind to the current loop as they are made, on Python 3.9). asyncio.run would
    take over SIGINT, and takes a loop factory only from Python 3.12 on.
    """
    loop = factory()
    try:
        asyncio.set_event_loop(loop)
        task = loop.create_task(main())
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as exc:
                raised = _calls.get(loop)
                if task.done() or raised is None or not raised(exc):
                    raise
    finally:
        try:
            _cancel_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {"message": "unhandled exception while the server stopped", "exception": task.exception(), "task": task}
            )
