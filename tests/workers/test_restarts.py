"""Workers that are replaced while they serve: nothing is lost, and nobody sees it."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable

import pytest

from spvn import testing

from .load import Load
from .served import APP, PYTHON, Served, alive, served
from .test_faults import after, under_load


def hang_up(server: Served) -> None:
    """SIGHUP, then wait until every worker is another one."""
    before = set(server.workers())
    server.signal(signal.SIGHUP)
    server.wait(lambda: not before & set(server.workers()), "new workers")
    server.wait_ready(len(before))


def states(server: Served) -> list[str]:
    """The workers' states, in alphabetical order."""
    return sorted(worker["state"] for worker in server.stats()["worker_list"])


def test_sighup_under_load(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        load = Load(server.port)

        def restart() -> None:
            for _ in range(3):
                after(server, 200)
                hang_up(server)
            after(server, 200)

        under_load(server, load, restart)
        load.assert_nothing_lost()
        server.check()
        assert server.stats()["workers"]["started"] == 8
        assert len((tmp_path / "shutdowns").read_text().split()) == 6
        assert "died" not in server.log()


def test_sighup_again_and_again_with_a_slow_start(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2", env={"START_SECONDS": "0.5"}) as server:
        server.wait_ready(2)
        load = Load(server.port, rate=500)
        before = set(server.workers())

        def restart() -> None:
            # More often than a worker can start: each that does takes its place all the same.
            for _ in range(8):
                server.signal(signal.SIGHUP)
                after(server, 100)
            server.wait(lambda: not before & set(server.workers()), "new workers")
            server.wait_ready(2)

        under_load(server, load, restart)
        load.assert_nothing_lost()
        server.check()


def test_a_call_in_flight_outlives_the_restart(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        before = server.workers()
        load = Load(server.port, connections=1, rate=1, request=b"GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n")

        def restart() -> None:
            server.wait(lambda: server.stats()["calls"]["in_flight"] == 1)
            server.signal(signal.SIGHUP)
            load.stop()
            server.wait(lambda: states(server) == ["draining", "ready"], "the new one beside the old")
            assert server.call()[1] != str(before[0])

        under_load(server, load, restart)
        load.assert_nothing_lost()
        assert load.bodies == {str(before[0]).encode(): 1}


def test_what_is_still_running_after_the_grace_is_told_then_cut(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--timeout-graceful-shutdown", "0.3") as server:
        server.wait_ready(1)
        load = Load(server.port, connections=1, rate=1, request=b"GET /sleep/30 HTTP/1.1\r\nHost: a\r\n\r\n")

        def restart() -> None:
            server.wait(lambda: server.stats()["calls"]["in_flight"] == 1)
            load.stop()
            hang_up(server)

        under_load(server, load, restart)
        assert load.statuses == {504: 1}
        assert (tmp_path / "cancelled").exists()
        assert (tmp_path / "shutdowns").exists()
        server.check()


@pytest.mark.parametrize("how", ["the time is over", "a second signal"])
def test_the_end_leaves_nobody_without_an_answer(tmp_path: Path, how: str) -> None:
    """More calls than the worker can begin wait when the server ends: each of them is told."""
    grace = "0.3" if how == "the time is over" else "30"
    with served(tmp_path, "--workers", "1", "--timeout-graceful-shutdown", grace) as server:
        server.wait_ready(1)
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10)) for _ in range(40)]
            for wire in wires:
                wire.sendall(b"GET /block/2 HTTP/1.1\r\nHost: a\r\n\r\n")
            server.wait(lambda: server.stats()["calls"]["in_flight"] == len(wires))
            server.signal(signal.SIGTERM)
            if how == "a second signal":
                server.wait_log("Shutting down")
                server.signal(signal.SIGTERM)
            statuses = collections.Counter(wire.makefile("rb").readline()[9:12] for wire in wires)
            assert set(statuses) <= {b"503", b"504"} and statuses[b"503"] >= 30, statuses
        server.ended()
        assert re.search(r"\d+ calls were refused \(calls.refused_by.stopping\)", server.log())


def test_new_code_that_does_not_import(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        before = server.workers()
        good = server.main.read_text()
        load = Load(server.port, rate=500)

        def restart() -> None:
            server.main.write_text("open('tries', 'a').write('x')\nimport no_such_module_here\n")
            server.signal(signal.SIGHUP)
            server.wait_log(r"The restart is given up: 2 worker\(s\) go on")
            after(server, 200)
            assert server.workers() == before
            # One dies: the others are not given up, and starts are tried again with pauses.
            os.kill(before[0], signal.SIGKILL)
            server.wait_log("died: SIGKILL")
            after(server, 300)
            server.wait(lambda: len((tmp_path / "tries").read_text()) >= 3, "attempts")
            assert before[1] in server.workers()
            server.main.write_text(good)
            server.wait_ready(2)

        under_load(server, load, restart)
        load.assert_nothing_lost()
        log = server.log()
        assert len(re.findall("did not start: main cannot be imported", log)) == 1
        assert "no_such_module_here" in log
        assert len((tmp_path / "tries").read_text()) < 10
        hang_up(server)


def test_new_code_whose_start_up_fails(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        before = server.workers()
        text = server.main.read_text()
        server.main.write_text(
            text.replace('"lifespan.startup.complete"', '"lifespan.startup.failed", "message": "no db"')
        )
        server.signal(signal.SIGHUP)
        server.wait_log("did not start: no db")
        server.wait_log("The restart is given up")
        assert server.workers() == before
        assert server.call()[0] == 200


def test_sigterm_to_a_worker_replaces_it(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        before = server.workers()
        load = Load(server.port, connections=20, rate=400)

        def terminate() -> None:
            after(server, 50)
            os.kill(before[0], signal.SIGINT)  # means nothing to it
            os.kill(before[0], signal.SIGHUP)
            after(server, 50)
            assert server.workers() == before
            os.kill(before[0], signal.SIGTERM)
            server.wait(lambda: not set(before) & set(server.workers()))
            server.wait_ready(1)

        under_load(server, load, terminate)
        load.assert_nothing_lost()
        assert "died" not in server.log()


def test_sigttin_and_sigttou(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.wait_ready(1)
        server.signal(signal.SIGTTIN)
        server.wait_ready(2)
        server.signal(signal.SIGTTOU)
        server.wait_ready(1)
        server.signal(signal.SIGTTOU)  # one is the least
        server.wait_log("SIGTTOU: 1 worker.*\n(.*\n)*.*SIGTTOU: 1 worker")
        assert server.call()[0] == 200
        assert "died" not in server.log()


@pytest.mark.parametrize(
    ("options", "path", "why"),
    [
        (["--limit-max-requests", "20", "--limit-max-requests-jitter", "5"], "/", r"\d+ calls"),
        (["--limit-max-rss", "200M"], "/hoard/16", r"\d+ MiB of memory"),
        (["--worker-lifetime", "1"], "/", r"\d s of life"),
    ],
)
def test_limits_of_a_worker(tmp_path: Path, options: list[str], path: str, why: str) -> None:
    with served(tmp_path, "--workers", "2", *options) as server:
        server.wait_ready(2)
        before = set(server.workers())
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        load = Load(server.port, connections=5, rate=50, request=request)
        most: list[int] = []

        def until_replaced() -> None:
            def look() -> bool:
                most.append(len(server.ready()))
                return not before & set(server.workers())

            server.wait(look, "new workers")

        under_load(server, load, until_replaced)
        load.assert_nothing_lost()
        assert re.search(rf"has reached its limit \({why}\): replacing it", server.log())
        assert min(most) >= 2  # another is ready first
        assert "died" not in server.log()


def test_the_supervisor_does_not_import_the_app(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        assert sorted(int(pid) for pid in (tmp_path / "imports").read_text().split()) == server.workers()
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "spvn/_core" in mapped
        assert "spvn/_asgi" not in mapped
        for worker in server.workers():
            assert "spvn/_core" not in Path(f"/proc/{worker}/maps").read_text()


def test_workers_hold_no_socket_and_no_descriptor_of_each_other(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        assert server.call()[0] == 200

        def open_files(pid: int) -> set[str]:
            names = set()
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # one that has been closed meanwhile
                    names.add(os.readlink(link))
            return names

        supervisor, (one, other) = open_files(server.process.pid), map(open_files, server.workers())
        links = [name for name in one | other if "spvn-link" in name]
        assert len(links) == 1  # of one name, and
        assert not {name for name in one & supervisor if name.startswith("socket:")}
        pipes = {name for name in one & other if name.startswith("pipe:")}
        assert len(pipes) == 1  # the one that ends with the core


class TestTheEnd:
    """How the whole ends."""

    def test_sigterm_finishes_what_was_begun(self, tmp_path: Path) -> None:
        with served(tmp_path, "--workers", "2") as server:
            server.wait_ready(2)
            load = Load(server.port, connections=4, rate=4, request=b"GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n")

            def stop() -> None:
                server.wait(lambda: server.stats()["calls"]["in_flight"] == 4)
                server.signal(signal.SIGTERM)
                load.stop()

            under_load(server, load, stop)
            assert load.statuses == {200: 4}
            assert server.ended() == 0
            assert len((tmp_path / "shutdowns").read_text().split()) == 2
            assert not (tmp_path / "control").exists()

    def test_sigterm_to_every_process_at_once(self, tmp_path: Path) -> None:
        """As service managers send it."""
        with served(tmp_path, "--workers", "2") as server:
            server.wait_ready(2)
            load = Load(server.port, connections=4, rate=4, request=b"GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n")

            def stop() -> None:
                server.wait(lambda: server.stats()["calls"]["in_flight"] == 4)
                os.killpg(server.process.pid, signal.SIGTERM)
                load.stop()

            under_load(server, load, stop)
            assert load.statuses == {200: 4}
            assert server.ended() == 0

    def test_the_drain_delay(self, tmp_path: Path) -> None:
        with served(tmp_path, "--workers", "1", "--drain-delay", "1", "--health-check-path", "/up") as server:
            server.wait_ready(1)
            assert server.call("/up")[0] == 200
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            server.wait_log("Shutting down in 1 seconds")
            server.wait(lambda: server.call("/up")[0] == 503)
            assert server.call()[0] == 200
            assert server.ended() == 0
            assert time.monotonic() - began >= 1

    @pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGQUIT]])
    def test_at_once(self, tmp_path: Path, signals: list[int]) -> None:
        with served(tmp_path, "--workers", "2") as server:
            server.wait_ready(2)
            load = Load(server.port, connections=2, rate=2, request=b"GET /sleep/60 HTTP/1.1\r\nHost: a\r\n\r\n")

            def stop() -> None:
                server.wait(lambda: server.stats()["calls"]["in_flight"] == 2)
                load.stop()
                began = time.monotonic()
                for number in signals:
                    os.killpg(server.process.pid, number)  # as a terminal does
                    if len(signals) > 1:
                        server.wait_log("Shutting down")
                assert server.ended() == 0
                assert time.monotonic() - began < 3

            under_load(server, load, stop)
            assert load.statuses.keys() <= {500, 502, 503}
            assert len((tmp_path / "cancelled").read_text().split()) == 2
            assert not (tmp_path / "shutdowns").exists()


class TestTheStart:
    """What ends a server that has never served, and how."""

    @pytest.mark.parametrize(
        ("app", "code", "message"),
        [
            ("import nothing_of_this_name\n", 1, "Error loading ASGI app: main cannot be imported"),
            ("app = 1\n", 1, "Error loading ASGI app: main:app is an int"),
            ("raise SystemExit(5)\n", 1, r"ended the process while it was imported \(sys.exit\(5\)\)"),
            ("import os; os.kill(os.getpid(), 9)\n", 3, "ended while it was starting: SIGKILL"),
            (
                "async def app(scope, receive, send):\n"
                "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n",
                3,
                "no database",
            ),
        ],
    )
    def test_failed(self, tmp_path: Path, app: str, code: int, message: str) -> None:
        with served(tmp_path, "--workers", "2", app=app) as server:
            assert server.ended() == code
            assert re.search(message, server.log())
            assert server.log().count("Error loading") == (1 if code == 1 else 0)

    def test_an_option_of_the_workers(self, tmp_path: Path) -> None:
        with served(tmp_path, "--workers", "2", "--loop", "trio") as server:
            assert server.ended() == 2
            assert "spvn: error: --loop: 'trio' is not auto" in server.log()


def test_workers_of_a_script(tmp_path: Path) -> None:
    """Workers find what the script that calls spvn.run() finds, and see its arguments."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "deep.py").write_text("VALUE = 1\n")
    script = (
        "import sys; sys.path.append('lib')\n"
        "import deep\n"
        "async def app(scope, receive, send):\n"
        "    body = ' '.join(sys.argv[1:]).encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
        "if __name__ == '__main__':\n"
        "    import spvn\n"
        "    spvn.run('script:app', workers=2, port=0, lifespan='off')\n"
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, "script.py", "a", "b"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHON},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stderr is not None
        try:
            line: Any = next(line for line in process.stderr if "running on" in line)
            with urllib.request.urlopen(re.search(r"http://\S+", line)[0]) as answer:  # type: ignore[index]
                assert answer.read() == b"a b"
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_workers_behind_spvn_testing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, where no signal is handled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "served_in_a_thread.py").write_text(APP)
    with testing.serve("served_in_a_thread:app", workers=2) as server:
        pids = set()
        for _ in range(20):
            with urllib.request.urlopen(server.url) as answer:
                pids.add(int(answer.read()))
        assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)


def test_sighup_ends_a_start_that_hangs(tmp_path: Path) -> None:
    """It says that a start hangs; then SIGHUP replaces that worker too, and the others after it."""
    with served(tmp_path, "--workers", "2") as server:
        server.wait_ready(2)
        before = server.workers()
        (tmp_path / "hang").touch()
        server.signal(signal.SIGHUP)
        server.wait(lambda: len(server.workers()) == 3, "a worker that starts")
        hung = (set(server.workers()) - set(before)).pop()
        server.wait_log(rf"Worker \d+ \[{hung}\] has been starting for 10 seconds; SIGHUP ends it")
        assert server.call()[0] == 200
        (tmp_path / "hang").unlink()
        server.signal(signal.SIGHUP)
        server.wait(lambda: not {hung, *before} & set(server.workers()), "new workers")
        server.wait_ready(2)
        server.check()


KEPT = """
import threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_a_start_that_failed_ends_in_spite_of_threads(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """With its own code and one message, within a few seconds: whoever started it wants to know."""
    with served(tmp_path, *workers, app=KEPT) as server:
        began = time.monotonic()
        assert server.ended() == 3
        assert time.monotonic() - began < 15
        assert "no database" in server.log()
        assert "has been starting" not in server.log()


def test_run_without_a_guard(tmp_path: Path) -> None:
    """Every worker would start a server of its own, and so on without an end."""
    module = APP + "\nimport spvn\nspvn.run('main:app', port=0, workers=1)\n"
    (tmp_path / "main.py").write_text(module)
    for command in ([sys.executable, "main.py"], [sys.executable, "-m", "spvn", "main:app", "--port", "0"]):
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": PYTHON}, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 1
        assert 'main calls spvn.run() as it is imported; put that under if __name__ == "__main__":' in done.stderr
        assert done.stderr.count("Started parent process") <= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_while_workers_boot(tmp_path: Path, number: int) -> None:
    """Ctrl-C, and what systemd sends to a whole group: workers that do not handle signals yet wait with them."""
    for pause in (0.0, 0.05, 0.1, 0.15):
        folder = tmp_path / str(pause)
        folder.mkdir()
        with served(folder, "--workers", "2") as server:
            server.wait_log("Started parent process")
            time.sleep(pause)  # somewhere in the workers' boot
            os.killpg(server.process.pid, number)
            assert server.ended() == 0, server.log()
            assert "Traceback" not in server.log()
            assert "while it was starting" not in server.log()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' pipes do not say when there is room")
def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """Workers are replaced, and signals obeyed, although standard error takes nothing."""
    (tmp_path / "main.py").write_text(APP)
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    control = tmp_path / "control"
    process = subprocess.Popen(
        [sys.executable, "-m", "spvn", "main:app", "--port", "0", "--workers", "1", "--control-socket", str(control)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHON},
        stdout=write,
        stderr=write,
    )
    try:

        def workers() -> set[str]:
            return set(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())

        def ready() -> bool:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(control))
                connection.sendall(b"GET /stats HTTP/1.1\r\n\r\n")
                return b'"state":"ready"' in b"".join(iter(lambda: connection.recv(65536), b"")).replace(b" ", b"")
            return False

        def wait(condition: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)

        wait(ready)
        first = workers()
        os.kill(int(min(first)), signal.SIGKILL)
        wait(lambda: ready() and bool(workers()) and not first & workers())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(read)
        os.close(write)
