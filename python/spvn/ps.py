"""`spvn ps`: the workers of a running server, the calls in flight, and where a worker's code is.

The core answers, on its control socket: no worker has to, so it works while every event
loop is blocked. The socket is for its owner only, and so is this command.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_TIMEOUT_SECONDS = 6.0
_FOREIGN = "what listens there is not spvn's control socket"


class PsError(Exception):
    """What is wrong, in a sentence."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; ends by SystemExit(1) after one line where there is no answer."""
    options = _parser().parse_args(arguments)
    path = options.path or options.control_socket or os.environ.get("SPVN_CONTROL_SOCKET")
    try:
        if not path:
            raise PsError(
                "which server? give the path that it has as --control-socket: spvn ps PATH "
                "(a server without one cannot be asked)"
            )
        print(_answer(path, options), flush=True)
    except PsError as exc:
        print(f"spvn ps: {exc}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # `spvn ps | head`: nobody reads on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spvn ps",
        description="Show the workers of a running server and its calls in flight, the oldest first.",
        allow_abbrev=False,
    )
    parser.add_argument("path", metavar="PATH", nargs="?", help="The server's --control-socket [SPVN_CONTROL_SOCKET].")
    parser.add_argument("--control-socket", metavar="PATH", help="The same.")
    parser.add_argument("--json", action="store_true", help="Print the core's answer as JSON.")
    parser.add_argument(
        "--stack", metavar="WORKER", type=int, help="Print the Python stacks of this worker's threads instead."
    )
    return parser


def _answer(path: str, options: argparse.Namespace) -> str:
    text = ask(path, "/ps" if options.stack is None else f"/stack?worker={options.stack}")
    try:
        report = json.loads(text)
        plain = table(report) if options.stack is None else str(report["stack"]).rstrip()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise PsError(f"{path}: {_FOREIGN}") from None
    return text if options.json else plain


def ask(path: str, target: str) -> str:
    """What the control socket says. Raises PsError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(path)
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: spvn\r\n\r\n".encode())
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
    except OSError as exc:
        why = "no server listens there" if isinstance(exc, ConnectionRefusedError) else exc.strerror or str(exc)
        raise PsError(f"{path}: {why}") from exc
    head, _, body = b"".join(parts).decode("utf-8", "replace").partition("\r\n\r\n")
    status = head.split(" ")[1:2]
    if status != ["200"]:
        raise PsError(body.strip() or f"{path}: {_FOREIGN}")
    return body.rstrip("\n")


def table(report: dict[str, Any]) -> str:
    """The report as people read it."""
    workers, calls = report["workers"], report["calls"]
    parts = [
        _columns(
            ("WORKER", "PID", "STATE", "CALLS", "BEGUN", "BLOCKED"),
            (
                (
                    str(worker["worker"]),
                    str(worker["pid"]),
                    worker["state"],
                    str(worker["held"]),
                    str(worker["begun"]),
                    age(worker["blocked"]) if worker.get("blocked") else "-",
                )
                for worker in workers
            ),
            right=(0, 1, 3, 4, 5),
        )
        if workers
        else "There are no workers."
    ]
    if calls:
        parts.append(
            _columns(
                ("STATE", "WORKER", "AGE", "IN", "OUT", "METHOD", "PATH"),
                (
                    (
                        call["state"],
                        str(call.get("worker") or "-"),
                        age(call["age"]),
                        size(call["received"]),
                        size(call["sent"]),
                        printable(call["method"]) or "-",
                        printable(call["path"]) + (" (again)" if call.get("again") else ""),
                    )
                    for call in calls
                ),
                right=(1, 2, 3, 4),
            )
        )
    else:
        parts.append("No call is in flight.")
    if report.get("more"):
        parts.append(f"... and {report['more']} more calls.")
    if report.get("silent"):
        parts.append(f"{report['silent']} of the core's I/O threads did not answer in time: their calls are not here.")
    return "\n\n".join(parts)


def _columns(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: tuple[int, ...]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def age(seconds: float) -> str:
    """A time, in the unit that suits it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def size(count: int) -> str:
    """A number of bytes, in the unit that suits it."""
    if count < 1024:
        return str(count)
    number = float(count)
    for unit in "KMG":
        number /= 1024
        if number < 1024 or unit == "G":
            break
    return f"{number:.1f}{unit}"


def printable(text: str) -> str:
    """A client's text without what could command a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
