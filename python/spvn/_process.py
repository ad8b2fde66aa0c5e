"""One worker process as its supervisor sees it: start it, hear from it, see it end.

A worker is started by exec, never by fork alone: the core's threads do not survive a fork.
It gets its link's descriptors, and four things of its own: a file with what it is to do
(`Launch`), a pipe for what it has to say (lines of JSON), and a pipe for the stacks that
faulthandler writes, which needs neither its loop nor its interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

from spvn._stacks import STACK_SIGNAL
from spvn.config import Config
from spvn.core import LinkDescriptors
from spvn.errors import ConfigError

logger = logging.getLogger("spvn.error")

WORKER_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
"""What a worker handles: signals to the whole group, and what its supervisor sends."""

# sys.path is set before anything of spvn is imported: it may be a supervisor's script that made it complete.
_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import pickle; f = open(int(sys.argv[1]), 'rb'); "
    "sys.path[:] = pickle.load(f); from spvn._child import main; main(f)"
)
_READ_SIZE = 1 << 16
_STACK_SECONDS = 1.0
_STACK_PAUSE_SECONDS = 0.05


class Launch(NamedTuple):
    """What a worker process is told at its start."""

    config: Config
    descriptors: LinkDescriptors
    says: int
    stacks: int
    argv: list[str]
    page: str | None


class WorkerProcess:
    """A worker process. Made inside the supervisor's loop, which all of it belongs to.

    `on_message` gets what the worker says: dicts with "event". `on_exit` is called once, when the process has ended
    and was reaped. Raises OSError where no process can be made, and ConfigError where an option cannot be handed over;
    the link's descriptors are closed in any case.
    """

    def __init__(
        self,
        config: Config,
        descriptors: LinkDescriptors,
        *,
        page: str | None = None,
        on_message: Callable[[WorkerProcess, dict[str, Any]], None],
        on_exit: Callable[[WorkerProcess], None],
    ) -> None:
        self.id = descriptors.worker
        self.state = "starting"
        """starting, ready, draining, exited."""
        self.page = page
        self.retire: str | None = None
        """Why another is to take its place, if so."""
        self.retired = False
        """Whether it was told to drain, or to end."""
        self.unwanted = False
        """Whether it was told to end at once."""
        self.stopped = False
        """Whether it has said that its shutdown is complete."""
        self.killed: str | None = None
        """Why it was killed, if it was the supervisor who did it."""
        self.failure: dict[str, Any] | None = None
        """What it said of a start that failed."""
        self.lost: list[dict[str, Any]] | None = None
        """The calls that it had begun when it ended, as the core tells them."""
        self.ready_at: float | None = None
        self.stalled_at: float | None = None
        self.stall_logged = False
        self._loop = asyncio.get_running_loop()
        self.started_at = self._loop.time()
        self._on_message, self._on_exit = on_message, on_exit
        self._unread = b""
        self._watch = -1
        self._stack_lock = asyncio.Lock()
        self._kill_at: asyncio.TimerHandle | None = None
        self._says = self._stacks = -1
        given = descriptors.all()  # to be closed here
        try:
            self._says, says = os.pipe()
            given.append(says)
            self._stacks, stacks = os.pipe()
            given.append(stacks)
            with _launch_file(Launch(config, descriptors, says, stacks, sys.argv, page)) as file:
                # A signal to the whole group must not end a worker that does not handle it yet: it waits until then.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)
                try:
                    self._popen = subprocess.Popen(
                        [sys.executable, *_interpreter_flags(), "-c", _BOOT, str(file.fileno()), f"worker {self.id}"],
                        pass_fds=[*given, file.fileno()],
                    )
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except BaseException:
            self._close_pipes()
            raise
        finally:
            for descriptor in given:
                os.close(descriptor)
        self.pid = self._popen.pid
        for pipe in (self._says, self._stacks):
            os.set_blocking(pipe, False)
        self._loop.add_reader(self._says, self._on_says)
        self._watch_exit()

    @property
    def returncode(self) -> int | None:
        """The exit code, or the signal's number below zero; None while it runs."""
        return self._popen.returncode

    def lived(self) -> float:
        """Seconds since it became ready; 0 if it never did."""
        return 0.0 if self.ready_at is None else self._loop.time() - self.ready_at

    def kill(self, why: str) -> None:
        """End it at once (SIGKILL)."""
        if self._popen.returncode is None:
            self.killed = self.killed or why
            self._popen.kill()

    def abort(self) -> None:
        """Have it cancel everything and exit, without the app's shutdown."""
        if self._popen.returncode is None:
            self._popen.send_signal(signal.SIGQUIT)

    def kill_in(self, seconds: float, why: str) -> None:
        """Kill it if it still runs after this many seconds; takes the place of an earlier such order."""
        if self._kill_at is not None:
            self._kill_at.cancel()
        self._kill_at = self._loop.call_later(seconds, self.kill, why)

    async def stack(self) -> str:
        """The stacks of its threads, also while its loop is blocked; "" if it does not answer within a second."""
        async with self._stack_lock:
            text = await self._read_stack()
        return _app_stacks(text.decode("utf-8", "replace"))

    async def _read_stack(self) -> bytes:
        text, deadline = b"", self._loop.time() + _STACK_SECONDS
        # Before it is ready it may not know the signal yet, which would end it.
        if self.state == "exited" or self.ready_at is None:
            return text
        self._read(self._stacks)  # what an earlier answer left behind
        self._popen.send_signal(STACK_SIGNAL)
        while self._loop.time() < deadline:
            await asyncio.sleep(_STACK_PAUSE_SECONDS)
            if self.state == "exited":
                break  # and its pipe is closed
            part = self._read(self._stacks)
            if text and not part:
                break
            text += part
        return text

    def how_it_ended(self) -> str:
        """The signal or the exit code, in words."""
        code = self._popen.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if self.killed is not None:
            return f"{name} by spvn, {self.killed}"
        return name + (" (not by spvn; perhaps the system was out of memory)" if name == "SIGKILL" else "")

    # Its end.

    def _watch_exit(self) -> None:
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # a sandbox without the system call
                self._watch = os.pidfd_open(self.pid)
                self._loop.add_reader(self._watch, self._reap)
                return

        def wait() -> None:
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._reap)

        threading.Thread(target=wait, name=f"spvn-wait-{self.id}", daemon=True).start()

    def _reap(self) -> None:
        if self._watch >= 0:
            self._loop.remove_reader(self._watch)
            os.close(self._watch)
            self._watch = -1
        self._popen.wait()
        self._on_says()  # its last words
        self._loop.remove_reader(self._says)
        self._close_pipes()
        if self._kill_at is not None:
            self._kill_at.cancel()
        self.state = "exited"
        self._on_exit(self)

    def _close_pipes(self) -> None:
        for pipe in (self._says, self._stacks):
            if pipe >= 0:
                os.close(pipe)

    # What it says.

    def _on_says(self) -> None:
        *lines, self._unread = (self._unread + self._read(self._says)).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError(message)
            except ValueError:
                logger.warning(
                    "Worker %d [%d] wrote to its supervisor's pipe, which is not the app's.", self.id, self.pid
                )
                continue
            self._on_message(self, message)

    def _read(self, pipe: int) -> bytes:
        parts = []
        with contextlib.suppress(BlockingIOError):
            while True:
                part = os.read(pipe, _READ_SIZE)
                if not part:
                    self._loop.remove_reader(pipe)  # its end was closed; the process may go on a little
                    break
                parts.append(part)
        return b"".join(parts)


def _app_stacks(text: str) -> str:
    """What faulthandler wrote, the thread that took the signal first."""
    stacks = [stack for part in text.split("\n\n") if (stack := part.strip())]
    return "\n\n".join(sorted(stacks, key=lambda stack: not stack.startswith("Current")))


def _launch_file(launch: Launch) -> BinaryIO:
    try:
        text = pickle.dumps(sys.path) + pickle.dumps(launch)
    except Exception as exc:
        # All else is numbers and texts.
        raise ConfigError("--log-config", f"it cannot be handed to worker processes ({exc}); name a file") from exc
    file: BinaryIO
    if hasattr(os, "memfd_create"):
        file = open(os.memfd_create("spvn-launch"), "w+b")
    else:
        file = cast(BinaryIO, tempfile.TemporaryFile())
    file.write(text)
    file.seek(0)
    return file


def _interpreter_flags() -> list[str]:
    """This interpreter's own flags (-X, -W, -O, ...), as multiprocessing hands them on."""
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    return flags
