"""The pytest plugin: a fixture that starts live servers.

>>> def test_hello(spvn_server):
...     server = spvn_server(app)
...     assert httpx.get(server.url).text == "hello"
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from spvn._types import ASGIApp

# spvn.testing is imported by the fixture: a plugin is loaded in every run of pytest, also
# in those that have nothing to do with spvn.


@pytest.fixture
def spvn_server() -> Generator[Callable[..., Any], None, None]:
    """A function that serves an app, or "module:attribute", on a free port: `server = spvn_server(app, **options)`.

    It returns an spvn.testing.LiveServer with `.url`, `.port` and `.stats()`. At the end of the test every server is
    drained and stopped, and its counters are checked.
    """
    from spvn import testing

    servers: list[testing.LiveServer] = []

    def start(app: ASGIApp | str, **options: Any) -> testing.LiveServer:
        server = testing.start(app, **options)
        servers.append(server)
        return server

    yield start
    for server in reversed(servers):
        server.stop()
    for server in servers:
        server.check()
