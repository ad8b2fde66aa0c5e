"""The same, for as long as it takes to believe it (`make soak`)."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from .load import Load
from .served import served
from .test_faults import after, kill_one_after_the_other, under_load

pytestmark = pytest.mark.soak
SECONDS = 20.0


def test_kill_9_in_a_loop(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, connections=200)
        killed: list[int] = []

        def kill() -> None:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                killed.append(server.workers()[-1])
                os.kill(killed[-1], signal.SIGKILL)
                server.wait(lambda: server.stats()["workers"]["died"] >= len(killed), "a death")
                server.wait(lambda: bool(server.ready()), "a worker")

        under_load(server, load, kill)
        # A call whose worker dies twice under it is not run a third time.
        assert load.statuses.keys() <= {200, 502}
        assert load.statuses[502] <= 0.01 * load.sent
        assert (load.answered, load.closed, load.reset, load.cut) == (load.sent, 0, 0, 0)
        server.check()
        assert len(killed) >= 10


def test_one_kill_at_a_time(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port, connections=200)
        under_load(server, load, lambda: kill_one_after_the_other(server, 20, 2))
        load.assert_nothing_lost()
        server.check()


@pytest.mark.parametrize("start_seconds", ["0", "5"])
def test_sighup_every_two_seconds(tmp_path: Path, start_seconds: str) -> None:
    with served(tmp_path, "--workers", "2", env={"START_SECONDS": start_seconds}) as server:
        server.wait_ready(2)
        load = Load(server.port)

        def restart() -> None:
            for _ in range(int(SECONDS / 2)):
                server.signal(signal.SIGHUP)
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    after(server, 100)

        under_load(server, load, restart)
        load.assert_nothing_lost()
        server.check()


def test_a_loop_that_is_blocked_again_and_again(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port)

        def block() -> None:
            for _ in range(5):
                assert server.call("/block/2")[0] == 200
                after(server, 1000)

        under_load(server, load, block)
        load.assert_nothing_lost()
        print([(q, load.quantile(q)) for q in (0.5, 0.9, 0.95, 0.99, 0.995, 0.999)], load.sent)
        assert load.quantile(0.99) < 0.05
        assert len(re.findall("goes on; its loop was blocked for", server.log())) == 5
