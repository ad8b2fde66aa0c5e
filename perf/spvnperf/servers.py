"""How each server is started.

The same meaning for all: one process tree on 127.0.0.1, HTTP/1.1 in plain text, no access log, the backlog asked for,
keep-alive of 75 s, no limit on connections that a work could reach, uvloop where the server uses a loop of Python's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent.parent
KEEP_ALIVE = 75
CONNECTIONS = 20000


@dataclass(frozen=True)
class Launch:
    """What a command line is made from."""

    bin: Path  # the environment's bin directory
    target: str
    port: int
    workers: int
    backlog: int


@dataclass(frozen=True)
class Server:
    """A server of the comparison.

    distribution is its name on PyPI, for the version; command builds the arguments; two_workers says whether it can
    run several; restart is the signal for a rolling restart of the workers, or None.
    """

    name: str
    distribution: str
    command: Callable[[Launch], list[str]]
    color: str
    two_workers: bool = True
    restart: str | None = None
    note: str = ""


def _spvn(launch: Launch) -> list[str]:
    command = [f"{launch.bin}/spvn", launch.target, "--host", "127.0.0.1", "--port", str(launch.port)]
    command += ["--no-access-log", "--backlog", str(launch.backlog), "--timeout-keep-alive", str(KEEP_ALIVE)]
    # Without --workers the worker is this process: what `spvn app:app` does.
    return command + (["--workers", str(launch.workers)] if launch.workers > 1 else [])


def _uvicorn(http: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        return [
            *(f"{launch.bin}/uvicorn", launch.target, "--host", "127.0.0.1", "--port", str(launch.port)),
            *("--loop", "uvloop", "--http", http, "--no-access-log", "--log-level", "warning"),
            *("--workers", str(launch.workers), "--backlog", str(launch.backlog)),
            *("--timeout-keep-alive", str(KEEP_ALIVE)),
        ]

    return command


def _granian(launch: Launch) -> list[str]:
    return [
        *(f"{launch.bin}/granian", launch.target, "--interface", "asgi", "--host", "127.0.0.1"),
        *("--port", str(launch.port), "--http", "1", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"),
        *("--workers", str(launch.workers), "--backlog", str(launch.backlog), "--backpressure", str(CONNECTIONS)),
        "--respawn-failed-workers",  # as every other one does without being asked
    ]


def _peregrine(launch: Launch) -> list[str]:
    return [
        *(f"{launch.bin}/peregrine", "--host", "127.0.0.1", "--port", str(launch.port), "--protocol", "asgi"),
        *("--workers", str(launch.workers), "--backlog", str(launch.backlog), "--max-connections", str(CONNECTIONS)),
        *("--keep-alive", str(KEEP_ALIVE * 1000), "--log-level", "warning", "--python-path", str(HERE)),
        launch.target,
    ]


def _weft(launch: Launch) -> list[str]:
    return [
        *(f"{launch.bin}/weft", launch.target, "--host", "127.0.0.1", "--port", str(launch.port)),
        *("--protocol", "asgi", "--workers", str(launch.workers), "--backlog", str(launch.backlog)),
        *("--max-connections", str(CONNECTIONS), "--keep-alive", str(KEEP_ALIVE), "--log-level", "warning"),
        *("--app-dir", str(HERE)),
    ]


def _h2corn(launch: Launch) -> list[str]:
    return [
        *(f"{launch.bin}/h2corn", launch.target, "--bind", f"127.0.0.1:{launch.port}", "--no-access-log"),
        *("--workers", str(launch.workers), "--backlog", str(launch.backlog), "--loop", "uvloop"),
        *("--timeout-keep-alive", str(KEEP_ALIVE), "--app-dir", str(HERE)),
    ]


def _launcher(name: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        arguments = [name, launch.target, str(launch.port), str(launch.workers), str(launch.backlog)]
        return [f"{launch.bin}/python", str(HERE / "launch.py"), *arguments]

    return command


def _gunicorn(launch: Launch) -> list[str]:
    return [
        *(f"{launch.bin}/gunicorn", launch.target, "-k", "asgi", "--asgi-loop", "uvloop"),
        *("--bind", f"127.0.0.1:{launch.port}", "--workers", str(launch.workers), "--backlog", str(launch.backlog)),
        *("--worker-connections", str(CONNECTIONS), "--keep-alive", str(KEEP_ALIVE), "--log-level", "warning"),
        *("--no-control-socket", "--chdir", str(HERE)),
    ]


def _hypercorn(launch: Launch) -> list[str]:
    return [
        *(f"{launch.bin}/hypercorn", launch.target, "--bind", f"127.0.0.1:{launch.port}", "-k", "uvloop"),
        *("--workers", str(launch.workers), "--backlog", str(launch.backlog), "--keep-alive", str(KEEP_ALIVE)),
        *("--log-level", "WARNING"),
    ]


SERVERS = (
    Server("spvn", "spvn", _spvn, "#d62728", restart="SIGHUP"),
    Server("uvicorn", "uvicorn", _uvicorn("httptools"), "#1f77b4", restart="SIGHUP", note="uvloop, httptools"),
    Server("uvicorn-zttp", "uvicorn", _uvicorn("zttp"), "#6baed6", restart="SIGHUP", note="uvloop, zttp"),
    Server("granian", "granian", _granian, "#ff7f0e", restart="SIGHUP"),
    Server("peregrine", "peregrine-server", _peregrine, "#2ca02c", restart="SIGHUP"),
    Server("weft", "weft-server", _weft, "#9467bd", restart="SIGHUP"),
    Server("h2corn", "h2corn", _h2corn, "#8c564b", restart="SIGHUP"),
    Server("freastal", "freastal", _launcher("freastal"), "#e377c2", note="its backlog is fixed at 4096"),
    Server("fastpysgi", "fastpysgi", _launcher("fastpysgi"), "#17becf"),
    Server(
        "gunicorn",
        "gunicorn",
        _gunicorn,
        "#7f7f7f",
        restart="SIGHUP",
        note="-k asgi, uvloop; its worker listens again with a backlog of 100",
    ),
    Server("hypercorn", "hypercorn", _hypercorn, "#bcbd22", note="uvloop"),
)

BY_NAME = {server.name: server for server in SERVERS}
