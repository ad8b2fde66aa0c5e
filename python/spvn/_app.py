"""From a Config to an app that can be called as app(scope, receive, send)."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Union

from spvn._types import ASGI2App, ASGI3App, ASGIApp, Receive, Scope, Send
from spvn.config import Config
from spvn.envfile import load_env_file
from spvn.importer import interface_of, load_app
from spvn.logging import TRACE
from spvn.wsgi import App as WSGIApp

logger = logging.getLogger("spvn.error")

Served = Union[ASGIApp, WSGIApp]
"""What a worker runs."""


def prepare(config: Config) -> tuple[Served, str]:
    """The app of this Config, and the ASGI version that it speaks; a WSGI app comes as a wsgi.App.

    Raises AppError or ConfigError.
    """
    if config.env_file is not None:
        load_env_file(config.env_file)
    search(config)
    app = load_app(config.app, factory=config.factory, warn=logger.warning)
    interface = interface_of(app) if config.interface == "auto" else config.interface
    if interface == "wsgi":
        return WSGIApp(app, config.threads, multiprocess=(config.workers or 1) > 1), "3.0"
    version = "3.0"
    if interface == "asgi2":
        app, version = _from_asgi2(app), "2.0"
    if logger.isEnabledFor(TRACE):
        app = _traced(app)
    return app, version


def search(config: Config) -> None:
    """Have modules looked for in --app-dir first: that of the app, and what else the options name."""
    if config.app_dir is not None:
        folder = os.path.abspath(config.app_dir)
        if folder not in sys.path[:1]:
            sys.path.insert(0, folder)


def _from_asgi2(app: ASGI2App) -> ASGI3App:
    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi3


def _traced(app: ASGI3App) -> ASGI3App:
    """The app with every message of it logged at level TRACE, bodies as their length."""
    trace = logging.getLogger("spvn.asgi")
    calls = 0

    def brief(message: Any) -> dict[str, Any]:
        return {
            key: f"<{len(value)} bytes>" if key in ("body", "bytes") and value is not None else value
            for key, value in message.items()
        }

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        who = f"{scope.get('client') or scope['type']} [{calls}]"

        async def traced_receive() -> Any:
            message = await receive()
            trace.log(TRACE, "%s Receive %s", who, brief(message))
            return message

        async def traced_send(message: Any) -> None:
            trace.log(TRACE, "%s Send %s", who, brief(message))
            await send(message)

        trace.log(TRACE, "%s Started scope=%s", who, {k: v for k, v in scope.items() if k != "state"})
        try:
            await app(scope, traced_receive, traced_send)
        except BaseException:
            trace.log(TRACE, "%s Raised exception", who)
            raise
        trace.log(TRACE, "%s Completed", who)

    return traced
