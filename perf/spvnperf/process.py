"""A server's life: start it, wait until it answers, stop it. Every wait is bounded, every process is ended."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import RowError, Skipped
from .servers import HERE, Launch, Server

START_LIMIT = 20.0
STOP_LIMIT = 5.0

# Servers read options from these; what the shell has set for another purpose must not reach one of them.
OPTION_VARIABLES = ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "SPVN_", "UVICORN_", "GRANIAN_", "H2CORN_", "GUNICORN_")
BAD_OPTION = 2


@dataclass(frozen=True)
class Running:
    """A server that answers. root is the pid of its process tree; ready the seconds from exec to its first answer."""

    server: Server
    root: int
    port: int
    ready: float
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def tail(path: Path, lines: int) -> str:
    """The end of a log, with paths from the checkout on: a report is no place for those of a machine."""
    try:
        text = path.read_text(errors="replace").replace(f"{HERE.parent}{os.sep}", "")
        return "\n".join(text.splitlines()[-lines:])
    except OSError:
        return ""


def free_port() -> int:
    """A port outside the range of outgoing connections: who dials a dead server must not connect to itself."""
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RowError("no free port between 20000 and 32000 in 200 tries")


@contextmanager
def serving(
    server: Server, target: str, *, bin: Path, workers: int, backlog: int, log: Path, cpus: Sequence[int] | None = None
) -> Iterator[Running]:
    """Runs the server for the length of the block. Raises RowError with the end of its log if it does not answer."""
    port = free_port()
    command = server.command(Launch(bin, target, port, workers, backlog))
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OPTION_VARIABLES)}
    environment.update(PYTHONUNBUFFERED="1", PYTHONPATH=str(HERE))
    environment["PATH"] = f"{bin}{os.pathsep}{environment.get('PATH', '')}"
    with log.open("wb") as output:
        output.write((" ".join(command) + "\n").encode())
        output.flush()
        started = time.perf_counter()
        try:
            process = subprocess.Popen(
                pinned(command, cpus),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=HERE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise RowError(f"{command[0]} does not start: {error}") from None
    try:
        try:
            wait_for_answer(process, port, started + START_LIMIT)
        except RowError:
            if workers > 1 and process.poll() == BAD_OPTION:
                raise Skipped(f"it does not run {workers} workers: {tail(log, 1)}") from None
            raise
        yield Running(server, process.pid, port, time.perf_counter() - started, log)
    except RowError as error:
        raise RowError(f"{error}; the end of its log: {tail(log, 8)}") from None
    finally:
        stop(process)


def pinned(command: list[str], cpus: Sequence[int] | None) -> list[str]:
    """The command confined to some processors, by taskset."""
    return ["taskset", "-c", ",".join(map(str, cpus)), *command] if cpus else command


def wait_for_answer(process: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    while True:
        if process.poll() is not None:
            raise RowError(f"the server ended with {process.returncode} before it answered")
        if answers(port):
            return
        if time.perf_counter() > deadline:
            raise RowError(f"the server did not answer within {START_LIMIT:.0f} s")
        time.sleep(0.005)


def answers(port: int, path: str = "/") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server, SIGKILL to its process group when it has not ended in time, or left children behind."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(STOP_LIMIT)
