"""What a crash, a kill, a stall and a broken link cost: nothing but the calls that did it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Callable

import pytest

from .load import Load
from .served import Served, alive, served


def under_load(server: Served, load: Load, act: Callable[[], object]) -> None:
    """Run `act` in a thread while the load runs."""

    async def main() -> None:
        running = asyncio.create_task(load.run())
        try:
            await asyncio.get_running_loop().run_in_executor(None, act)
        finally:
            load.stop()
            await asyncio.wait_for(running, 30)

    asyncio.run(main())


def after(server: Served, calls: int) -> None:
    """Wait until so many more calls have arrived."""
    have = server.stats()["calls"]["arrived"]
    server.wait(lambda: server.stats()["calls"]["arrived"] >= have + calls, f"{calls} more calls")


def kill_one_after_the_other(server: Served, times: int, workers: int) -> None:
    for turn in range(times):
        after(server, 300)
        os.kill(server.workers()[turn % workers], signal.SIGKILL)
        server.wait(lambda turn=turn: server.stats()["workers"]["died"] > turn, "a death")
        server.wait_ready(workers)
    after(server, 300)


def test_no_get_is_lost_by_kill_9(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port)
        under_load(server, load, lambda: kill_one_after_the_other(server, 5, 2))
        load.assert_nothing_lost()
        server.check()
        stats = server.stats()
        assert stats["calls"]["answered"] == load.sent
        assert stats["workers"]["died"] == 5
        server.wait(lambda: len(re.findall(r"died: SIGKILL \(not by spvn", server.log())) == 5)
        assert re.search(r"calls that it had begun: GET / \(0\.\d\d s\)", server.log())


def test_calls_that_wait_are_all_begun_again_soon(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, connections=80, request=b"GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n")

        def kill() -> None:
            server.wait(lambda: server.stats()["calls"]["held"] >= 80, "all to be begun")
            os.kill(server.workers()[0], signal.SIGKILL)
            server.wait(lambda: server.stats()["workers"]["died"] == 1, "a death")
            after(server, 80)

        under_load(server, load, kill)
        load.assert_nothing_lost()
        assert load.quantile(1) < 5  # one after the other they would take forty
        server.check()
        assert server.stats()["calls"]["rerun"] >= 10


def test_one_worker_killed_means_waiting_only(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        load = Load(server.port)
        under_load(server, load, lambda: kill_one_after_the_other(server, 2, 1))
        load.assert_nothing_lost()
        server.check()


def test_posts_that_were_begun_are_502_and_no_connection_is_lost(tmp_path: Path) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, request=post)
        under_load(server, load, lambda: kill_one_after_the_other(server, 3, 2))
        assert load.statuses.keys() <= {200, 502}
        assert (load.answered, load.closed, load.reset) == (load.sent, 0, 0)
        server.check()
        stats = server.stats()
        assert stats["calls"]["failed"] == load.statuses[502]
        begun = sum(len(re.findall(r"POST / \(", line)) for line in re.findall(r"died: .*", server.log()))
        assert load.statuses[502] <= begun


@pytest.mark.parametrize("path", ["/die/11", "/die/9"])
def test_a_poisoned_request_fails_alone(tmp_path: Path, path: str) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, connections=20, rate=400)

        def poison() -> None:
            after(server, 50)
            assert server.call(path)[0] == 502
            after(server, 50)

        under_load(server, load, poison)
        load.assert_nothing_lost()
        # It ran once, and once again.
        server.wait(lambda: len(re.findall(rf"died: .*GET {path} ", server.log())) == 2)
        server.check()


def test_sys_exit_in_the_app(tmp_path: Path) -> None:
    """It ends the call, and costs nobody else anything."""
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        before = server.workers()
        request = b"POST /sleep/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        load = Load(server.port, connections=1, rate=1, request=request)

        def leave() -> None:
            server.wait(lambda: server.stats()["calls"]["in_flight"] == 1)
            load.stop()
            assert server.call("/exit/7")[0] == 500
            assert server.call()[0] == 200

        under_load(server, load, leave)
        load.assert_nothing_lost()
        assert server.workers() == before
        assert "SystemExit: 7" in server.log()


def test_a_forked_process_of_the_app_is_not_the_worker(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        before = server.workers()
        # SIGTERM ends the forked process, and neither it nor its end means anything to the worker.
        assert server.call("/fork") == (200, f'{{"exit": {-signal.SIGTERM}}}')
        assert server.call() == (200, str(before[0]))
        assert "got SIGTERM" not in server.log()


@pytest.mark.parametrize("path", ["/scribble", "/scribble/later"])
def test_a_worker_that_scribbles_over_its_link(tmp_path: Path, path: str) -> None:
    """It then goes on as if nothing were; what it says is not believed, and it is replaced."""
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, connections=20, rate=400)

        def scribble() -> None:
            after(server, 50)
            # It is run again in the other worker, which does it too.
            assert server.call(path)[0] == 502
            # Who finds out first has it killed, unless it has crashed over its own doing before.
            killed = r"SIGKILL by spvn, because (it broke the rules of its link|it found its link to the core broken)"
            server.wait(lambda: len(re.findall(rf"died: ({killed}|SIG(SEGV|BUS|ABRT))", server.log())) == 2)
            after(server, 50)

        under_load(server, load, scribble)
        assert (load.closed, load.reset) == (0, 0)
        server.wait_ready(2)


def test_a_blocked_loop_delays_nobody_else(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, connections=24, rate=300)

        def block() -> None:
            after(server, 50)
            assert server.call("/block/2")[0] == 200

        under_load(server, load, block)
        load.assert_nothing_lost()
        assert load.quantile(0.99) < 0.5  # 5 ms on a machine that has nothing else to do
        server.wait_log(r"Worker \d \[\d+\] goes on; its loop was blocked for [12]\.\d s")
        log = server.log()
        assert re.search(
            r"its loop has been blocked for 1\.\d s.* it is here:\nCurrent thread .*\n  File .*main.py", log
        )


def test_a_stalled_worker_can_be_killed_before_it_is_logged(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--stall-warning", "10", "--timeout-worker-stall", "0.5") as server:
        server.wait_ready(1)
        began = time.monotonic()
        assert server.call("/block/8")[0] == 502
        assert time.monotonic() - began < 4
        assert "its loop has been blocked" not in server.log()


def test_a_stalled_worker_can_be_killed(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--stall-warning", "0.2", "--timeout-worker-stall", "0.5") as server:
        server.wait_ready(1)
        before = server.workers()
        # It is not run again: it would stall the next one.
        assert server.call("/block/30")[0] == 502
        server.wait_log(r"died: SIGKILL by spvn, because its loop was blocked for 0\.\d s")
        server.wait_ready(1)
        assert server.workers() != before
        assert server.call()[0] == 200


@pytest.mark.parametrize("busy", ["", "/sleep/60", "/block/60", "/match/60"])
def test_workers_end_when_the_core_is_gone(tmp_path: Path, busy: str) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        workers = server.workers()
        if busy:
            import socket

            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(f"GET {busy} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            server.wait(lambda: server.stats()["calls"]["in_flight"] == 1)
        server.signal(signal.SIGKILL)
        server.process.wait()
        asyncio.run(gone(workers))
        shutdowns = (tmp_path / "shutdowns").read_text().split()
        assert len(shutdowns) == (1 if busy.startswith(("/block", "/match")) else 2)
        assert (tmp_path / "cancelled").exists() == busy.startswith("/sleep")
        if busy:
            connection.close()


async def gone(pids: list[int]) -> None:
    """Wait until these processes have ended, for two seconds and what a busy machine needs."""
    deadline = asyncio.get_running_loop().time() + 3
    while any(alive(pid) for pid in pids):
        assert asyncio.get_running_loop().time() < deadline, pids
        await asyncio.sleep(0.01)
