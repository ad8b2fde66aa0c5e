"""One server in this process: the core, and one worker on the running loop.

The life of a server, in the order in which it happens (`Server.serve`): load the app, bind,
run the app's start-up, serve until told to stop, drain, run the app's shutdown, close.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from typing import Any

from spvn import _app, _collector, _signals, loops
from spvn._host import DRAIN_SLACK_SECONDS, FOREVER_SECONDS, Host, Interrupted, info
from spvn.config import Config
from spvn.errors import SpvnError
from spvn.logging import style
from spvn.worker import Worker

logger = logging.getLogger("spvn.error")

_REQUEST_COUNT_SECONDS = 0.1
# For the lifespan of an app whose start-up was given up.
_CLEAN_UP_SECONDS = 5.0


class Server(Host):
    """Serves one app on the loop of this thread. Made from a Config; serves once.

    >>> server = spvn.Server(spvn.Config("main:app", port=0))
    >>> await server.serve()      # inside a running loop, until server.should_exit is set or a signal comes
    >>> server.run()              # or: on a loop of its own, in this thread

    Signals are handled only where serve() runs in the main thread. `should_exit`, `force_exit`, `stats()` and
    `wait_started()` may be used from any thread.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._app: tuple[_app.Served, str] | None = None
        self._broken: str | None = None
        self._only = False  # the process does nothing but serve

    def _loop_factory(self) -> loops.LoopFactory:
        _app.search(self.config)
        return loops.loop_factory(self.config.loop)

    def _prepare(self) -> None:
        self._only = threading.current_thread() is threading.main_thread()
        self._load()

    def _signals(self) -> tuple[int, ...]:
        # A program around this server may have its own use for SIGHUP, and nohup ignores it.
        if _signals.is_default(signal.SIGHUP):
            return (*_signals.HANDLED, signal.SIGHUP)
        return _signals.HANDLED

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            logger.warning(
                "SIGHUP restarts workers, and there are none: this server runs in one process. Use --workers."
            )
        else:
            super()._on_signal(number)

    def _load(self) -> tuple[_app.Served, str]:
        """The app, ready to be called, and its ASGI version. Raises AppError."""
        if self._app is None:
            self._configure_logging()
            self._app = _app.prepare(self.config)
        return self._app

    async def _serve(self) -> None:
        app, asgi_version = self._load()
        pid = os.getpid()
        info("Started server process [%d]", "Started server process [" + style("%d", "cyan") + "]", pid)
        self._listen(in_process=True)
        worker: Worker | None = None
        try:
            worker = self._add_worker(app, asgi_version)
            await self._work(worker)
        finally:
            await self._close(worker)
        info("Finished server process [%d]", "Finished server process [" + style("%d", "cyan") + "]", pid)

    def _add_worker(self, app: _app.Served, asgi_version: str) -> Worker:
        assert self._core is not None and self._server is not None
        return Worker(
            app,
            self._core.add_worker(self._server.server, {"shared": True}),
            lifespan=self.config.lifespan,
            asgi_version=asgi_version,
            root_path=self.config.root_path,
            reset_contextvars=self.config.reset_contextvars,
            alone=True,
            on_control=self._on_control,
        )

    async def _work(self, worker: Worker) -> None:
        try:
            # A start-up that hangs must not keep the process: nothing has been served.
            await self._unless_forced(worker.start(), at_once=not self._should_exit)
            await self._until("ready")
            with _collector.settled(self.config.gc_threshold if self._only else 0):
                self._announce()
                await self._until_exit()
            if self._broken is not None:
                raise Interrupted
            await self._drain(worker)
            await self._unless_forced(worker.stop())
        except Interrupted:
            if not self.started:
                logger.info("Shutting down before the app has started")
            worker.abort()
            # One turn of the loop, so that the cancelled tasks run their `finally` blocks.
            await asyncio.sleep(0)
            if not self._force_exit:
                with contextlib.suppress(Interrupted):
                    await self._unless_forced(worker.clean_up(_CLEAN_UP_SECONDS))
        except asyncio.CancelledError:
            worker.abort()
            await asyncio.sleep(0)
            raise
        if self._broken is not None:
            raise SpvnError(f"the app's process broke the link to the core ({self._broken}); stopping")

    async def _drain(self, worker: Worker) -> None:
        assert self._loop is not None
        grace = self.config.timeout_graceful_shutdown
        grace = FOREVER_SECONDS if grace is None else grace
        delay, deadline = self._begin_drain(grace)
        if worker.calls:
            logger.info("Waiting for connections to close. (CTRL+C to force quit)")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until("drained"), delay + grace + DRAIN_SLACK_SECONDS)
        # A call may go on after its answer is out (a background task); it has what is left of the time.
        if worker.calls and deadline > self._loop.time():
            logger.info("Waiting for background tasks to complete. (CTRL+C to force quit)")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._unless_forced(worker.finish()), deadline - self._loop.time())

    async def _close(self, worker: Worker | None) -> None:
        await self._stop_core()
        if worker is not None:
            worker.close()

    async def _until_exit(self) -> None:
        limit = self.config.limit_max_requests
        if limit is not None:
            import random  # with hashlib behind it on older Pythons

            limit += random.randint(0, self.config.limit_max_requests_jitter)
        while not self._should_exit:
            if limit is None:
                await self._change()
                continue
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._change(), _REQUEST_COUNT_SECONDS)
            if self.stats().get("calls", {}).get("arrived", 0) >= limit:
                logger.info("Maximum request limit of %d exceeded. Terminating process.", limit)
                self._should_exit = True

    def _on_event(self, name: str, event: dict[str, Any]) -> None:
        if name == "worker-corrupt":
            self._break(str(event.get("message", "")))

    def _on_control(self, name: str) -> None:
        if name == "corrupt":
            self._break("the worker found what the core did not write")

    def _break(self, why: str) -> None:
        """The link is of no use any more, and there is no other worker in this process."""
        self._broken = self._broken or why
        self.force_exit = True  # whatever is waited for will not come
