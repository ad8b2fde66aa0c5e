"""The C extension that runs ASGI apps on the end of a link to the core (sources in python/_asgi)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

VERSION: Final[int]
"""The version of the link's layout that this extension speaks."""

def exit_when_closed(descriptor: int, seconds: float, code: int, /) -> None:
    """End the process with this code, so long after the other end of a pipe was closed, whatever Python is doing."""

class ClientDisconnected(OSError):
    """The client left, or its connection was cut: send() cannot reach it any more (ASGI HTTP spec 2.4)."""

@final
class Exchange:
    """One run of a WSGI app: what its thread reads, writes and ends.

    What waits has let go of the GIL. ClientDisconnected says that nobody is there any more.
    """

    @property
    def disconnected(self) -> bool:
        """Whether nobody waits for the answer: the client left, the call was cancelled, or the link is gone."""
    @property
    def started(self) -> bool:
        """Whether start_response() was called."""
    @property
    def request_line(self) -> str:
        """Such as "GET /path?query HTTP/1.1"."""
    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's: returns write()."""
    def write(self, body: bytes, /) -> None:
        """PEP 3333's: send a block, and wait while the client takes none."""
    def send(self, body: bytes, /) -> bool:
        """As write(); True if no block that follows would be sent (HEAD, 204, 304)."""
    def finish(self, body: bytes = b"", done: bool = False, /) -> None:
        """Send the last block; with done the app has returned, too."""
    def done(self) -> None:
        """End the call: the app has returned."""
    def fail(self) -> None:
        """End the call: the app raised. The core answers 500, or cuts the connection."""
    def readinto(self, buffer: Any, /) -> int:
        """Wait for a part of the request's body; 0 is its end."""

@final
class Pool:
    """What the threads of a WSGI app share: a Link takes it in the app's place, and each thread calls next().

    Args:
        environ: What the environ of every call begins with.
        make_input: Makes the wsgi.input of a call whose body has not come as a whole; it reads by readinto().
        threads: How many threads there may be, as the core is told.
    """

    def __init__(self, environ: dict[str, Any], make_input: Callable[[Exchange], Any], threads: int) -> None: ...
    @property
    def idle(self) -> int:
        """How many threads wait in next()."""
    @property
    def pending(self) -> int:
        """How many calls wait for a thread; the core may have taken some back."""
    def next(self) -> tuple[Exchange, dict[str, Any]] | None:
        """Wait for a call and claim it; None once the pool is closed."""
    def close(self) -> None:
        """Have next() return None, in every thread that waits in it."""

@final
class Link:
    """A worker's end of the link to the core: runs an ASGI app for the calls that the core offers.

    Args:
        memfd: The shared memory. This and the bells stay the caller's, and open until detach().
        bell: The worker's doorbell; register drain() as its reader.
        loop_bells: The doorbells of the core's poll loops, one for each.
        app: The ASGI 3 app; or a Pool, whose threads run a WSGI app.
        loop: The event loop that runs it. All methods belong to its thread.
        root_path: Put in front of each path.
        state: The app's lifespan state; each scope gets a shallow copy. None: scopes have no state.
        on_error: Called as on_error("exception", exception, request_line) for an app's unhandled exception, and as
            on_error("incomplete", None, request_line) for an app that returned without a complete answer.
        on_control: Called with "drain" and "stop" when the core says so, and with "corrupt" once drain() has found the
            link broken and let go of it: no call of this worker will ever be answered.
        on_timer: Called as on_timer(id, number, due, key, data) when a timer is due that this worker is to run: number
            counts its due times, due is seconds since 1970. What it starts ends with timer_done(id, failed).
        pathsend: Offer the extension http.response.pathsend.
        alone: No other worker could run what this one has not begun, so that before Python 3.12 it takes several
            calls at a time.
        address: Where the core has mapped memfd in this process: it is not mapped again.

    Raises:
        ValueError: memfd is not a link, or one of another version.
        OSError: It cannot be mapped.
    """

    def __init__(
        self,
        memfd: int,
        bell: int,
        loop_bells: Sequence[int],
        app: Callable[..., Any] | Pool,
        loop: asyncio.AbstractEventLoop,
        *,
        root_path: str = "",
        state: dict[str, Any] | None = None,
        on_error: Callable[[str, BaseException | None, str], object],
        on_control: Callable[[str], object],
        on_timer: Callable[[int, int, float, bytes, bytes], object] | None = None,
        pathsend: bool = False,
        alone: bool = False,
        address: int = 0,
    ) -> None: ...
    @property
    def calls(self) -> int:
        """How many calls are held: claimed, and their end not yet written."""
    @property
    def detached(self) -> bool:
        """Whether detach() was called."""
    def drain(self) -> None:
        """Take what the core wrote; the loop's reader callback for the bell.

        Raises what an app raised that no task keeps: SystemExit and KeyboardInterrupt. The link goes on after it.
        """
    def ready(self) -> None:
        """Tell the core that the app has started: calls may come."""
    def start_failed(self, message: str, /) -> None:
        """Tell the core that the app could not start, and why."""
    def stopped(self) -> None:
        """Tell the core that the app has shut down: nothing follows."""
    def timer_set(
        self,
        key: bytes,
        data: bytes,
        interval: float,
        first: float,
        jitter: float,
        *,
        all: bool = False,
        overlap: bool = False,
        local: bool = False,
        any: bool = False,
    ) -> None:
        """Set a timer in the core, in place of one with this key.

        Args:
            key: Its name; local ones are each worker's own.
            data: Given to on_timer.
            interval: Seconds between due times; 0: it is due once.
            first: Seconds until it is due first.
            jitter: Up to how many seconds later than due it comes, at random.
            all: Every worker that has set it runs each due time, not one of them.
            overlap: A due time is run although the one before still runs.
            local: It is this worker's alone and ends with it.
            any: Workers that have not set it run it too.
        """
    def timer_cancel(self, key: bytes, *, local: bool = False) -> None:
        """Cancel a timer."""
    def timer_done(self, id: int, failed: bool, /) -> None:
        """Tell the core that what on_timer heard of has run."""
    def raised(self, exception: BaseException, /) -> bool:
        """Whether a call has just raised this SystemExit or KeyboardInterrupt, and ended the loop's run with it."""
    def cancel(self) -> int:
        """Cancel the task of every call that runs; return how many. Their CancelledErrors are not reported."""
    def detach(self) -> None:
        """Let go of the memory. Calls that still run find their client gone: send() raises ClientDisconnected."""
