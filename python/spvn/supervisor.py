"""Worker processes: the core in this process, the app in its children.

Rules:
- This process never imports the app. What it knows of the app's code is what its workers say.
- There is one decision, `_look`, and it is made anew whenever anything has changed: how many
  workers there are, how many there should be, which ones are to be replaced. Nothing else
  starts or drains a worker, so that a crash in the middle of a restart in the middle of a
  change of --workers needs no case of its own.
- A worker that is to be replaced (SIGHUP, a limit, a SIGTERM to it) stays until another one is
  ready, and drains only then; one at a time. A worker that died is replaced at once.
- While workers fail to start there is one attempt at a time, with a pause that doubles from
  0.1 s to 5 s. Workers that serve are never given up for ones that may not start.

The core watches the processes too: when one ends, it moves, repeats or fails its calls by
itself, and says so in the event "worker-exited"; here only the exit status is added to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine
from typing import Any

from spvn import _signals, loops
from spvn._host import DRAIN_SLACK_SECONDS, FOREVER_SECONDS, Host, Interrupted, info
from spvn._process import WorkerProcess
from spvn._recycle import Limits, calls_of, limited
from spvn.config import Config
from spvn.core import LinkDescriptors
from spvn.envfile import load_env_file
from spvn.errors import AppError, AppImportError, ConfigError, SpvnError, StartupFailed
from spvn.logging import style
from spvn.reload import watch_options

logger = logging.getLogger("spvn.error")

# Between two attempts to start a worker when the last ones failed.
_BACK_OFF_SECONDS = 0.1
_BACK_OFF_MOST_SECONDS = 5.0
# A worker that dies sooner than this after it was ready counts as one that failed to start.
_SETTLED_SECONDS = 1.0
_LIMITS_SECONDS = 0.5
# Beside the time for calls: from the core's word that they are cut to the end of the app's shutdown.
_SHUTDOWN_SECONDS = 11.0
_EXIT_SECONDS = 5.0
# A start that takes longer than this is worth a line, and a restart does not wait for it.
_SLOW_START_SECONDS = 10.0
_ABORT_SECONDS = 1.0
# --reload: how long the new worker waits for the old one to be gone; apps may hold a port or a lock of their own.
_RELOAD_SECONDS = 1.0
# What a pipe takes at once.
_STACK_TEXT = 65536
# How long a death waits for the core's word on the calls.
_LOST_SECONDS = 1.0


class Supervisor(Host):
    """Serves an app in worker processes. Made from a Config; serves once. The app is named, as "module:attribute".

    Signals: SIGINT and SIGTERM drain, a second one or SIGQUIT stops at once, SIGHUP replaces the workers one by one,
    SIGTTIN and SIGTTOU change their number by one.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not isinstance(config.app, str):
            raise ConfigError(
                "--reload" if config.reload else "--workers",
                f"worker processes import the app by its name, and {config.app!r} has none here: give it as "
                "MODULE:ATTRIBUTE, or leave the option (and WEB_CONCURRENCY) out",
            )
        self._wanted = config.workers or 1
        self._workers: dict[int, WorkerProcess] = {}
        self._limits: dict[int, Limits] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._ended: dict[int, WorkerProcess] = {}  # until their deaths are logged
        self._failures = 0
        self._not_before = 0.0
        self._held_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._serving = False
        self._fatal: SpvnError | None = None
        self._page: str | None = None
        self._last_report = ""

    # The life of the server.

    def _loop_factory(self) -> loops.LoopFactory:
        return asyncio.SelectorEventLoop

    def _prepare(self) -> None:
        self._configure_logging()

    def _signals(self) -> tuple[int, ...]:
        return (*_signals.HANDLED, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)

    async def _serve(self) -> None:
        if self.config.env_file is not None:
            load_env_file(self.config.env_file)
        pid = os.getpid()
        info("Started parent process [%d]", "Started parent process [" + style("%d", "cyan", bold=True) + "]", pid)
        self._listen(in_process=False)
        try:
            await self._supervise()
        except Interrupted:
            await self._end_now()
        finally:
            self._serving = False
            for worker in self._workers.values():
                worker.kill("because the server ends")
            await self._stop_core()
            while self._workers:
                await self._change()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_LOST_SECONDS)
            if self._timer is not None:
                self._timer.cancel()
        info("Finished parent process [%d]", "Finished parent process [" + style("%d", "cyan", bold=True) + "]", pid)

    async def _supervise(self) -> None:
        self._serving = True
        if self.config.reload:
            self._watch_files()
        self._look()
        while not any(worker.state == "ready" for worker in self._workers.values()):
            if self._should_exit:
                raise Interrupted  # nothing has been served
            if self._fatal is not None:
                raise self._fatal
            await self._change()
        self._announce()
        limits = asyncio.ensure_future(self._check_limits()) if limited(self.config) else None
        try:
            while not self._should_exit:
                await self._change()
        finally:
            if limits is not None:
                limits.cancel()
        await self._drain()

    async def _drain(self) -> None:
        assert self._loop is not None
        grace = self._grace()
        # Until the last call is answered workers that die are replaced: others may wait for them.
        delay, deadline = self._begin_drain(grace)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until("drained"), delay + grace + DRAIN_SLACK_SECONDS)
        self._serving = False
        for worker in list(self._workers.values()):
            if worker.state == "starting":
                self._abort(worker)
            elif worker.state == "ready":
                self._retire(worker, max(0.0, deadline - self._loop.time()))
        while self._workers:
            if self._force_exit:
                raise Interrupted
            await self._change()

    async def _end_now(self) -> None:
        """A second signal: have every worker cancel what it does, and wait for nothing."""
        self._serving = False
        for worker in self._workers.values():
            self._abort(worker)
        while self._workers:
            await self._change()

    def _core_options(self, in_process: bool) -> dict[str, Any]:
        options = super()._core_options(in_process)
        if self.config.timeout_worker_stall is not None:
            options["stall_warning"] = min(self.config.stall_warning, self.config.timeout_worker_stall)
        return options

    def _grace(self) -> float:
        grace = self.config.timeout_graceful_shutdown
        return FOREVER_SECONDS if grace is None else grace

    # The one decision.

    def _look(self) -> None:
        """Bring the workers one step nearer to what they should be."""
        if not self._serving or self._loop is None:
            return
        if self._held_until > self._loop.time() and any(worker.retired for worker in self._workers.values()):
            return
        starting = [worker for worker in self._workers.values() if worker.state == "starting"]
        ready = [worker for worker in self._workers.values() if worker.state == "ready"]
        draining = [worker for worker in self._workers.values() if worker.state == "draining"]
        to_go = [] if self._should_exit else [worker for worker in ready if worker.retire]
        there, spare = len(ready) + len(starting), 1 if to_go and not draining else 0
        if there < self._wanted + spare:
            self._start_some(self._wanted + spare - there, len(starting))
        elif len(ready) > self._wanted:
            # The new one is ready; without one to replace there is one too many.
            self._retire(to_go[0] if to_go else ready[-1], self._grace())
            self._look()
        elif there > self._wanted + spare and starting and not to_go:
            self._abort(starting[-1])

    def _start_some(self, count: int, starting: int) -> None:
        """Start workers; one after the other, with pauses, when the last ones failed."""
        assert self._loop is not None
        if not self._failures:
            for _ in range(count):
                self._start()
        elif not starting:
            pause = self._not_before - self._loop.time()
            if pause > 0:
                self._look_in(pause)
            else:
                self._start()

    def _look_in(self, seconds: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _start(self) -> None:
        assert self._core is not None and self._server is not None
        descriptors: LinkDescriptors | None = None
        try:
            descriptors = self._core.add_worker(self._server.server, {"process": True})
            worker = WorkerProcess(
                self.config, descriptors, page=self._page, on_message=self._on_message, on_exit=self._on_exit
            )
        except (OSError, RuntimeError, ConfigError) as exc:
            if descriptors is not None:
                self._core.worker_gone(self._server.server, descriptors.worker)
            error = exc if isinstance(exc, ConfigError) else SpvnError(f"a worker process could not be started: {exc}")
            if not self.started:
                self._fatal = error
                return
            logger.error("%s", error)
            self._failed()
            return
        self._workers[worker.id] = worker
        assert self._loop is not None
        self._loop.call_later(_SLOW_START_SECONDS, self._look_at_start, worker)
        self._limits[worker.id] = Limits(self.config)
        with contextlib.suppress(RuntimeError):  # a sandbox without pidfds; _on_exit says it too
            self._core.watch_worker(self._server.server, worker.id, worker.pid)

    def _look_at_start(self, worker: WorkerProcess) -> None:
        if worker.state == "starting" and worker.id in self._workers and worker.failure is None:
            logger.warning(
                "Worker %d [%d] has been starting for %g seconds; SIGHUP ends it and starts another",
                *(worker.id, worker.pid, _SLOW_START_SECONDS),
            )

    def _failed(self) -> None:
        """A worker failed to start: wait before the next attempt."""
        assert self._loop is not None
        pause = min(_BACK_OFF_SECONDS * 2 ** min(self._failures, 16), _BACK_OFF_MOST_SECONDS)
        self._failures += 1
        self._not_before = self._loop.time() + pause
        self._look_in(pause)

    def _retire(self, worker: WorkerProcess, grace: float) -> None:
        """Have the core drain a worker; kill it if it takes longer than anything should."""
        assert self._core is not None and self._server is not None
        worker.state, worker.retired = "draining", True
        with contextlib.suppress(RuntimeError):  # it has ended, and the core knows it before we do
            self._core.remove_worker(self._server.server, worker.id, grace)
        worker.kill_in(grace + _SHUTDOWN_SECONDS, "because its shutdown took too long")

    def _abort(self, worker: WorkerProcess) -> None:
        worker.state, worker.retired, worker.unwanted = "draining", True, True
        worker.abort()
        worker.kill_in(_ABORT_SECONDS, "because it was to end at once")

    # What tells it that something has changed.

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            logger.info("SIGHUP: replacing the workers one by one")
            self._restart()
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            self._wanted = max(1, self._wanted + (1 if number == signal.SIGTTIN else -1))
            logger.info("%s: %d worker(s) wanted", signal.Signals(number).name, self._wanted)
            self._look()
        else:
            super()._on_signal(number)

    def _restart(self) -> None:
        if self.config.reload:
            self._reload()
            return
        assert self._loop is not None
        # Workers that are still starting may have imported the code of before: they count as old too. One that hangs
        # would be in the way for ever.
        for worker in list(self._workers.values()):
            worker.retire = worker.retire or "restart"
            if worker.state == "starting" and self._loop.time() - worker.started_at > _SLOW_START_SECONDS:
                self._abort(worker)
        self._look()

    def _on_event(self, name: str, event: dict[str, Any]) -> None:
        if name == "files-changed":
            self._on_files(event)
            return
        number = int(event.get("worker") or 0)
        if name == "stack":
            self._in_background(self._tell_stack(self._workers.get(number), int(event["fd"])))
            return
        if name == "worker-exited":
            ended = self._workers.get(number) or self._ended.get(number)
            if ended is not None:
                ended.lost = list(event.get("calls") or [])
            return
        worker = self._workers.get(number)
        if worker is None:
            return
        if name == "ready":
            self._on_ready(worker)
        elif name == "worker-stopped":
            worker.stopped = True
            worker.kill_in(_EXIT_SECONDS, "because it did not exit after its shutdown")
        elif name == "worker-corrupt":
            worker.kill(f"because it broke the rules of its link ({event.get('message', '')})")
        elif name == "worker-stalled":
            self._on_stalled(worker, float(event.get("seconds") or 0))
        elif name == "worker-recovered":
            worker.stalled_at = None
            if worker.stall_logged:
                worker.stall_logged = False
                logger.warning(
                    "Worker %d [%d] goes on; its loop was blocked for %.1f s",
                    worker.id,
                    worker.pid,
                    event.get("seconds") or 0,
                )

    def _on_ready(self, worker: WorkerProcess) -> None:
        assert self._loop is not None
        if worker.state == "starting":
            worker.state, worker.ready_at = "ready", self._loop.time()
            if self._page is None:
                self._last_report = ""
            if self._failures:
                self._loop.call_later(_SETTLED_SECONDS, self._settled_down, worker)
            self._look()

    def _settled_down(self, worker: WorkerProcess) -> None:
        """A worker started when others had failed: if it lives, the trouble is over."""
        if worker.state != "exited":
            self._failures = 0
            self._look()

    def _on_message(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        if message.get("event") == "terminate" and self._serving:
            logger.info("Worker %d [%d] got SIGTERM: replacing it", worker.id, worker.pid)
            worker.retire = worker.retire or "SIGTERM"
            self._look()
        elif message.get("event") == "corrupt":
            worker.kill("because it found its link to the core broken")
        elif message.get("event") == "failed":
            worker.failure = message
            worker.kill_in(_EXIT_SECONDS, "because it did not exit after its start had failed")

    # Stalls.

    def _on_stalled(self, worker: WorkerProcess, seconds: float) -> None:
        assert self._loop is not None
        worker.stalled_at = self._loop.time() - seconds
        if seconds >= self.config.stall_warning:
            self._warn_of_stall(worker, worker.stalled_at)
        else:
            self._loop.call_later(self.config.stall_warning - seconds, self._warn_of_stall, worker, worker.stalled_at)
        limit = self.config.timeout_worker_stall
        if limit is not None:
            self._loop.call_later(limit - seconds, self._kill_stalled, worker, worker.stalled_at)

    def _warn_of_stall(self, worker: WorkerProcess, since: float) -> None:
        assert self._loop is not None
        if worker.state != "exited" and worker.stalled_at == since:
            worker.stall_logged = True
            self._in_background(self._log_stall(worker, self._loop.time() - since))

    async def _log_stall(self, worker: WorkerProcess, seconds: float) -> None:
        stack = await worker.stack()
        others = any(other.state == "ready" and other is not worker for other in self._workers.values())
        logger.warning(
            "Worker %d [%d]: its loop has been blocked for %.1f s%s; %s",
            worker.id,
            worker.pid,
            seconds,
            ", calls go to other workers meanwhile" if others else "",
            f"it is here:\n{stack}" if stack else "it did not say where",
        )

    async def _tell_stack(self, worker: WorkerProcess | None, descriptor: int) -> None:
        """Somebody asks, through the core, where a worker is (`spvn ps --stack`)."""
        try:
            text = await worker.stack() if worker is not None else ""
            with contextlib.suppress(OSError):  # who asked has given up
                os.write(descriptor, text.encode()[:_STACK_TEXT])
        finally:
            os.close(descriptor)

    def _kill_stalled(self, worker: WorkerProcess, since: float) -> None:
        assert self._loop is not None and self._core is not None and self._server is not None
        if worker.state == "exited" or worker.stalled_at != since:
            return
        with contextlib.suppress(RuntimeError):  # it has ended
            self._core.condemn_worker(self._server.server, worker.id)
        worker.kill(f"because its loop was blocked for {self._loop.time() - since:.1f} s (--timeout-worker-stall)")

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this beside all else; the server's end waits a moment for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Ends.

    def _on_exit(self, worker: WorkerProcess) -> None:
        assert self._loop is not None and self._changed is not None
        was_ready = worker.ready_at is not None
        del self._workers[worker.id]
        if self._core is not None and self._server is not None:
            with contextlib.suppress(RuntimeError):  # it has seen it by itself, as a rule
                accident = not (worker.retired or worker.unwanted or worker.stopped or worker.killed)
                self._core.worker_gone(self._server.server, worker.id, worker.returncode if accident else None)
        self._limits.pop(worker.id, None)
        expected = worker.stopped or worker.unwanted
        if self._serving and not worker.retired:
            if not was_ready:
                self._start_failed(worker)
            elif worker.lived() < _SETTLED_SECONDS:
                self._failed()
        if was_ready and not expected:
            self._ended[worker.id] = worker
            self._in_background(self._log_death(worker))
        self._look()
        self._changed.set()

    async def _log_death(self, worker: WorkerProcess) -> None:
        """Once the core has told the calls."""
        assert self._loop is not None
        deadline = self._loop.time() + _LOST_SECONDS
        while worker.lost is None and self._loop.time() < deadline and self._core is not None:
            await asyncio.sleep(0.01)
        del self._ended[worker.id]
        calls = worker.lost or []
        what = ", ".join(f"{call.get('method')} {call.get('path')} ({call.get('age') or 0:.2f} s)" for call in calls)
        logger.error(
            "Worker %d [%d] died: %s; %s",
            worker.id,
            worker.pid,
            worker.how_it_ended(),
            f"calls that it had begun: {what}" if calls else "it had begun no call",
        )

    def _start_failed(self, worker: WorkerProcess) -> None:
        """A worker ended before it was ready."""
        self._failed()
        error = self._error_of(worker)
        report = error.report if isinstance(error, AppImportError) else ""
        if self.config.reload and worker.page is None and not isinstance(error, ConfigError):
            self._show(worker, error, report)
        elif not self.started and self._fatal is None:
            self._fatal = error
        else:
            text = f"{error}\n{report}".rstrip()
            if text != self._last_report:
                self._last_report = text
                logger.error("Worker %d [%d] did not start: %s", worker.id, worker.pid, text)
            self._keep_old()

    def _error_of(self, worker: WorkerProcess) -> SpvnError:
        failure = worker.failure
        if failure is None:
            error = SpvnError(f"the worker process ended while it was starting: {worker.how_it_ended()}")
            error.exit_code = StartupFailed.exit_code
            return error
        message, kind = str(failure.get("message")), failure.get("kind")
        if kind == "import":
            return AppImportError(message, str(failure.get("report") or ""))
        if kind == "app":
            return AppError(message)
        if kind == "option":
            flag, _, text = message.partition(": ")
            return ConfigError(flag, text)
        return StartupFailed(message)

    def _keep_old(self) -> None:
        """The new code does not start: the workers that serve go on serving, and are not to be replaced any more."""
        kept = [worker for worker in self._workers.values() if worker.retire == "restart"]
        for worker in kept:
            worker.retire = None
        if kept:
            logger.error("The restart is given up: %d worker(s) go on with the code that they have", len(kept))

    # Limits.

    async def _check_limits(self) -> None:
        while True:
            await asyncio.sleep(_LIMITS_SECONDS)
            stats = self.stats() if self.config.limit_max_requests is not None else {}
            for worker in list(self._workers.values()):
                if worker.state != "ready" or worker.retire or worker.id not in self._limits:
                    continue
                why = self._limits[worker.id].reached(worker.pid, calls_of(stats, worker.id), worker.lived())
                if why is not None:
                    logger.info("Worker %d [%d] has reached its limit (%s): replacing it", worker.id, worker.pid, why)
                    worker.retire = "limit"
                    self._look()

    # Reloading.

    def _watch_files(self) -> None:
        assert self._core is not None and self._server is not None
        options = watch_options(self.config)
        try:
            self._core.watch(self._server.server, options)
        except RuntimeError as exc:
            raise ConfigError("--reload-dir" if self.config.reload_dirs else "--reload", str(exc)) from exc
        logger.info("Will watch for changes in these directories: %s", options["dirs"])

    def _on_files(self, event: dict[str, Any]) -> None:
        self._reload()
        paths = [os.path.relpath(path) for path in event.get("paths") or []]
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        logger.warning("Detected changes in %s%s. Reloading...", ", ".join(paths[:3]), more)

    def _reload(self) -> None:
        """Drain what runs the old code; calls wait in the core for the new."""
        assert self._loop is not None
        self._page, self._failures, self._last_report = None, 0, ""
        leaving = False
        for worker in list(self._workers.values()):
            if worker.state == "starting":
                self._abort(worker)
            elif worker.state == "ready":
                self._retire(worker, self._grace())
            leaving = True
        if leaving:
            self._held_until = self._loop.time() + _RELOAD_SECONDS
            self._look_in(_RELOAD_SECONDS)

    def _show(self, worker: WorkerProcess, error: SpvnError, report: str) -> None:
        """The code cannot be served: have the next worker say so, at once."""
        text = f"{error}\n{report}".strip() if report else str(error)
        self._page = text
        self._failures = 0
        if text != self._last_report:
            self._last_report = text
            logger.error("Error loading ASGI app: %s", text)
