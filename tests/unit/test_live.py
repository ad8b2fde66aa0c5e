"""The Python side with the real core and the real extension: few requests, all ways to start and to stop."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

import spvn
from spvn import testing

pytest.importorskip("spvn._asgi")
try:
    spvn.core.load()
except ImportError as exc:
    pytest.skip(str(exc), allow_module_level=True)

APP = """
import asyncio, contextlib

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["started"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/boom":
        raise LookupError("boom")
    if path == "/wait":
        print("waiting", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cancelled", flush=True)
    if path == "/second":
        print("waiting", flush=True)
        await asyncio.sleep(0.5)
    headers = [(b"x-state", scope["state"]["started"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": path.encode()})
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    names: dict[str, Any] = {}
    exec(APP, names)
    return names["app"]


def get(port: int, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "main.py").write_text(APP)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spvn", "main:app", "--port", "0", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None and self.process.stdout is not None
        self.log: list[str] = []
        self.port = 0
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            match = re.search(r"running on http://127\.0\.0\.1:(\d+) \(Press CTRL\+C to quit\)", line)
            if match:
                self.port = int(match[1])
                break

    def said(self, text: str) -> None:
        """Wait until the app has printed this."""
        assert self.process.stdout is not None
        assert any(text in line for line in iter(self.process.stdout.readline, ""))

    def end(self) -> tuple[int, str]:
        """Wait for the end: exit code and the rest of standard output."""
        out, err = self.process.communicate(timeout=20)
        self.log += err.splitlines()
        return self.process.returncode, out


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@contextmanager
def background(do: Callable[[], Any]) -> Iterator[list[Any]]:
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(do())
        except (OSError, http.client.HTTPException) as exc:
            result.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    yield result
    thread.join(20)
    assert result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_drains_and_the_exit_code_is_0(process: Callable[..., Process], number: int, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = process("--loop", loop)
    with background(lambda: get(server.port, "/second")) as answer:
        server.said("waiting")
        server.process.send_signal(number)
        code, out = server.end()
    assert answer == [(200, "/second")]
    assert code == 0
    assert "lifespan shutdown" in out
    assert re.search(r'^INFO:     127\.0\.0\.1:\d+ - "GET /second HTTP/1\.1" 200 OK$', out, re.MULTILINE)
    assert server.log[-1] == f"INFO:     Finished server process [{server.process.pid}]"


def test_a_second_signal_stops_now(process: Callable[..., Process]) -> None:
    server = process()
    with background(lambda: get(server.port, "/wait")) as answer:
        server.said("waiting")
        server.process.send_signal(signal.SIGINT)
        assert server.process.stderr is not None
        assert any("CTRL+C to force quit" in line for line in server.process.stderr)
        server.process.send_signal(signal.SIGINT)
        code, out = server.end()
    # A 500 or 502 if the call, or its end, got that far; or a cut connection.
    assert isinstance(answer[0], Exception) or answer[0][0] in (500, 502)
    assert code == 0
    assert "cancelled" in out
    assert "lifespan shutdown" not in out


def test_after_the_grace_calls_are_cancelled(process: Callable[..., Process]) -> None:
    server = process("--timeout-graceful-shutdown", "0.1")
    with background(lambda: get(server.port, "/wait")):
        server.said("waiting")
        server.process.terminate()
        code, out = server.end()
    assert code == 0
    assert "cancelled" in out
    assert "lifespan shutdown" in out
    assert "ERROR:    Cancel 1 running task(s), timeout graceful shutdown exceeded" in server.log


def test_an_address_in_use_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "spvn", "main:app", "--port", port],
            cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert f"127.0.0.1:{port}: this address is already in use" in line
    assert "Traceback" not in done.stderr


def test_failed_start_up_exits_3(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "spvn", "main:app", "--port", "0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "ERROR:    no database\nERROR:    Application startup failed. Exiting.\n" in done.stderr


def test_the_log_level_silences_the_access_log(process: Callable[..., Process]) -> None:
    server = process()
    assert get(server.port)[0] == 200
    server.process.terminate()
    assert "GET / " in server.end()[1]
    quiet = process("--no-access-log")
    assert get(quiet.port)[0] == 200
    quiet.process.terminate()
    assert "GET / " not in quiet.end()[1]


def test_in_a_thread(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    with testing.serve(app):
        pass  # Go's runtime opens an epoll and an eventfd of its own with its first socket
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with testing.serve(app) as server:
        assert get(server.port, "/a") == (200, "/a")
        assert get(server.port, "/boom") == (500, "Internal Server Error")
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.stats()["calls"]["arrived"] == 2
    assert server.stats()["calls"]["answered"] == 1
    assert 'Exception in ASGI application: "GET /boom HTTP/1.1"' in caplog.text
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_again_and_again_and_several_at_once(app: Any) -> None:
    for _ in range(5):
        with testing.serve(app) as one, testing.serve(app) as two:
            assert one.port != two.port
            assert get(one.port, "/1") == (200, "/1")
            assert get(two.port, "/2") == (200, "/2")


def test_a_fixture(app: Any, spvn_server: Callable[..., testing.LiveServer]) -> None:
    one, two = spvn_server(app), spvn_server(app, limit_body=10)
    assert get(one.port)[0] == get(two.port)[0] == 200


def test_several_in_one_loop(app: Any) -> None:
    servers = [spvn.Server(spvn.Config(app, port=0, log_config=None, access_log=False)) for _ in range(3)]

    async def main() -> None:
        running = asyncio.gather(*(server.serve() for server in servers))
        loop = asyncio.get_running_loop()
        while not all(server.started for server in servers):
            await asyncio.sleep(0.01)
        for server in servers:
            assert await loop.run_in_executor(None, get, server.port, "/x") == (200, "/x")
        signal.raise_signal(signal.SIGTERM)
        await running

    asyncio.run(main())
    for server in servers:
        testing.check_stats(server.stats())


def test_unix_socket_and_several_addresses(app: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with testing.serve(app, bind=[f"unix:{path}", "127.0.0.1:0"]) as server:
        assert [address.kind for address in server.addresses] == ["unix", "tcp"]
        assert get(server.port)[0] == 200
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"/u")
    assert not os.path.exists(path)


def test_limit_max_requests(process: Callable[..., Process]) -> None:
    server = process("--limit-max-requests", "2")
    assert get(server.port)[0] == 200
    assert get(server.port)[0] == 200
    assert server.end()[0] == 0
    assert "INFO:     Maximum request limit of 2 exceeded. Terminating process." in server.log


def test_asgi2_and_trace(process: Callable[..., Process], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def asgi2(scope: Any) -> Any:
        async def instance(receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"two"})

        return instance

    with testing.serve(asgi2, log_level="trace") as server:
        assert get(server.port) == (200, "two")
    assert "Send {'type': 'http.response.body', 'body': '<3 bytes>'}" in caplog.text
