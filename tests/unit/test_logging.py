from __future__ import annotations

import io
import json
import logging
import logging.handlers
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spvn import ConfigError
from spvn.logging import (
    LOGGING_CONFIG,
    AccessFormatter,
    DefaultFormatter,
    StreamHandler,
    access_oddities,
    access_stream,
    configure_logging,
    default_logging,
    wants_colors,
)


def record(message: str, *args: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("spvn.error", level, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


def test_plain() -> None:
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False)
    assert formatter.format(record("on %s", "x", color_message="\033[1m%s")) == "INFO:     on x"
    assert formatter.format(record("on", level=logging.CRITICAL)) == "CRITICAL: on"


def test_colored() -> None:
    formatter = DefaultFormatter("%(levelprefix)s %(message)s", use_colors=True)
    assert formatter.format(record("on %s", "x", color_message="in %s")) == "\033[32mINFO\033[0m:     in x"


LINE = '%s - "%s %s HTTP/%s" %d'


def test_access() -> None:
    args = ("127.0.0.1:5", "GET", "/a?b", "1.1", 404)
    form = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'
    plain = AccessFormatter(form, use_colors=False)
    assert plain.format(record(LINE, *args)) == 'INFO:     127.0.0.1:5 - "GET /a?b HTTP/1.1" 404 Not Found'
    colored = AccessFormatter(form, use_colors=True).format(record(LINE, *args))
    assert '"\033[1mGET /a?b HTTP/1.1\033[0m" \033[31m404 Not Found\033[0m' in colored
    assert plain.format(record(LINE, "-", "GET", "/", "1.1", 799)).endswith(" 799 ")


def test_colors_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colors(None, Terminal())
    assert not wants_colors(None, io.StringIO())
    assert not wants_colors(None, None)
    assert not wants_colors(False, Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colors(None, Terminal())
    assert wants_colors(True, io.StringIO())


def test_the_built_in_configuration() -> None:
    configure_logging(default_logging(), None, None)
    assert logging.getLogger("spvn").handlers
    assert not logging.getLogger("spvn").propagate
    assert logging.getLogger("spvn.error").getEffectiveLevel() == logging.INFO


def _effect() -> list[Any]:
    found: list[Any] = []
    for name in ("spvn", "spvn.error", "spvn.access"):
        configured = logging.getLogger(name)
        found.append((name, configured.level, configured.propagate))
        for handler in configured.handlers:
            assert isinstance(handler, logging.StreamHandler)
            formatter = handler.formatter
            assert isinstance(formatter, (DefaultFormatter, AccessFormatter))
            found.append((type(handler), handler.name, handler.stream, handler.level))
            found.append((type(formatter), formatter._fmt, formatter.datefmt, formatter.use_colors))
    return found


@pytest.mark.parametrize("use_colors", [None, True, False])
def test_the_built_in_configuration_is_what_dict_config_makes_of_it(use_colors: bool | None) -> None:
    # One more key, so that it is not the built-in one any more.
    configure_logging({**default_logging(), "root": {}}, None, use_colors)
    expected = _effect()
    configure_logging(default_logging(), None, use_colors)
    assert _effect() == expected


def test_a_changed_built_in_configuration_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOGGING_CONFIG["loggers"], "spvn.error", {"level": "ERROR"})
    configure_logging(default_logging(), None, None)
    assert logging.getLogger("spvn.error").level == logging.ERROR


def test_it_is_a_copy() -> None:
    default_logging()["formatters"].clear()
    assert LOGGING_CONFIG["formatters"]


def test_levels() -> None:
    configure_logging(None, "trace", None)
    assert logging.getLogger("spvn.error").level == 5
    assert logging.getLevelName(5) == "TRACE"
    configure_logging(None, 35, None)
    assert logging.getLogger("spvn.access").level == 35


def test_use_colors_reaches_the_formatters() -> None:
    configure_logging(default_logging(), None, True)
    formatter = logging.getLogger("spvn").handlers[0].formatter
    assert isinstance(formatter, DefaultFormatter)
    assert formatter.use_colors


INI = """
[loggers]
keys=root,spvn
[handlers]
keys=h
[formatters]
keys=
[logger_root]
handlers=h
[logger_spvn]
qualname=spvn.error
handlers=
level=ERROR
[handler_h]
class=NullHandler
args=()
"""


@pytest.mark.parametrize("name", ["log.json", "log.yaml", "log.ini"])
def test_files(tmp_path: Path, name: str) -> None:
    config = {"version": 1, "disable_existing_loggers": False, "loggers": {"spvn.error": {"level": "ERROR"}}}
    text = json.dumps(config)
    if name == "log.yaml":
        pytest.importorskip("yaml")
    if name == "log.ini":
        text = INI
    (tmp_path / name).write_text(text)
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        configure_logging(tmp_path / name, None, None)
        assert logging.getLogger("spvn.error").level == logging.ERROR
    finally:
        root.handlers[:] = before


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(ConfigError, match=r"^--log-config: .*bad.json: Expecting property name"):
        configure_logging(str(bad), None, None)
    with pytest.raises(ConfigError, match="^--log-config: nothing.ini: no such file$"):
        configure_logging("nothing.ini", None, None)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="pip install pyyaml"):
        configure_logging("log.yaml", None, None)


