"""Fixtures of the WebSocket tests: servers with ws_app, on both transports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def start(Served, *arguments, transport="poll", **options):
    env = {"PYTHONPATH": str(HERE.parent), **options.pop("env", {})}
    arguments = ("--app-dir", str(HERE), "--no-access-log", *arguments)
    return Served(*arguments, app=options.pop("app", "ws_app:app"), transport=transport, env=env, **options)


@pytest.fixture(scope="module", params=["poll", "goroutines"])
def echo_server(request):
    """One server with no options for all tests of a module; its counters are checked at the end."""
    from support.process import Served

    server = start(Served, transport=request.param)
    yield server
    try:
        server.check()
        stats = server.stats()["websockets"]
        assert stats["accepted"] == stats["closed"] and stats["open"] == stats["closing"] == 0, stats
        server.end()
    finally:
        server.kill()


@pytest.fixture
def ws_serve(transport):
    """Start a server with these options. Its counters are checked after the test, then it is stopped."""
    from support.process import Served

    servers = []

    def serve(*arguments, **options):
        servers.append(start(Served, *arguments, transport=options.pop("transport", transport), **options))
        return servers[-1]

    yield serve
    try:
        for server in servers:
            if server.process.poll() is None and server.checked:
                server.check()
    finally:
        for server in servers:
            server.kill()
