from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from spvn import cli, ps


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0004, "0ms"), (0.25, "250ms"), (1, "1.0s"), (59.94, "59.9s"), (61, "1m01s"), (7325, "2h02m")],
)
def test_age(seconds: float, text: str) -> None:
    assert ps.age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1023, "1023"), (1024, "1.0K"), (5 << 20, "5.0M"), (3 << 40, "3072.0G")]
)
def test_size(count: int, text: str) -> None:
    assert ps.size(count) == text


def test_nothing_that_commands_a_terminal_is_printed() -> None:
    assert ps.printable("/ok/é") == "/ok/é"
    assert ps.printable("/\x1b[2J\n") == "/\\x1b[2J\\n"


def test_table() -> None:
    report = {
        "workers": [
            {"worker": 1, "pid": 10, "state": "ready", "held": 2, "begun": 1000},
            {"worker": 12, "pid": 9, "state": "draining", "held": 0, "begun": 1, "blocked": 2.5},
        ],
        "calls": [
            {"state": "sending", "worker": 1, "age": 3, "received": 0, "sent": 2048, "method": "GET", "path": "/a"},
            {"state": "queued", "age": 0.1, "received": 5, "sent": 0, "method": "POST", "path": "/b", "again": True},
        ],
        "more": 3,
        "silent": 1,
    }
    assert ps.table(report).splitlines() == [
        "WORKER  PID  STATE     CALLS  BEGUN  BLOCKED",
        "     1   10  ready         2   1000        -",
        "    12    9  draining      0      1     2.5s",
        "",
        "STATE    WORKER    AGE  IN   OUT  METHOD  PATH",
        "sending       1   3.0s   0  2.0K  GET     /a",
        "queued        -  100ms   5     0  POST    /b (again)",
        "",
        "... and 3 more calls.",
        "",
        "1 of the core's I/O threads did not answer in time: their calls are not here.",
    ]
    assert ps.table({"workers": [], "calls": [], "more": 0}) == "There are no workers.\n\nNo call is in flight."


def answering(path: Path, answer: bytes) -> None:
    """Answers once on a unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "socket"
    answering(path, b'HTTP/1.1 200 OK\r\n\r\n{"worker": 1, "stack": "there\\n"}\n')
    cli.main(["ps", "--control-socket", str(path), "--stack", "1"])
    assert capsys.readouterr().out == "there\n"


@pytest.mark.parametrize(
    "answer", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}']
)
def test_no_socket_and_another_one(answer: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "socket"
    answering(path, answer)
    for arguments, message in (([], "which server?"), ([str(path)], "is not spvn's control socket")):
        with pytest.raises(SystemExit) as ended:
            ps.main(arguments)
        said = capsys.readouterr()
        assert ended.value.code == 1 and message in said.err and said.out == ""
