"""Where a server listens, what it says about it, and how it fails."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest
from support.process import RUNNING, free_port
from support.wire import Wire


def ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def transport():
    """Sockets are opened before either transport comes into play."""
    return "poll"


@pytest.fixture
def listening():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        listener.set_inheritable(True)
        yield listener


def body(address):
    with Wire(address) as wire:
        return wire.get("/", "Connection: close").answer().body


def test_it_says_where_it_listens_and_how_to_stop(serve):
    server = serve()
    assert server.port > 0
    said = server.err.lines
    assert any(line.endswith(f"spvn running on http://127.0.0.1:{server.port} (Press CTRL+C to quit)") for line in said)
    assert any(f"Started server process [{server.pid}]" in line for line in said)
    assert body(server.address) == b"hello"
    said = server.end()
    assert f"Finished server process [{server.pid}]" in said
    assert "lifespan shutdown" in server.out.all()


def test_several_addresses(serve, tmp_path):
    path, port = str(tmp_path / "socket"), free_port()
    server = serve("--bind", "127.0.0.1:0", "--bind", f"127.0.0.1:{port}", "--bind", f"unix:{path}")
    server.err.wait(f"unix socket {path}")
    found = [match for match in map(RUNNING.search, server.err.lines) if match]
    assert len(found) == 3
    assert body(("127.0.0.1", int(found[0][2]))) == body(("127.0.0.1", port)) == body(path) == b"hello"


def test_a_unix_socket(serve, tmp_path):
    path = str(tmp_path / "socket")
    server = serve("--uds", path)
    with Wire(path) as wire:
        seen = wire.get("/scope").answer().text
        assert '"client": null' in seen or '"client": ["' in seen
        assert f'"server": ["{path}", null]' in seen
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    server.check()
    server.end()
    assert not os.path.exists(path)


def test_a_stale_unix_socket_is_replaced(serve, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
    serve("--bind", f"unix:{path}")
    assert body(path) == b"hello"


@pytest.mark.parametrize("form", ["fd", "bind"])
def test_an_inherited_socket(serve, listening, form):
    number = str(listening.fileno())
    arguments = ("--fd", number) if form == "fd" else ("--bind", f"fd://{number}")
    server = serve(*arguments, pass_fds=[listening.fileno()])
    assert server.address == listening.getsockname()
    assert body(server.address) == b"hello"
    server.check()
    server.end()
    # It was lent: its owner may go on listening.
    with socket.create_connection(listening.getsockname(), timeout=5):
        pass


def test_sockets_of_systemd(serve, listening, tmp_path):
    """LISTEN_FDS: descriptors from 3 on; LISTEN_PID says whose they are."""
    script = tmp_path / "activate.py"
    script.write_text(
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'spvn', *sys.argv[2:]])\n"
    )
    from support.process import SUPPORT

    process = subprocess.Popen(
        [sys.executable, str(script), str(listening.fileno()), "support.app:app", "--app-dir", str(SUPPORT.parent)],
        pass_fds=[listening.fileno()],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert body(listening.getsockname()) == b"hello"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert f"127.0.0.1:{listening.getsockname()[1]}".encode() in said


@needs_ipv6
@pytest.mark.parametrize("arguments", [("--host", "::1", "--port", "0"), ("--bind", "[::1]:0")])
def test_ipv6(serve, arguments):
    server = serve(*arguments)
    assert any(f"http://[::1]:{server.port}" in line for line in server.err.lines)
    with Wire(("::1", server.port)) as wire:
        assert f'"server": ["::1", {server.port}]' in wire.get("/scope").answer().text


@needs_ipv6
def test_both_families(serve):
    server = serve("--host", "*", "--port", "0")
    assert body(("127.0.0.1", server.port)) == body(("::1", server.port)) == b"hello"


def test_the_server_address_of_a_wildcard_is_the_connections_own(serve):
    server = serve("--host", "0.0.0.0", "--port", "0")
    with Wire(("127.0.0.2", server.port)) as wire:
        assert f'"server": ["127.0.0.2", {server.port}]' in wire.get("/scope").answer().text


def refused(*arguments, code=1, **options):
    from support.process import Served

    server = Served(*arguments, wait=False, **options)
    said = server.end(None, code)
    lines = [line for line in said.splitlines() if line]
    problems = [line for line in lines if "INFO" not in line]
    assert len(problems) == 1, said
    assert "Traceback" not in said
    return problems[0]


def test_an_address_in_use(listening):
    port = listening.getsockname()[1]
    said = refused("--port", str(port))
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "unix:", "fd://x", "[::1:80"])
def test_what_is_no_address(address):
    assert refused("--bind", address, code=2).startswith(f"spvn: error: --bind: '{address}' is not")


def test_a_descriptor_that_is_not_open():
    assert "file descriptor 99" in refused("--bind", "fd://99")


def test_an_address_that_is_not_ours():
    assert "192.0.2.1" in refused("--bind", "192.0.2.1:0")


def test_a_descriptor_that_is_no_socket(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert "not a socket" in refused("--fd", str(file.fileno()), pass_fds=[file.fileno()])


def test_a_path_that_is_no_socket(tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a socket" in refused("--uds", str(tmp_path / "file"))
    assert (tmp_path / "file").exists()


def test_a_control_socket_that_cannot_be():
    assert "/nowhere/control" in refused("--control-socket", "/nowhere/control")
