"""WSGI apps (PEP 3333): the threads that run them.

The loop of a worker only moves records; every call runs in one of the worker's threads,
from the call of the app to the `close()` of what it returned, in a copy of the context that
the worker was made in. What threads share, and all that may wait, is `spvn._asgi.Pool`: a
call stays the core's until a thread takes it, a read waits for the client, a write waits
while the client takes nothing, and none of them holds the GIL meanwhile.

Threads are started as they are needed, and the one that became idle last works first: an
app that keeps a connection to its database in each thread gets no more of them than it has
calls at one time. They are daemons: one that never comes back does not keep the process.
"""

from __future__ import annotations

import contextvars
import io
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable

from spvn._version import __version__

if TYPE_CHECKING:
    from spvn._asgi import Exchange, Pool

Environ = dict[str, Any]
WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

logger = logging.getLogger("spvn.error")

_INPUT_BUFFER = 64 * 1024
_FILE_BLOCK = 64 * 1024
# At the end of a worker, for threads that are about to finish.
_JOIN_SECONDS = 0.2


def default_threads() -> int:
    """As concurrent.futures and asyncio.to_thread() have it: enough to wait in, and few enough for one GIL."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(32, cores + 4)


class App:
    """A WSGI app, and how a worker is to run it."""

    def __init__(self, app: WSGIApp, threads: int | None = None, *, multiprocess: bool = False) -> None:
        self.app = app
        self.threads = default_threads() if threads is None else threads
        self.multiprocess = multiprocess


class Threads:
    """The threads of one worker. `pool` goes to the Link in the app's place."""

    def __init__(self, app: App, context: contextvars.Context, *, root_path: str = "") -> None:
        from spvn._asgi import Pool

        self._app = app.app
        self._limit = app.threads
        self._context = context
        self._errors = Errors()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._short = False  # of threads, and it was said
        self.pool: Pool = Pool(self._environ(app, root_path), _input, app.threads)

    def _environ(self, app: App, root_path: str) -> Environ:
        """What the environs of all calls have in common."""
        return {
            "SCRIPT_NAME": root_path.rstrip("/").encode().decode("latin-1"),
            "SERVER_SOFTWARE": f"spvn/{__version__}",
            "wsgi.version": (1, 0),
            "wsgi.errors": self._errors,
            "wsgi.multithread": True,
            "wsgi.multiprocess": app.multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def start(self) -> None:
        """Start the first thread; each starts another one when none is left that waits, up to the limit."""
        with self._lock:
            if len(self._threads) < self._limit:
                thread = threading.Thread(target=self._work, name=f"spvn-wsgi-{len(self._threads) + 1}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def _start_another(self) -> None:
        """As start(), in a thread that has a call in hand. Where no more can be had, those that there are go on."""
        try:
            self.start()
        except RuntimeError as exc:
            if not self._short:
                self._short = True
                logger.error("A thread could not be started (%s): %d run the app", exc, len(self._threads))

    def close(self) -> None:
        """Let the threads end. One that is still in the app is left behind."""
        self.pool.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        pool, context, run = self.pool, self._context, self._run
        while True:
            try:
                call = pool.next()
            except (MemoryError, SystemError):
                logger.exception("A call could not begin; it was answered with an error")
                continue
            if call is None:
                return
            if len(self._threads) < self._limit and pool.idle == 0:
                self._start_another()
            context.copy().run(run, *call)
            call = None  # a thread that waits keeps nothing alive

    def _run(self, call: Exchange, environ: Environ) -> None:
        try:
            result = self._app(environ, call.start_response)
            close = getattr(result, "close", None)
            try:
                if (type(result) is list or type(result) is tuple) and len(result) == 1:
                    # Nothing comes behind it: the answer's length is known, and it is one record.
                    call.finish(result[0], close is None)
                else:
                    send = call.send
                    for block in result:
                        if send(block):
                            break
                    call.finish()
            finally:
                if close is not None:
                    close()
        except BaseException as exc:
            # SystemExit too: a call does not end the threads of the others.
            self._failed(call, exc)
            call.fail()
        else:
            call.done()
        self._errors.flush()

    def _failed(self, call: Exchange, exc: BaseException) -> None:
        if not (call.disconnected and _says_disconnect(exc)):
            logger.error('Exception in WSGI application: "%s"\n', call.request_line, exc_info=exc)


def _says_disconnect(exc: BaseException | None) -> bool:
    """Whether an exception only says that the client left, or was raised because of one that does."""
    from spvn._asgi import ClientDisconnected

    for _ in range(8):
        if exc is None:
            return False
        if isinstance(exc, ClientDisconnected) or "Disconnect" in type(exc).__name__:
            return True
        exc = exc.__cause__ or exc.__context__
    return False


class _Body(io.RawIOBase):
    """A body that is still coming, as a raw stream."""

    def __init__(self, call: Exchange) -> None:
        self._readinto = call.readinto

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._readinto(buffer)


def _input(call: Exchange) -> io.BufferedReader:
    return io.BufferedReader(_Body(call), _INPUT_BUFFER)


class FileWrapper:
    """wsgi.file_wrapper: the blocks of a file."""

    def __init__(self, file: Any, block_size: int = _FILE_BLOCK) -> None:
        self._read = file.read
        self._block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self._read(self._block_size):
            yield block


class Errors(io.TextIOBase):
    """wsgi.errors: its lines are logged as errors. Each thread has its own unfinished line."""

    def __init__(self) -> None:
        self._unfinished = threading.local()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        whole = getattr(self._unfinished, "text", "") + text
        *lines, rest = whole.split("\n")
        self._unfinished.text = rest
        for line in lines:
            logger.error("%s", line)
        return len(text)

    def flush(self) -> None:
        rest = getattr(self._unfinished, "text", "")
        if rest:
            self._unfinished.text = ""
            logger.error("%s", rest)
