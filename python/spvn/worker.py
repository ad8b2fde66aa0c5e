"""A worker: an app, its lifespan, and the loop's end of a link.

The same code runs in the process of the core and in a child process; who made the link,
and who tells the worker to stop, is the caller's business. Everything here happens on the
worker's loop.

Order: start() attaches the link and runs the app's start-up, and only then says READY;
calls that came earlier wait in the core. stop() cancels what still runs, runs the app's
shutdown and says STOPPED. close() lets go of the link, at the very end, when the core has
acknowledged that it uses it no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spvn import loops, wsgi
from spvn._timers import Scheduler
from spvn._types import ASGIApp
from spvn.core import LinkDescriptors
from spvn.errors import StartupFailed
from spvn.lifespan import Lifespan

if TYPE_CHECKING:
    from spvn._asgi import Link

logger = logging.getLogger("spvn.error")

# A cancelled call may clean up for this long before it is left behind.
_CANCEL_SECONDS = 5.0


def _link_type() -> type[Link]:
    from spvn._asgi import Link  # only a process that serves needs the extension

    return Link


class Worker:
    """One event loop at the end of one link.

    `on_control` gets "drain" and "stop" when the core sends these records, and "corrupt" when the link is found broken:
    the worker is of no use from then on. `alone` says that the server has no other worker.
    """

    def __init__(
        self,
        app: ASGIApp | wsgi.App,
        descriptors: LinkDescriptors,
        *,
        lifespan: str = "auto",
        asgi_version: str = "3.0",
        root_path: str = "",
        reset_contextvars: bool = False,
        alone: bool = False,
        on_control: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.id = descriptors.worker
        self._descriptors = descriptors
        self._loop = asyncio.get_running_loop()
        # Every call runs in a copy of this context.
        context = contextvars.Context() if reset_contextvars else contextvars.copy_context()
        self._threads: wsgi.Threads | None = None
        served: Any = app
        if isinstance(app, wsgi.App):
            self._threads = wsgi.Threads(app, context, root_path=root_path)
            served, lifespan = self._threads.pool, "off"  # WSGI has no lifespan
        self._lifespan = Lifespan(served, lifespan, asgi_version)
        self._scheduler = Scheduler(self._loop)
        try:
            self._link = _link_type()(
                descriptors.memfd,
                descriptors.bell,
                descriptors.loop_bells,
                served,
                self._loop,
                root_path=root_path,
                state=self._lifespan.state,
                on_error=log_error,
                on_control=on_control,
                on_timer=self._scheduler.due,
                alone=alone,
                address=descriptors.address,
            )
        except BaseException:
            self._scheduler.close()
            _close_all(descriptors)
            raise
        loops.calls_raise(self._loop, self._link.raised)
        self._scheduler.bind(self._link)
        self._scheduler.enter(context)
        # A call's task copies the context that this reader was added in.
        context.run(self._loop.add_reader, descriptors.bell, self._link.drain)

    @property
    def calls(self) -> int:
        """Calls, and runs of timers, that the app has begun and not ended."""
        return self._link.calls + self._scheduler.running

    async def start(self) -> None:
        """Run the app's start-up and say READY. Raises StartupFailed, of which the core was told."""
        try:
            with self._scheduler.entered():
                await self._lifespan.startup()
        except StartupFailed as exc:
            self._link.start_failed(str(exc))
            raise
        if self._threads is not None:
            self._threads.start()
        self._scheduler.start()
        self._link.ready()

    async def finish(self) -> None:
        """Wait until the app has ended every call and every run of a timer."""
        pause = 0.001
        while self.calls:
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    async def stop(self) -> None:
        """Cancel what still runs, run the app's shutdown and say STOPPED."""
        if self.calls:
            cancelled = self._link.cancel() + self._scheduler.cancel_running()
            logger.error("Cancel %d running task(s), timeout graceful shutdown exceeded", cancelled)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.finish(), _CANCEL_SECONDS)
        await self._lifespan.shutdown()
        self._link.stopped()

    def abort(self) -> None:
        """Cancel everything, the app's lifespan too, and wait for nothing."""
        self._link.cancel()
        self._scheduler.cancel_running()
        self._lifespan.abandon()

    async def clean_up(self, seconds: float) -> None:
        """Behind abort(): give the app's lifespan so long for its `finally` blocks."""
        await self._lifespan.abandoned(seconds)

    def close(self) -> None:
        """Let go of the link: detach, then close its descriptors, so that no late call writes to a reused one."""
        self._loop.remove_reader(self._descriptors.bell)
        loops.calls_raise(self._loop, None)
        self._scheduler.close()
        self._link.detach()
        if self._threads is not None:
            self._threads.close()
        _close_all(self._descriptors)


def log_error(kind: str, exc: BaseException | None, request_line: str) -> None:
    """Log what went wrong in the app, with the request line."""
    if kind == "incomplete":
        logger.error('ASGI application returned without completing its answer: "%s"', request_line)
    else:
        logger.error('Exception in ASGI application: "%s"\n', request_line, exc_info=exc)


def _close_all(descriptors: LinkDescriptors) -> None:
    for descriptor in descriptors.all():
        with contextlib.suppress(OSError):
            os.close(descriptor)
