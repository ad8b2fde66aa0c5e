"""Two servers behind haproxy, restarted in turn under load: its clients see nothing of it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .load import Load
from .served import Served
from .test_faults import under_load

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not there")

CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout check 5s
    timeout client 30s
    timeout server 30s
    option http-keep-alive
    http-reuse always
frontend front
    bind 127.0.0.1:{front}
    default_backend back
backend back
    balance roundrobin
    option httpchk GET /up
    # Checked every 100 ms; one 503 takes a server out, one 200 brings it back.
    default-server check inter 100ms fall 1 rise 1
    server one 127.0.0.1:{one}
    server two 127.0.0.1:{two}
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(folder: Path, port: int) -> Served:
    """A server on this port that has begun to serve."""
    folder.mkdir()
    options = ["--workers", "1", "--health-check-path", "/up", "--drain-delay", "0.7"]
    server = Served(folder, *options, "--port", str(port))
    server.wait_ready(1)
    return server


@contextlib.contextmanager
def haproxy(folder: Path, front: int, one: int, two: int) -> Iterator[None]:
    file = folder / "haproxy.cfg"
    file.write_text(CONFIG.format(front=front, one=one, two=two))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "haproxy.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", front)):
                break
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.wait()


def test_servers_restarted_in_turn(tmp_path: Path) -> None:
    front, *ports = free_ports(3)
    servers = [start(tmp_path / f"server{number}", port) for number, port in enumerate(ports)]
    try:
        with haproxy(tmp_path, front, *ports):
            load = Load(front, connections=50, rate=500)

            def restart() -> None:
                for number, port in enumerate(ports):
                    old = servers[number]
                    other = servers[1 - number]
                    answered_by(old, 100)
                    old.signal(signal.SIGTERM)
                    assert old.ended() == 0
                    old.close()
                    servers[number] = start(tmp_path / f"server{number}-again", port)
                    answered_by(other, 100)
                    answered_by(servers[number], 100)

            under_load(servers[0], load, restart)
            load.assert_nothing_lost()
    except BaseException:
        for server in servers:
            print(server.log())
        print((tmp_path / "haproxy.log").read_text())
        raise
    finally:
        for server in servers:
            server.close()


def answered_by(server: Served, calls: int) -> None:
    """Wait until this server has answered so many more calls."""
    have = server.stats()["calls"]["answered"]
    server.wait(lambda: server.stats()["calls"]["answered"] >= have + calls, "calls")
