"""What is lost when something goes wrong: a worker killed or restarted, a loop blocked, more asked than can be served.

The load is an open loop at a constant rate over 100 keep-alive connections, so a stalled server cannot slow its
clients down; lost is anything but a 200.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import time
from typing import Any

from .. import load
from ..context import Context, resident
from ..errors import RowError, Skipped
from ..process import Running, pinned
from ..servers import Server
from ..works import Cell

CONNECTIONS = 100
FIRST = 2.0  # seconds into the run at which the fault strikes

# Overload: the app burns 5 ms a call in one worker.
CAPACITY = 200
DEADLINE = 1
LIGHT_RATE = 20
OVERLOAD_CONNECTIONS = 4000


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    fault = str(cell.work.options["fault"])
    if cell.work.workers > 1 and not server.two_workers:
        raise Skipped(f"{server.name} runs one worker only")
    if fault == "restart" and not server.restart:
        raise Skipped(f"{server.name} has no rolling restart")
    with context.serve(server, cell, round_number) as running:
        strike = {"kill": kill_worker, "restart": restart, "stall": stall}[fault]
        seconds = cell.work.seconds or context.seconds
        # A call that takes a while is in flight when its worker dies; one that takes no time hardly ever is.
        path = "/hello" if fault == "stall" else "/wait"
        load_run = RateRun(context, running, path, cell.size, seconds, CONNECTIONS, 10)
        time.sleep(FIRST)
        strike(running)
        return load_run.row()


def kill_worker(running: Running) -> None:
    """SIGKILL to a process that answers calls and is not the one we started."""
    workers = worker_pids(running) - {running.root}
    if not workers:
        raise Skipped(f"{running.server.name} serves from the process that was started: no worker to kill")
    os.kill(min(workers), signal.SIGKILL)


def worker_pids(running: Running) -> set[int]:
    """Which processes answer: asks on fresh connections, for a server spreads its connections over them."""
    return {int(get(running, "/pid", 5)) for _ in range(10)}


def restart(running: Running) -> None:
    os.kill(running.root, getattr(signal, running.server.restart or "SIGHUP"))


def stall(running: Running) -> None:
    """Blocks a loop for 2 s, three times, one after the other."""

    def block() -> None:
        for _ in range(3):
            try:
                get(running, "/block", 10)
            except (OSError, http.client.HTTPException):
                pass  # the load's account says what was lost; this call is not part of it
            time.sleep(0.1)

    threading.Thread(target=block, daemon=True).start()


def get(running: Running, path: str, timeout: float) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


class RateRun:
    """`load open` in the background, so that something can happen meanwhile."""

    def __init__(
        self, context: Context, running: Running, path: str, rate: int, seconds: float, connections: int, timeout: int
    ) -> None:
        self.running = running
        self.limit = seconds + 4 * timeout + 20
        command = [str(context.load), "open", "-addr", running.address, "-path", path, "-rate", str(rate)]
        command += ["-duration", f"{seconds}s", "-timeout", f"{timeout}s"]
        command += ["-connections", str(min(connections, CONNECTIONS)), "-max-connections", str(connections)]
        self.process = subprocess.Popen(
            pinned(command, context.load_cpus),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def row(self) -> dict[str, Any]:
        """Waits for the end. Errors are what was lost."""
        try:
            output, complaint = self.process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RowError(f"the client was not done after {self.limit:.0f} s") from None
        if self.process.returncode != 0:
            raise RowError(f"load open failed: {complaint.strip()[-300:]}")
        report = load.parse(output)
        return {
            "calls": report["call_us"]["count"],
            "planned": report["planned"],
            "ok": report["ok"],
            "lost": report["planned"] - report["ok"],
            "ended": report["ended"],
            "seconds": report["seconds"],
            "errors": load.problems(report),
            "latency": load.latency(report["call_us"]),
            "series": report["series"],
            **resident(self.running.root),
        }
