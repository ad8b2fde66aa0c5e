from __future__ import annotations

import pytest
from support.process import Served

APP = "overload.app:app"


@pytest.fixture
def start():
    """Start a server with these options and the app of these tests. Its counters are checked before it is stopped."""
    servers = []

    def start(*arguments, **options):
        servers.append(Served("--no-access-log", *arguments, **{"app": APP, **options}))
        return servers[-1]

    yield start
    try:
        for server in servers:
            if server.process.poll() is None:
                server.check()
                server.end()
    finally:
        for server in servers:
            server.kill()
