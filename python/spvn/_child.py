"""A worker process: what runs between the supervisor's exec and the exit.

Signals: SIGINT and SIGHUP are the supervisor's, and do nothing here (a terminal sends them
to the whole group). SIGTERM asks the supervisor for a replacement; the worker goes on until
that one is ready, then drains, so that `kill PID` costs no call and a service manager that
signals every process at once does no harm. SIGQUIT ends it at once, without the app's
shutdown.

The core's process is alive as long as the pipe `death` is open. When it closes, the worker
cancels its calls, runs the app's shutdown and exits; a thread sees to it that it does even
if its loop is blocked.

Exit codes: 0 stopped when told to, 1 app not importable, 2 option, 3 start-up failed, 4 the
core's process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Awaitable, Coroutine
from typing import Any, BinaryIO

from spvn import _app, _asgi, _collector, _forks, loops
from spvn._process import WORKER_SIGNALS, Launch
from spvn._stacks import STACK_SIGNAL
from spvn.errors import AppImportError, SpvnError, StartupFailed
from spvn.logging import configure_logging
from spvn.reload import error_page
from spvn.worker import Worker

logger = logging.getLogger("spvn.error")

EXIT_CORE_GONE = 4
# For the lifespan of a worker that is to end at once, which has a second in all.
_CLEAN_UP_SECONDS = 0.7
# Once the core is gone: for the cancelled calls and the app's shutdown, then for the process.
_ORPHAN_SECONDS = 1.2
_ORPHAN_EXIT_SECONDS = 1.7


def main(file: BinaryIO) -> None:
    """Be the worker that the file describes; ends by SystemExit."""
    with file:
        launch: Launch = pickle.load(file)
    sys.argv[:] = launch.argv
    sys.exit(_Child(launch).run())


class _Aborted(Exception):
    """The worker is to end at once."""


class _Child:
    """The worker of this process."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._abort: asyncio.Event | None = None
        self._orphaned = False
        self._ready = False

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        for descriptor in (*self._launch.descriptors.all(), self._launch.says, self._launch.stacks):
            os.set_inheritable(descriptor, False)
        self._handle_signals()
        self._register_stacks()
        if self._launch.descriptors.death >= 0:
            # The loop sees it too, if it can.
            _asgi.exit_when_closed(self._launch.descriptors.death, _ORPHAN_EXIT_SECONDS, EXIT_CORE_GONE)
        config = self._launch.config
        try:
            configure_logging(config.log_config, config.log_level, config.use_colors)
            _app.search(config)
            return loops.run(self._main, loops.loop_factory(config.loop))
        except StartupFailed as exc:
            self._failed("startup", exc, "")
            return exc.exit_code
        except AppImportError as exc:
            self._failed("import", exc, exc.report)
            return exc.exit_code
        except SpvnError as exc:
            self._failed("app" if exc.exit_code == 1 else "option", exc, "")
            return exc.exit_code

    def _main(self) -> Coroutine[Any, Any, int]:
        app: _app.Served
        if self._launch.page is not None:
            app, version = error_page(self._launch.page), "3.0"
        else:
            try:
                app, version = _app.prepare(self._launch.config)
            except SpvnError:
                raise
            except Exception as exc:
                raise AppImportError(f"{type(exc).__name__} while the app was loaded", traceback.format_exc()) from exc
        return self._serve(app, version)

    async def _serve(self, app: _app.Served, version: str) -> int:
        config = self._launch.config
        self._loop = asyncio.get_running_loop()
        self._stop, self._abort = asyncio.Event(), asyncio.Event()
        for number in WORKER_SIGNALS:
            with contextlib.suppress(NotImplementedError):
                self._loop.add_signal_handler(number, self._on_signal, number)
        death = self._launch.descriptors.death
        if death >= 0:
            self._loop.add_reader(death, self._core_gone)
        worker = Worker(
            app,
            self._launch.descriptors,
            lifespan="off" if self._launch.page is not None else config.lifespan,
            asgi_version=version,
            root_path=config.root_path,
            reset_contextvars=config.reset_contextvars,
            on_control=self._on_control,
        )
        try:
            await self._unless_aborted(worker.start())
            self._ready = True
            with _collector.settled(config.gc_threshold):
                await self._unless_aborted(self._stop.wait())
            if self._orphaned:
                logger.error("The core's process is gone; stopping.")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._unless_aborted(worker.stop()), _ORPHAN_SECONDS)
                return EXIT_CORE_GONE
            await self._unless_aborted(worker.stop())
            return 0
        except _Aborted:
            worker.abort()
            # One turn of the loop, so that the cancelled tasks run their `finally` blocks, and what its end leaves.
            await asyncio.sleep(0)
            await worker.clean_up(_CLEAN_UP_SECONDS)
            return EXIT_CORE_GONE if self._orphaned else 0
        finally:
            if death >= 0:
                self._loop.remove_reader(death)
            worker.close()

    async def _unless_aborted(self, work: Awaitable[Any]) -> None:
        """Wait for this, or cancel it and raise _Aborted if the worker is to end at once."""
        assert self._abort is not None
        task, abort = asyncio.ensure_future(work), asyncio.ensure_future(self._abort.wait())
        try:
            await asyncio.wait({task, abort}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Aborted
        finally:
            abort.cancel()
            task.cancel()
        task.result()

    # What tells it to stop.

    def _on_control(self, name: str) -> None:
        if name == "stop" and self._stop is not None:
            self._stop.set()
        elif name == "corrupt":
            self._say({"event": "corrupt"})  # and be killed, as where the core finds it out

    def _core_gone(self) -> None:
        assert self._loop is not None and self._stop is not None and self._abort is not None
        self._loop.remove_reader(self._launch.descriptors.death)
        self._orphaned = True
        (self._stop if self._ready else self._abort).set()

    # Signals.

    def _handle_signals(self) -> None:
        def handle(number: int, frame: object) -> None:
            # Before the loop runs.
            if number == signal.SIGQUIT:
                os._exit(0)
            self._on_signal(number)

        for number in WORKER_SIGNALS:
            signal.signal(number, handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)  # the supervisor had blocked them
        _forks.keep_out(WORKER_SIGNALS)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._say({"event": "terminate"})
        elif number == signal.SIGQUIT and self._abort is not None:
            self._abort.set()

    def _register_stacks(self) -> None:
        # A full pipe must never stop the worker.
        os.set_blocking(self._launch.stacks, False)
        faulthandler.register(STACK_SIGNAL, file=self._launch.stacks, all_threads=True, chain=False)
        if not faulthandler.is_enabled():
            with contextlib.suppress(Exception):  # no standard error
                faulthandler.enable()

    # What it says.

    def _failed(self, kind: str, exc: SpvnError, report: str) -> None:
        self._say({"event": "failed", "kind": kind, "message": str(exc), "report": report})

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone
            os.write(self._launch.says, json.dumps(message).encode() + b"\n")
