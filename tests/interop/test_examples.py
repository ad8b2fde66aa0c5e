"""The examples, each served by spvn as a person would start it, asked by httpx and curl."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
APPS = {
    "hello": None,
    "fastapi_app": "fastapi",
    "starlette_app": "starlette",
    "django_app": "django",
    "quart_app": "quart",
    "litestar_app": "litestar",
    "flask_app": "flask",
    "django_wsgi_app": "django",
}
WSGI = ("flask_app", "django_wsgi_app")  # a call has a thread, and those are few
MEGABYTE = 1024 * 1024


class Served:
    """A server in a process of its own, on a socket that was there before it."""

    def __init__(self, module):
        self.module = module
        self.log = tempfile.TemporaryFile()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(4096)
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-m", "spvn", f"{module}:app", "--app-dir", str(EXAMPLES)]
            self.process = subprocess.Popen(
                [*command, "--fd", str(listener.fileno()), "--no-access-log"],
                pass_fds=[listener.fileno()],
                stdout=self.log,
                stderr=self.log,
            )
        self.url = f"http://127.0.0.1:{self.port}"

    def output(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def resident(self):
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no VmRSS; the server ended with {self.process.poll()}: {self.output()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.process.wait()
            output = self.output()
            self.log.close()
        assert code == 0, output


@pytest.fixture(scope="module", params=APPS)
def served(request):
    package = APPS[request.param]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not there for this Python")
    server = Served(request.param)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def client(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def until(condition, seconds=10):
    """Waits for a condition; False when it has not come true in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def pieces(total, size=64 * 1024):
    for _ in range(total // size):
        yield b"x" * size


def test_text(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.text.startswith("Hello from ")
    assert answer.headers["content-type"].startswith("text/plain")


def test_json(client):
    assert client.get("/json").json() == {"message": "hello", "path": "/json"}


@pytest.mark.parametrize("size", [0, 1, 10_000, 3 * MEGABYTE])
def test_echo(client, size):
    body = os.urandom(size)
    answer = client.post("/echo", content=body, headers={"content-type": "application/x-thing"})
    assert answer.status_code == 200
    assert answer.content == body
    assert answer.headers["content-type"].startswith("application/x-thing")


def test_echo_of_a_chunked_body(client):
    answer = client.post("/echo", content=pieces(MEGABYTE))
    assert answer.content == b"x" * MEGABYTE


def test_upload_does_not_grow_the_server(served, client):
    """100 MB, read only as fast as the app receives."""
    client.post("/upload", content=pieces(MEGABYTE))
    before = served.resident()
    assert client.post("/upload", content=pieces(100 * MEGABYTE)).json() == {"bytes": 100 * MEGABYTE}
    assert served.resident() - before < 16 * MEGABYTE


def test_stream(client):
    answer = client.get("/stream", params={"n": 1000})
    assert answer.text == "".join(f"line {number}\n" for number in range(1000))
    assert "content-length" not in answer.headers


def test_server_sent_events_come_one_by_one(client):
    """The first is there long before the last one is written."""
    began = time.monotonic()
    with client.stream("GET", "/sse", params={"n": 3, "interval": 0.5}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "id: 0"
        assert time.monotonic() - began < 0.5
        rest = "\n".join(lines)
    assert "data: event 2" in rest


def test_a_client_that_leaves_a_stream_does_no_harm(client):
    with client.stream("GET", "/sse", params={"n": 1000, "interval": 0.01}) as answer:
        next(answer.iter_lines())
    assert client.get("/").status_code == 200


def test_file(served, client):
    answer = client.get("/file")
    assert answer.content == (EXAMPLES / f"{served.module}.py").read_bytes()
    assert "attachment" in answer.headers["content-disposition"]


def test_cookie(client):
    assert [client.get("/cookie").json()["visits"] for _ in range(3)] == [1, 2, 3]


def test_background_task_runs_after_the_answer(client):
    done = client.get("/background/done").json()["done"]
    answer = client.get("/background")
    assert answer.status_code == 202
    assert answer.json() == {"accepted": True}
    assert until(lambda: client.get("/background/done").json()["done"] == done + 1)


def test_error(client):
    assert client.get("/error").status_code == 500
    assert client.get("/").status_code == 200


def test_not_found(client):
    assert client.get("/nowhere").status_code == 404


def test_a_thousand_slow_calls_at_once(served):
    """Each waits a second: together they take little longer. In threads 200 shorter ones wait for each other."""
    count, seconds = (200, b"0.05") if served.module in WSGI else (1000, b"1")
    request = b"GET /slow?seconds=" + seconds + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60)) for _ in range(count)
        ]
        for sock in sockets:
            sock.sendall(request)
        files = [stack.enter_context(sock.makefile("rb")) for sock in sockets]
        heads = [file.readline() for file in files]
    assert {head.split()[1] for head in heads} == {b"200"}
    assert time.monotonic() - began < 30


def curl(*arguments):
    if shutil.which("curl") is None:
        assert os.environ.get("CI") != "true", "curl is not there: type `make tools`"
        pytest.skip("curl is not there: type `make tools`")
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", "--max-time", "60", *arguments],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_curl_gets(served):
    assert curl(f"{served.url}/").startswith(b"Hello from ")


def test_curl_uploads_a_file(served, tmp_path):
    """curl sends Expect: 100-continue before a body of this size."""
    path = tmp_path / "upload"
    path.write_bytes(b"x" * (5 * MEGABYTE))
    answer = json.loads(curl("--data-binary", f"@{path}", f"{served.url}/upload"))
    assert answer == {"bytes": 5 * MEGABYTE}


def test_curl_uploads_chunks(served, tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(b"y" * MEGABYTE)
    sent = curl(
        "-X", "POST", "-H", "Transfer-Encoding: chunked", "-H", "Content-Type: text/plain", "-T", str(path),
        f"{served.url}/echo",
    )  # fmt: skip
    assert sent == path.read_bytes()


def test_curl_over_one_connection(served):
    """%{num_connects} is how many connections curl had to make for a request."""
    url = f"{served.url}/json"
    answer = curl("--write-out", "[%{num_connects}]", url, url, url)
    assert re.findall(rb"\[(\d)\]", answer) == [b"1", b"0", b"0"]


def test_curl_speaks_http_1_0(served):
    assert curl("--http1.0", f"{served.url}/stream?n=3") == b"line 0\nline 1\nline 2\n"
