"""Starts spvn on the examples, asks a few real requests over sockets, shows them, and serves until Ctrl-C.

python tools/demo.py [--once]       (`make demo` does it)
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Module below examples/, the package it needs, the port that people expect.
APPS = [("hello", None, 8000), ("fastapi_app", "fastapi", 8001)]
START_SECONDS = 30.0


class Demo(Exception):
    """Why the demo cannot go on, in one line."""


def free_port(wanted: int) -> int:
    """The wanted port, or any other where that one is taken."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Demo("there is no free port on 127.0.0.1")


@contextlib.contextmanager
def serving(module: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a person would start it, in a process of its own."""
    command = [sys.executable, "-m", "spvn", f"{module}:app", "--app-dir", "examples", "--port", str(port)]
    print("$", " ".join(["spvn", *command[3:]]), flush=True)
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_until_it_listens(server, port)
        yield server
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Demo(f"the server ended with exit code {server.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise Demo(f"nothing listens on port {port} after {START_SECONDS:.0f} s")


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> None:
    """One request, and its answer as it came."""
    began = time.perf_counter()
    connection.request(method, path, body, {} if body is None else {"content-type": "text/plain"})
    answer = connection.getresponse()
    content = answer.read()
    took = (time.perf_counter() - began) * 1000
    print(f"\n> {method} {path}" + (f"   ({len(body):,} bytes)" if body is not None else ""))
    print(f"< {answer.status} {answer.reason}   {took:.1f} ms")
    for name, value in answer.getheaders():
        print(f"< {name}: {value}")
    text = content.decode("utf-8", "replace")
    print(text.rstrip() if len(text) <= 300 else f"{text[:60]!r}... ({len(content):,} bytes)")
    if answer.status >= 400:
        raise Demo(f"{method} {path} was answered {answer.status}")


def show(port: int) -> None:
    """Every kind of answer once, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        ask(connection, "GET", "/")
        ask(connection, "GET", "/json")
        ask(connection, "POST", "/echo", b"the same bytes, please")
        ask(connection, "POST", "/upload", bytes(5_000_000))
        ask(connection, "GET", "/stream?n=3")
        ask(connection, "GET", "/sse?n=2&interval=0.2")
        ask(connection, "GET", "/background")


def show_concurrency(port: int, calls: int = 100) -> None:
    """Many calls that wait half a second each, at once: the loop waits for all of them together."""
    request = b"GET /slow?seconds=0.5 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(calls)]
        for sock in sockets:
            sock.sendall(request)
        answered = sum(b" 200 " in sock.makefile("rb").readline() for sock in sockets)
    print(f"\n{calls} calls of 0.5 s at once: {answered} answered in {time.perf_counter() - began:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Starts spvn on the examples and asks it a few requests.")
    parser.add_argument("--once", action="store_true", help="end after the requests instead of serving until Ctrl-C")
    once = parser.parse_args().once
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with contextlib.ExitStack() as stack:
        servers = []
        for module, package, wanted in APPS:
            if package is not None and importlib.util.find_spec(package) is None:
                continue
            port = free_port(wanted)
            servers.append((stack.enter_context(serving(module, port)), module, port))
            show(port)
        show_concurrency(servers[0][2])
        print()
        for _, module, port in servers:
            print(json.dumps(module), f"serves on http://127.0.0.1:{port}/")
        if once:
            return
        print("Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for server, _, _ in servers:
                server.wait()


if __name__ == "__main__":
    try:
        main()
    except Demo as problem:
        raise SystemExit(f"demo: {problem}") from None
    except KeyboardInterrupt:
        pass
