"""Fixtures of the black-box tests: servers in processes of their own, on both transports."""

from __future__ import annotations

import contextlib
import resource
import signal

import pytest
from support.process import Served, key
from support.wire import Wire

TRANSPORTS = ["poll", "goroutines"]


def pytest_configure():
    """Have Ctrl-C do what it does, also where a shell has started the tests in the background, with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node):
    """Close what a failed test left open, lest the next one is blamed for it."""
    for wire in list(Wire.every):
        wire.close()


@pytest.fixture(params=TRANSPORTS, scope="session")
def transport(request):
    """Which of the core's two transports a server uses."""
    return request.param


@pytest.fixture(scope="session")
def shared_servers():
    """One server for each transport and set of options, for the whole run."""
    servers = {}

    def get(transport, *arguments):
        if (transport, arguments) not in servers:
            servers[transport, arguments] = Served(*arguments, transport=transport)
        return servers[transport, arguments]

    yield get
    with contextlib.ExitStack() as stack:
        for server in servers.values():
            stack.callback(server.end)


@pytest.fixture
def server(shared_servers, transport):
    """A server with no options but short deadlines; its counters are checked after the test."""
    server = shared_servers(
        transport,
        *("--timeout-header", "0.5", "--timeout-body", "0.5", "--timeout-keep-alive", "1", "--timeout-write", "0.5"),
    )
    yield server
    server.check()


@pytest.fixture
def patient(shared_servers, transport):
    """A server with the default deadlines; its counters are checked after the test."""
    server = shared_servers(transport, "--no-access-log")
    yield server
    server.check()


@pytest.fixture
def serve(transport):
    """Start a server with these options. It is stopped after the test; its counters are checked while it runs."""
    servers = []

    def start(*arguments, **options):
        servers.append(Served(*arguments, **{"transport": transport, **options}))
        return servers[-1]

    yield start
    try:
        for server in servers:
            if server.process.poll() is None and server.checked:
                server.check()
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def name():
    """A name for what the app notes in this test."""
    return key()


@pytest.fixture
def descriptors():
    """As many descriptors as there may be, for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
