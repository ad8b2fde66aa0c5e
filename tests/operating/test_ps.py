"""`spvn ps` against real servers, in one process and with workers."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from workers.served import PYTHON, Served, served

from spvn.ps import ask

pytest.importorskip("spvn._asgi")

APP = """
import asyncio, os, time
from spvn import schedule

def hold_the_loop():
    while not os.path.exists("go"):
        time.sleep(0.01)

async def long_timer():
    await asyncio.sleep(60)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        schedule.after(0, long_timer, key="a long one", local=True)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["path"] == "/block":
        hold_the_loop()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"x" * 5000, "more_body": True})
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"ok"})
"""


def ps(server: Served, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spvn", "ps", *options],
        env={**os.environ, "PYTHONPATH": PYTHON, "SPVN_CONTROL_SOCKET": str(server.control)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def report(server: Served) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ask(str(server.control), "/ps"))
    return answer


@contextmanager
def calling(server: Served, *paths: str) -> Iterator[None]:
    """Make these calls in threads for as long as the block runs; then let them go on."""
    threads = [threading.Thread(target=server.call, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        (server.folder / "go").touch()
        for thread in threads:
            thread.join()


def calls(server: Served) -> Callable[[], dict[str, str]]:
    return lambda: {call["path"]: call["state"] for call in report(server)["calls"]}


@pytest.mark.parametrize("options", [(), ("--workers", "1")], ids=["in-process", "workers"])
def test_while_the_only_loop_is_blocked(tmp_path: Path, options: tuple[str, ...]) -> None:
    with served(tmp_path, "--timeout-graceful-shutdown", "0.2", *options, app=APP) as server:
        assert server.port
        state = calls(server)
        with calling(server, "/stream"):
            server.wait(lambda: state().get("/stream") == "sending", "the stream")
            with calling(server, "/block"):
                server.wait(lambda: state().get("/block") == "claimed", "the block")
                with calling(server, "/waits"):
                    server.wait(lambda: "/waits" in state(), "the call that waits")
                    blocked(server, in_process=not options)
        server.wait(lambda: list(state().values()) == ["timer"], "the end of the calls")


def blocked(server: Served, *, in_process: bool) -> None:
    """What can be known while the only loop is blocked."""
    answer = report(server)
    states = {call["path"]: call["state"] for call in answer["calls"]}
    assert states.pop("/waits") in ("offered", "queued")  # before it was known that the loop is blocked, or after
    assert states == {"a long one": "timer", "/stream": "sending", "/block": "claimed"}
    (worker,) = answer["workers"]
    assert worker["state"] == "ready" and worker["held"] >= 3
    assert (worker["pid"] == server.process.pid) is in_process
    assert json.loads(ps(server, "--json").stdout)["workers"][0]["pid"] == worker["pid"]
    text = ps(server).stdout
    assert "GET     /block" in text and "a long one" in text
    stack = ps(server, "--stack", "1")
    assert "in hold_the_loop" in stack.stdout, stack.stderr
    assert "in app" in stack.stdout


def test_bytes_and_states(tmp_path: Path) -> None:
    with served(tmp_path, "--timeout-graceful-shutdown", "0.2", app=APP) as server:
        assert server.port
        with calling(server, "/stream"):
            server.wait(lambda: calls(server)().get("/stream") == "sending", "the stream")
            (call,) = (call for call in report(server)["calls"] if call["path"] == "/stream")
            assert call["sent"] == 5000 and call["received"] == 0 and call["method"] == "GET" and call["worker"] == 1
            assert "4.9K" in ps(server, str(server.control)).stdout


def test_it_is_the_owner_s(tmp_path: Path) -> None:
    with served(tmp_path, "--timeout-graceful-shutdown", "0.2", app=APP) as server:
        assert server.port
        assert stat.S_IMODE(server.control.stat().st_mode) == 0o600


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with served(tmp_path, "--timeout-graceful-shutdown", "0.2", app=APP) as server:
        assert server.port
        for options, message in (
            (("--stack", "9"), "there is no worker 9"),
            ((str(tmp_path / "nothing"),), "No such file or directory"),
        ):
            done = ps(server, *options)
            assert done.returncode == 1 and done.stdout == ""
            assert message in done.stderr and done.stderr.count("\n") == 1
