"""spvn.run(): serve, and turn what can go wrong into one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from spvn._types import ASGIApp
from spvn.config import Config
from spvn.errors import AppError, AppImportError, ConfigError, SpvnError, StartupFailed
from spvn.importer import importing
from spvn.server import Server

if TYPE_CHECKING:
    from spvn.supervisor import Supervisor

logger = logging.getLogger("spvn.error")


def run(app: ASGIApp | str, **options: Any) -> None:
    """Serve an app until SIGINT or SIGTERM; returns after a drained stop.

    `app` is the app itself or "module:attribute"; the options are those of Config. With workers or reload it has to be
    the latter, and the call stands under `if __name__ == "__main__":`. Where serving is not possible the
    process ends by SystemExit after one line on standard error: 1 app not importable or address not usable, 2 bad
    option, 3 the app's start-up failed.

    >>> spvn.run("main:app", port=8000)
    """
    if importing():
        raise AppError(f"{importing()} calls spvn.run() as it is imported; put that under if __name__ == \"__main__\":")
    try:
        run_config(Config(app, **options))
    except ConfigError as exc:
        _exit(exc)


def run_config(config: Config, *, exits: bool = False) -> None:
    """As run(), for a Config that is there already. exits: the process ends with it, whatever threads the app left."""
    _fill_standard_streams()
    try:
        server = server_for(config)
        server.exits = exits
        server.run()
    except SpvnError as exc:
        _exit(exc)


def _fill_standard_streams() -> None:
    """Put /dev/null where standard input, output or error was closed.

    Otherwise the next thing that is opened becomes descriptor 0, 1 or 2: a socket that the app's prints would go to,
    and that uvloop refuses to close.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def server_for(config: Config) -> Server | Supervisor:
    """The kind of server that this Config asks for. Raises ConfigError."""
    if not config.supervised:
        return Server(config)
    from spvn.supervisor import Supervisor  # most servers are one process, and start sooner without it

    return Supervisor(config)


def _exit(exc: SpvnError) -> None:
    if isinstance(exc, ConfigError):
        print(f"spvn: error: {exc}", file=sys.stderr)  # logging may not be set up, or be what is wrong
    elif isinstance(exc, AppImportError):
        logger.error("Error loading ASGI app: %s\n%s", exc, exc.report)
    elif isinstance(exc, AppError):
        logger.error("Error loading ASGI app: %s", exc)
    elif not isinstance(exc, StartupFailed):  # of which the lifespan has logged all
        logger.error("%s", exc)
    sys.exit(exc.exit_code)
