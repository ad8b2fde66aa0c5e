"""`spvn` with worker processes as a person would start it, and what a test wants to know of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

PYTHON = str(Path(__file__).parents[2] / "python")
APP = Path(__file__).with_name("app.py").read_text()
WAIT_SECONDS = 20.0


class Served:
    """A supervisor and its workers, in a directory with an app of its own as main.py."""

    def __init__(self, folder: Path, *options: str, app: str = APP, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.main = folder / "main.py"
        if not self.main.exists():
            self.main.write_text(app)
        self._log = (folder / "log").open("w+b")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPVN_", "UVICORN_"))}
        clean.pop("WEB_CONCURRENCY", None)
        clean.update({"PYTHONPATH": PYTHON, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})})
        self.control = folder / "control"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spvn", "main:app", "--port", "0", "--no-access-log"]
            + ["--control-socket", str(self.control), *options],
            cwd=folder,
            env=clean,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def port(self) -> int:
        """The port, once the server says that it serves."""
        return int(self.wait_log(r"running on http://127\.0\.0\.1:(\d+)")[1])

    def log(self) -> str:
        """All that was logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until this is in the log."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.log())
            if match is not None:
                found.append(match)
            return match is not None

        self.wait(look, f"{pattern!r} in the log")
        return found[0]

    def wait(self, condition: Callable[[], bool], what: str = "what is waited for") -> None:
        """Wait for a condition, but not longer than anything should take."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            ended = self.process.poll()
            assert time.monotonic() < deadline and ended is None, f"no {what}; ended: {ended}\n{self.log()}"
            time.sleep(0.01)

    def workers(self) -> list[int]:
        """The process ids of the workers, the oldest first."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(int(pid) for pid in text.split())

    def ready(self) -> list[dict[str, Any]]:
        """The workers that are ready, as the core tells them."""
        return [worker for worker in self.stats()["worker_list"] if worker["state"] == "ready"]

    def wait_ready(self, count: int) -> None:
        """Wait until so many workers are ready and there are no others."""
        assert self.port

        def settled() -> bool:
            return len(self.ready()) == count == len(self.stats()["worker_list"]) == len(self.workers())

        self.wait(settled, f"{count} ready workers")

    def stats(self) -> dict[str, Any]:
        """The counters, from the control socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.control))
            connection.sendall(b"GET /stats HTTP/1.1\r\n\r\n")
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        text = b"".join(parts)
        stats: dict[str, Any] = json.loads(text[text.index(b"{") :])
        return stats

    def check(self) -> None:
        """Assert that every call is accounted for."""
        calls = self.stats()["calls"]
        ends = {name: calls[name] for name in ("answered", "refused", "failed", "left", "in_flight")}
        assert calls["arrived"] == sum(ends.values()), (calls["arrived"], ends)

    def call(self, path: str = "/", method: str = "GET", **fields: str) -> tuple[int, str]:
        """One call on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, headers=fields)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def signal(self, number: int) -> None:
        """To the supervisor."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end\n{self.log()}") from None

    def close(self) -> None:
        """Kill what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


@contextlib.contextmanager
def served(folder: Path, *options: str, **more: Any) -> Iterator[Served]:
    """A server for as long as the block runs. One that still runs at the end has to stop when told to."""
    server = Served(folder, *options, **more)
    try:
        yield server
        if server.process.poll() is None:
            server.signal(signal.SIGTERM)
            assert server.ended() == 0, server.log()
            assert "Traceback" not in server.log().rsplit("Shutting down", 1)[-1], server.log()
    except BaseException:
        print(server.log(), file=sys.stderr)
        raise
    finally:
        server.close()


def alive(pid: int) -> bool:
    """Whether this process runs (one that nobody has reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