def test_where_the_access_log_goes() -> None:
    access = logging.getLogger("spvn.access")
    read, write = os.pipe()
    try:
        with open(write, "w", closefd=False) as stream:
            access.handlers[:] = [logging.NullHandler(), logging.StreamHandler(stream)]
            access.setLevel(logging.INFO)
            assert access_stream(None) == (write, False)
            assert access_stream(True) == (write, True)
            access.handlers[1].setFormatter(AccessFormatter(use_colors=True))
            assert access_stream(None) == (write, True)
            access.setLevel(logging.WARNING)
            assert access_stream(None) == (-1, False)
    finally:
        os.close(read)
        os.close(write)


def test_no_access_log_without_a_descriptor() -> None:
    access = logging.getLogger("spvn.access")
    access.handlers[:] = [logging.StreamHandler(io.StringIO())]
    access.propagate = False
    access.setLevel(logging.INFO)
    assert access_stream(None) == (-1, False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' pipes do not say when there is room")
def test_a_pipe_that_nobody_reads() -> None:
    read, write = os.pipe()
    with open(read, "rb", closefd=True) as reader, open(write, "w", encoding="utf-8") as stream:
        handler = StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
        record = logging.LogRecord("spvn.error", logging.INFO, "", 0, "é" * 3000, (), None)
        began = time.monotonic()
        for _ in range(100):  # of 6,000 bytes, to a pipe of 65,536
            handler.emit(record)
        assert time.monotonic() - began < 2
        os.set_blocking(read, False)
        while reader.read1():
            pass
        handler.emit(logging.LogRecord("spvn.error", logging.INFO, "", 0, "again", (), None))
        lines = reader.read1().decode().splitlines()
        lost = int(lines[0].split()[1])
        assert lines == [f"WARNING:  {lost} message(s) were lost here: nobody read them", "again"]
        assert 80 < lost < 95


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' pipes do not say when there is room")
def test_records_of_several_processes_do_not_mix() -> None:
    """What fits into a pipe at once is written at once, and the rest in whole lines."""
    stream = Written()
    handler = StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for text in ("x" * 4000, "\n".join(["é" * 500] * 6), "\n".join(["y" * 3000] * 3), "z" * 9000):
        stream.pieces.clear()
        handler.emit(record(text))
        assert "".join(stream.pieces) == text + "\n"
        assert all(len(piece.encode()) <= 4096 for piece in stream.pieces)
        assert len(stream.pieces) == 1 + len((text + "\n").encode()) // 4096
        assert text[0] == "z" or all(piece.endswith("\n") for piece in stream.pieces)
    os.close(stream.read)
    os.close(stream.write_end)


class Written(io.StringIO):
    """A stream that seems to be a pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write_end = os.pipe()
        self.pieces: list[str] = []

    def fileno(self) -> int:
        return self.write_end

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


def test_what_is_odd_about_an_access_log(tmp_path: Path) -> None:
    access = logging.getLogger("spvn.access")
    access.setLevel(logging.INFO)
    access.propagate = False
    access.handlers[:] = [logging.NullHandler()]
    assert "there is no access log" in "".join(access_oddities())
    access.handlers[:] = [logging.FileHandler(tmp_path / "plain")]
    assert access_oddities() == []
    access.handlers[0].close()
    access.handlers[:] = [logging.handlers.RotatingFileHandler(tmp_path / "rotating", maxBytes=500)]
    access.addFilter(lambda record: False)
    try:
        rotates, filters = access_oddities()
        assert "does not rotate: spvn writes to the file of a RotatingFileHandler" in rotates
        assert "filters of spvn.access do nothing" in filters
    finally:
        access.filters.clear()
        access.handlers[0].close()
        access.handlers.clear()
    access.setLevel(logging.WARNING)
    assert access_oddities() == []
