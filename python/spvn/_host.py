"""What every kind of server does with the core of its process: start it, hear from it, stop it.

The core is never waited for by blocking: it says what happened through `events_fd`, a
descriptor that the loop reads. Everything that can change sets one asyncio.Event, and
whoever waits looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from spvn import _signals, _stacks, core, loops
from spvn.config import Config
from spvn.core import Address, Core, Started
from spvn.errors import SpvnError
from spvn.logging import access_oddities, access_stream, configure_logging, style

logger = logging.getLogger("spvn.error")

T = TypeVar("T")

FOREVER_SECONDS = 10.0 * 365 * 86400
"""What "without end" is to the core."""
DRAIN_SLACK_SECONDS = 2.0
"""Drain's own deadline is the core's; this is how much later than it we stop believing."""
# The core closes sockets and threads in milliseconds; after this something is wrong.
_STOP_SECONDS = 5.0
# For the app's threads, of asyncio.to_thread for one, once the server has finished.
_EXIT_SECONDS = 5.0


class Interrupted(Exception):
    """A second signal: stop now."""


class Host:
    """The base of Server and Supervisor: made from a Config; serves once.

    `should_exit`, `force_exit`, `stats()` and `wait_started()` may be used from any thread; all else belongs to the
    loop. Signals are handled only where serve() runs in the main thread.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = False
        """Whether the app is ready and calls are being served."""
        self.addresses: tuple[Address, ...] = ()
        """Where the server listens; known before the app has started."""
        self.exits = False
        """Whether the process has nothing to do once run() is over."""
        self._should_exit = False
        self._force_exit = False
        self._terminated = False
        self._exiting = self._over = False
        self._exit_code = 0
        self._settled = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._core: Core | None = None
        self._server: Started | None = None
        self._seen: set[str] = set()
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
            self._prepare()
            return serve()

        async def serve() -> None:
            try:
                await self.serve(pass_on_signals=False)
            finally:
                if self.exits:
                    self._exit_soon()

        try:
            loops.run(main, self._loop_factory())
        finally:
            self._settled.set()
            self._over = True
            if self.exits:
                self._exit_soon()

    async def serve(self, *, pass_on_signals: bool = True) -> None:
        """Serve on the running loop until stopped. Raises SpvnError where the server cannot start.

        With pass_on_signals a SIGINT or SIGTERM that stopped the server is raised again at the end for the handler
        that was there before, if there was one: Ctrl-C then ends the whole program as a KeyboardInterrupt.
        Cancelling it is as force_exit: calls and the app's lifespan are cancelled too, and nothing is waited for.
        """
        if self._loop is not None:
            raise RuntimeError("this server has served already; make a new one from the same Config")
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        try:
            with _signals.captured(self._loop, self._on_signal, self._signals(), pass_on=pass_on_signals):
                await self._serve()
        finally:
            self.started = False
            self._settled.set()

    def _exit_soon(self) -> None:
        """End the process a little later, if tasks or threads of the app keep it: nobody but the app can end those."""
        self._exit_code = _exit_code(sys.exc_info()[1]) or self._exit_code
        if self._exiting:
            return
        self._exiting = True

        def kept() -> bool:
            main = threading.main_thread()
            return any(not thread.daemon and thread is not main for thread in threading.enumerate())

        def say() -> None:
            logger.error(
                "Threads or tasks of the app have not ended %g seconds after it; leaving without them.", _EXIT_SECONDS
            )
            sys.stdout.flush()

        def watch() -> None:
            threading.Event().wait(_EXIT_SECONDS)
            while self._over and not kept():  # something else takes its time: a handler of atexit, for one
                threading.Event().wait(1)
            saying = threading.Thread(target=say, daemon=True)
            saying.start()
            saying.join(1)  # nobody may read what it says
            os._exit(self._exit_code)

        threading.Thread(target=watch, name="spvn-exit", daemon=True).start()

    # What the kinds of server differ in.

    def _loop_factory(self) -> loops.LoopFactory:
        """What makes the loop of run()."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """What run() does before its loop runs."""
        raise NotImplementedError

    def _configure_logging(self) -> None:
        """Have logs written as the options say, and say what is odd about those."""
        configure_logging(self.config.log_config, self.config.log_level, self.config.use_colors)
        for flag, needed in self.config.without_effect():
            logger.warning("%s has no effect without %s", flag, needed)
        if self.config.access_log:
            for sentence in access_oddities():
                logger.warning("--access-log: %s", sentence)

    def _signals(self) -> tuple[int, ...]:
        """The signals to handle."""
        return _signals.HANDLED

    async def _serve(self) -> None:
        """Serve until stopped."""
        raise NotImplementedError

    def _on_event(self, name: str, event: dict[str, Any]) -> None:
        """Something happened in the core."""

    def _on_signal(self, number: int) -> None:
        self._terminated = number == signal.SIGTERM
        if self._should_exit or number == signal.SIGQUIT:
            self.force_exit = True
        else:
            self.should_exit = True

    # The core.

    def _listen(self, *, in_process: bool) -> None:
        assert self._loop is not None
        try:
            self._core = core.load()
        except ImportError as exc:
            raise SpvnError(str(exc)) from exc
        self._server = self._core.start(self._core_options(in_process))
        self.addresses = self._server.addresses
        self._loop.add_reader(self._server.events_fd, self._on_events)

    def _core_options(self, in_process: bool) -> dict[str, Any]:
        options = self.config.core_options()
        options["in_process"] = in_process
        options["workers"] = 0 if in_process else self.config.workers or 1
        # systemd's sockets (sd_listen_fds(3)). Go sees the environment of exec time only.
        options["listen_fds"] = _number(os.environ.get("LISTEN_FDS"))
        options["listen_pid"] = _number(os.environ.get("LISTEN_PID"))
        # Not an option: for tests of the transport that systems without epoll have.
        options["transport"] = os.environ.get("SPVN_TRANSPORT", "")
        if in_process and self.config.control_socket is not None:
            options["stack_fd"], options["stack_signal"] = _stacks.pipe(), _stacks.STACK_SIGNAL
        options["access_log_fd"], options["access_log_colors"] = -1, False
        if self.config.access_log:
            descriptor, colors = access_stream(self.config.use_colors)
            if descriptor >= 0:
                options["access_log_fd"], options["access_log_colors"] = os.dup(descriptor), colors
        return options

    def _announce(self) -> None:
        """Say, and let wait_started() know, that the app is being served."""
        self.started = True
        self._settled.set()
        for address in self.addresses:
            where = f"unix socket {address.path}" if address.kind == "unix" else address.url
            info(
                "spvn running on %s (Press CTRL+C to quit)",
                "spvn running on " + style("%s", bold=True) + " (Press CTRL+C to quit)",
                where,
            )

    def _begin_drain(self, grace: float) -> tuple[float, float]:
        """Have the core drain; returns the delay before it begins, and the loop's time when it has to be over.

        The delay is for who sends requests here and asks the health check: SIGTERM is theirs, Ctrl-C is not.
        """
        assert self._core is not None and self._server is not None and self._loop is not None
        delay = self.config.drain_delay if self._terminated else 0.0
        self._core.drain(self._server.server, grace, delay)
        logger.info("Shutting down in %g seconds" if delay else "Shutting down", *([delay] if delay else []))
        return delay, self._loop.time() + delay + grace

    async def _stop_core(self) -> None:
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
        self._core, self._server = None, None

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
            else:
                self._on_event(name, event)
            self._seen.add(name)
        self._changed.set()

    # Waiting.

    async def _until(self, event: str, *, interruptible: bool = True) -> None:
        while event not in self._seen:
            if interruptible and self._force_exit:
                raise Interrupted
            await self._change()

    async def _unless_forced(self, work: Awaitable[T], *, at_once: bool = False) -> T:
        """Wait for this, or cancel it and raise Interrupted when force_exit is set; at_once: should_exit, too."""
        task = asyncio.ensure_future(work)
        while not task.done():
            if self._force_exit or at_once and self._should_exit:
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
        return task.result()

    async def _change(self) -> None:
        assert self._changed is not None
        await self._changed.wait()
        self._changed.clear()

    def _wake(self) -> None:
        if self._loop is not None and self._changed is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to wake
                self._loop.call_soon_threadsafe(self._changed.set)


def info(message: str, colored: str, *args: Any) -> None:
    """Log at INFO with a second, coloured text for formatters that use it."""
    logger.info(message, *args, extra={"color_message": colored})


def _exit_code(exc: BaseException | None) -> int:
    """What a process exits with that ends by this."""
    if isinstance(exc, SpvnError):
        return exc.exit_code
    if isinstance(exc, SystemExit):
        return exc.code & 0xFF if isinstance(exc.code, int) else int(exc.code is not None)
    if isinstance(exc, KeyboardInterrupt):
        return 130
    return 0 if exc is None else 1


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
