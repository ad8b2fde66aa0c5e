"""A live server for tests, outside of pytest too.

>>> with spvn.testing.serve(app) as server:
...     httpx.get(server.url)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from spvn._run import server_for
from spvn._types import ASGIApp
from spvn.config import Config
from spvn.core import Address
from spvn.server import Server

if TYPE_CHECKING:
    from spvn.supervisor import Supervisor

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class LiveServer:
    """A server that runs in a thread of its own, on its own loop."""

    def __init__(self, server: Server | Supervisor) -> None:
        self.server = server
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="spvn-testing", daemon=True)

    @property
    def url(self) -> str:
        """Such as "http://127.0.0.1:49152", without a slash at the end."""
        return self.server.url

    @property
    def port(self) -> int:
        """The TCP port; 0 for a unix socket."""
        return self.server.port

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses that it listens on."""
        return self.server.addresses

    def stats(self) -> dict[str, Any]:
        """The server's counters."""
        return self.server.stats()

    def start(self) -> None:
        """Start, and wait until the app is ready. Raises what kept the server from starting."""
        self._thread.start()
        if not self.server.wait_started(_START_SECONDS):
            self.server.force_exit = True
            self._thread.join(_STOP_SECONDS)
            raise self._error or RuntimeError(f"the server did not start within {_START_SECONDS:g} seconds")

    def stop(self) -> None:
        """Drain, stop, and wait for the thread. Raises what the server ended with, if it was an error."""
        self.server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            self.server.force_exit = True
            self._thread.join(_STOP_SECONDS)
            raise RuntimeError(f"the server did not drain within {_STOP_SECONDS:g} seconds")
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Assert that every call is accounted for: arrived = answered + refused + failed + left + in flight."""
        check_stats(self.stats())

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as exc:  # noqa: BLE001  handed to the thread that waits
            self._error = exc


def check_stats(stats: dict[str, Any]) -> None:
    """Assert that the counters add up."""
    calls = stats["calls"]
    ends = {name: calls[name] for name in ("answered", "refused", "failed", "left", "in_flight")}
    assert calls["arrived"] == sum(ends.values()), f"{calls['arrived']} calls arrived, but the ends are {ends}"


@contextlib.contextmanager
def serve(app: ASGIApp | str, **options: Any) -> Generator[LiveServer, None, None]:
    """Serve an app on a free port for as long as the block runs; then drain, stop, and check the counters.

    The options are those of Config. Unless they say otherwise nothing is configured in logging, and there is no
    access log: messages go where the test's own logging sends them (pytest's caplog, for one).
    """
    server = start(app, **options)
    try:
        yield server
    except BaseException:
        server.server.force_exit = True
        # What the block raised is what matters.
        with contextlib.suppress(Exception):
            server.stop()
        raise
    server.stop()
    server.check()


def start(app: ASGIApp | str, **options: Any) -> LiveServer:
    """As serve(), for who calls stop() and check() later."""
    settings: dict[str, Any] = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 10.0}
    if not {"bind", "uds", "fd"} & options.keys():
        settings["port"] = 0
    settings.update(options)
    config = Config(app, **settings)
    # Not because of a WEB_CONCURRENCY that is around: an app that is given as an object has to run in this process.
    server = LiveServer(server_for(config) if {"workers", "reload"} & options.keys() else Server(config))
    server.start()
    return server


__all__ = ["LiveServer", "check_stats", "serve", "start"]
