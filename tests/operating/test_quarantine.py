"""--quarantine: what kills workers is kept out for a while, and nothing else is."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from workers.served import served

pytest.importorskip("spvn._asgi")

APP = """
import asyncio, os, signal

async def app(scope, receive, send):
    if scope["path"] == "/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif scope["path"] == "/exit":
        os._exit(7)
    elif scope["path"] == "/slow":
        await asyncio.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def test_what_kills_workers_is_kept_out(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2", "--quarantine", "60", app=APP) as server:
        server.wait_ready(2)
        for path, how in (("/crash", "SIGSEGV"), ("/exit", "exit code 7")):
            assert server.call(path)[0] == 502  # it ran twice
            server.wait_log(rf"GET {path} has ended worker \d+ \({how}\): such requests are answered 503 for 1m0s")
            assert server.call(path + "?x=1")[0] == 503
            server.wait_ready(2)
            assert server.call(path, method="POST")[0] == 502  # another request
            server.wait_log(rf"POST {path} has ended worker")
            assert server.call("/")[0] == 200
            server.wait_ready(2)
        assert server.stats()["calls"]["refused_by"]["quarantine"] == 2
        assert server.stats()["workers"]["died"] == 6
        server.check()


def test_it_ends(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--quarantine", "0.5", app=APP) as server:
        server.wait_ready(1)
        assert server.call("/exit", method="POST")[0] == 502
        server.wait(lambda: server.call("/exit", method="POST")[0] == 502, "the end of the quarantine")


def test_a_death_from_outside_is_nobody_s_fault(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--quarantine", "60", "--no-retry-safe", app=APP) as server:
        server.wait_ready(1)
        status, pid = server.call("/")
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(server.call("/slow")[0]))
        thread.start()
        server.wait(lambda: any(worker["held"] for worker in server.ready()), "the call")
        server.wait(lambda: server.stats()["calls"]["claimed"] == 2, "the claim")
        os.kill(int(pid), signal.SIGKILL)
        thread.join()
        assert results == [502]
        server.wait_ready(1)
        assert "quarantine" not in server.log()
        assert server.call("/")[0] == 200
