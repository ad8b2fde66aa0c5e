"""One server in this process: the core, and one worker on the running loop.

The life of a server, in the order in which it happens (`Server.serve`): load the app, bind,
run the app's start-up, serve until told to stop, drain, run the app's shutdown, close. The
core is never waited for by blocking: it says what happened through `events_fd`, a
descriptor that the loop reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any

from spvn import _app, _signals, core, loops
from spvn._types import ASGIApp
from spvn.config import Config
from spvn.core import Address, Core, Started
from spvn.errors import SpvnError
from spvn.logging import access_stream, configure_logging, style
from spvn.worker import Worker

logger = logging.getLogger("spvn.error")

# The core closes sockets and threads in milliseconds; after this something is wrong.
_STOP_SECONDS = 5.0
# Drain's own deadline is the core's; this is how much later than it we stop believing.
_DRAIN_SLACK_SECONDS = 2.0
_FOREVER_SECONDS = 10.0 * 365 * 86400
_REQUEST_COUNT_SECONDS = 0.1


class Interrupted(Exception):
    """A second signal: stop now."""


class Server:
    """Serves one app. Made from a Config; serves once.

    >>> server = spvn.Server(spvn.Config("main:app", port=0))
    >>> await server.serve()      # inside a running loop, until server.should_exit is set or a signal comes
    >>> server.run()              # or: on a loop of its own, in this thread

    Signals are handled only where serve() runs in the main thread. `should_exit`, `force_exit`, `stats()` and
    `wait_started()` may be used from any thread.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = False
        """Whether the app is ready and calls are being served."""
        self.addresses: tuple[Address, ...] = ()
        """Where the server listens; known before the app has started."""
        self._should_exit = False
        self._force_exit = False
        self._settled = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._app: tuple[ASGIApp, str] | None = None
        self._core: Core | None = None
        self._server: Started | None = None
        self._seen: set[str] = set()
        self._broken: str | None = None
        self._last_stats: dict[str, Any] = {}

    # What others may ask.

    @property
    def should_exit(self) -> bool:
        """Set it to True to drain and stop, from any thread."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        self._wake()

    @property
    def force_exit(self) -> bool:
        """Set it to True to stop now, without waiting for calls or for the app's shutdown."""
        return self._force_exit

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        self._force_exit = value
        self._should_exit = self._should_exit or value
        self._wake()

    @property
    def port(self) -> int:
        """The first TCP port, also when 0 was asked for; 0 while there is none."""
        return next((address.port for address in self.addresses if address.kind == "tcp"), 0)

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server, without a slash at the end; "" where there is none."""
        for address in self.addresses:
            if address.kind == "tcp":
                host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
                return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"
        return self.addresses[0].url if self.addresses else ""

    def stats(self) -> dict[str, Any]:
        """The core's counters; after the end those of the end; {} before the start."""
        if self._core is not None and self._server is not None:
            with contextlib.suppress(RuntimeError):  # it has just stopped
                self._last_stats = self._core.stats(self._server.server)
        return self._last_stats

    def wait_started(self, timeout: float | None = None) -> bool:
        """Wait, in another thread, until the server serves or has ended; True if it serves."""
        self._settled.wait(timeout)
        return self.started

    # The life of the server.

    def run(self) -> None:
        """Serve on a new event loop until stopped. Raises SpvnError where the server cannot start."""

        def main() -> Coroutine[Any, Any, None]:
            self._load()
            return self.serve(pass_on_signals=False)

        try:
            loops.run(main, loops.loop_factory(self.config.loop))
        finally:
            self._settled.set()

    async def serve(self, *, pass_on_signals: bool = True) -> None:
        """Serve on the running loop until stopped. Raises SpvnError where the server cannot start.

        With pass_on_signals a SIGINT or SIGTERM that stopped the server is raised again at the end for the handler
        that was there before, if there was one: Ctrl-C then ends the whole program as a KeyboardInterrupt.
        """
        if self._loop is not None:
            raise RuntimeError("this server has served already; make a new one from the same Config")
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        try:
            with _signals.captured(self._loop, self._on_signal, pass_on=pass_on_signals):
                await self._serve()
        finally:
            self.started = False
            self._settled.set()

    def _load(self) -> tuple[ASGIApp, str]:
        """The app, ready to be called, and its ASGI version. Raises AppError."""
        if self._app is None:
            configure_logging(self.config.log_config, self.config.log_level, self.config.use_colors)
            self._app = _app.prepare(self.config)
        return self._app

    async def _serve(self) -> None:
        app, asgi_version = self._load()
        pid = os.getpid()
        _info("Started server process [%d]", "Started server process [" + style("%d", "cyan") + "]", pid)
        self._listen()
        worker: Worker | None = None
        try:
            worker = self._add_worker(app, asgi_version)
            await self._work(worker)
        finally:
            await self._close(worker)
        _info("Finished server process [%d]", "Finished server process [" + style("%d", "cyan") + "]", pid)

    def _listen(self) -> None:
        assert self._loop is not None
        try:
            self._core = core.load()
        except ImportError as exc:
            raise SpvnError(str(exc)) from exc
        self._server = self._core.start(self._core_options())
        self.addresses = self._server.addresses
        self._loop.add_reader(self._server.events_fd, self._on_events)

    def _add_worker(self, app: ASGIApp, asgi_version: str) -> Worker:
        assert self._core is not None and self._server is not None
        return Worker(
            app,
            self._core.add_worker(self._server.server, {}),
            lifespan=self.config.lifespan,
            asgi_version=asgi_version,
            root_path=self.config.root_path,
            reset_contextvars=self.config.reset_contextvars,
        )

    def _core_options(self) -> dict[str, Any]:
        options = self.config.core_options()
        options["in_process"] = True
        # systemd's sockets (sd_listen_fds(3)). Go sees the environment of exec time only.
        options["listen_fds"] = _number(os.environ.get("LISTEN_FDS"))
        options["listen_pid"] = _number(os.environ.get("LISTEN_PID"))
        options["access_log_fd"], options["access_log_colors"] = -1, False
        if self.config.access_log:
            descriptor, colors = access_stream(self.config.use_colors)
            if descriptor >= 0:
                options["access_log_fd"], options["access_log_colors"] = os.dup(descriptor), colors
        return options

    async def _work(self, worker: Worker) -> None:
        try:
            await self._unless_forced(worker.start())
            await self._until("ready")
            self.started = True
            self._settled.set()
            for address in self.addresses:
                _announce(address)
            await self._until_exit()
            if self._broken is not None:
                # The core takes no more from this worker, and there is no other in this process.
                raise SpvnError(f"the app's process broke the link to the core ({self._broken}); stopping")
            await self._drain(worker)
            await self._unless_forced(worker.stop())
        except Interrupted:
            worker.abort()
            # One turn of the loop, so that the cancelled tasks run their `finally` blocks.
            await asyncio.sleep(0)

    async def _drain(self, worker: Worker) -> None:
        assert self._core is not None and self._server is not None and self._loop is not None
        logger.info("Shutting down")
        grace = self.config.timeout_graceful_shutdown
        grace = _FOREVER_SECONDS if grace is None else grace
        self._core.drain(self._server.server, grace)
        deadline = self._loop.time() + grace
        if worker.calls:
            logger.info("Waiting for connections to close. (CTRL+C to force quit)")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until("drained"), grace + _DRAIN_SLACK_SECONDS)
        # A call may go on after its answer is out (a background task); it has what is left of the time.
        if worker.calls and deadline > self._loop.time():
            logger.info("Waiting for background tasks to complete. (CTRL+C to force quit)")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._unless_forced(worker.finish()), deadline - self._loop.time())

    async def _close(self, worker: Worker | None) -> None:
        assert self._core is not None and self._server is not None and self._loop is not None
        self.started = False
        self.stats()
        self._core.stop(self._server.server)
        try:
            await asyncio.wait_for(self._until("stopped", interruptible=False), _STOP_SECONDS)
        except asyncio.TimeoutError:
            logger.error("The core did not stop within %g seconds; leaving it behind.", _STOP_SECONDS)
        self._loop.remove_reader(self._server.events_fd)
        with contextlib.suppress(OSError):
            os.close(self._server.events_fd)
        if worker is not None:
            worker.close()
        self._core, self._server = None, None

    # Waiting. Everything that can change sets one asyncio.Event.

    async def _until(self, event: str, *, interruptible: bool = True) -> None:
        while event not in self._seen:
            if interruptible and self._force_exit:
                raise Interrupted
            await self._change()

    async def _until_exit(self) -> None:
        limit = self.config.limit_max_requests
        if limit is not None:
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

    async def _unless_forced(self, work: Awaitable[None]) -> None:
        """Wait for this, or cancel it and raise Interrupted when force_exit is set."""
        task = asyncio.ensure_future(work)
        while not task.done():
            if self._force_exit:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                raise Interrupted
            change = asyncio.ensure_future(self._change())
            try:
                await asyncio.wait({task, change}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                task.cancel()
                raise
            finally:
                change.cancel()
        task.result()

    async def _change(self) -> None:
        assert self._changed is not None
        await self._changed.wait()
        self._changed.clear()

    def _wake(self) -> None:
        if self._loop is not None and self._changed is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to wake
                self._loop.call_soon_threadsafe(self._changed.set)

    def _on_signal(self, number: int) -> None:
        if self._should_exit:
            self.force_exit = True
        else:
            self.should_exit = True

    def _on_events(self) -> None:
        assert self._core is not None and self._server is not None and self._changed is not None
        with contextlib.suppress(BlockingIOError):
            os.read(self._server.events_fd, 8)
        if "stopped" in self._seen:
            return  # the core has forgotten this server
        for event in self._core.events(self._server.server):
            name = str(event.get("event"))
            if name == "log":
                level = logging.getLevelName(str(event.get("level", "info")).upper())
                logger.log(level if isinstance(level, int) else logging.INFO, "%s", event.get("message", ""))
            elif name == "worker-corrupt":
                self._broken = str(event.get("message", ""))
                self._should_exit = True
            self._seen.add(name)
        self._changed.set()


def _info(message: str, colored: str, *args: Any) -> None:
    logger.info(message, *args, extra={"color_message": colored})


def _announce(address: Address) -> None:
    where = f"unix socket {address.path}" if address.kind == "unix" else address.url
    _info(
        "spvn running on %s (Press CTRL+C to quit)",
        "spvn running on " + style("%s", bold=True) + " (Press CTRL+C to quit)",
        where,
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
