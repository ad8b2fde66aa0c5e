"""Logging as uvicorn's users know it, with the standard library only.

Loggers: `spvn` (the parent, with a handler on standard error), `spvn.error` (all that the
server says) and `spvn.access`. The access log itself is written by the core, off the
Python thread; the level and the first handler of `spvn.access` decide whether and where.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import select
import stat
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Literal

from spvn.errors import ConfigError

if TYPE_CHECKING:
    from configparser import RawConfigParser

TRACE = 5

LOG_LEVELS: dict[str, int] = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "spvn.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "spvn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
            "use_colors": None,
        },
    },
    "handlers": {
        "default": {"formatter": "default", "class": "spvn.logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "spvn.logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "spvn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "spvn.error": {"level": "INFO"},
        "spvn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}

_BUILT_IN = copy.deepcopy(LOGGING_CONFIG)  # LOGGING_CONFIG may be changed, as people do with uvicorn's

_COLORS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "bright_red": 91, "bright_white": 97}
_LEVEL_COLORS = {
    TRACE: "blue",
    logging.DEBUG: "cyan",
    logging.INFO: "green",
    logging.WARNING: "yellow",
    logging.ERROR: "red",
    logging.CRITICAL: "bright_red",
}
_STATUS_COLORS = {1: "bright_white", 2: "green", 3: "yellow", 4: "red", 5: "bright_red"}

logger = logging.getLogger("spvn.error")
access_logger = logging.getLogger("spvn.access")


def default_logging() -> dict[str, Any]:
    """A copy of the built-in configuration, free to be changed."""
    return copy.deepcopy(LOGGING_CONFIG)


def style(text: str, color: str | None = None, *, bold: bool = False) -> str:
    """The text with ANSI escapes around it."""
    codes = ([str(_COLORS[color])] if color else []) + (["1"] if bold else [])
    return "".join(f"\033[{code}m" for code in codes) + text + "\033[0m"


def wants_colors(use_colors: bool | None, stream: Any) -> bool:
    """What was asked for, else whether the stream is a terminal (and NO_COLOR, no-color.org, is not set)."""
    if use_colors is not None:
        return use_colors
    if os.environ.get("NO_COLOR"):
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # no stream at all (pythonw), or a closed one
        return False


class StreamHandler(logging.StreamHandler):  # type: ignore[type-arg, unused-ignore]
    """As logging's, but a pipe that nobody reads stops neither the loop nor the supervision of workers (Linux only).

    The first record that finds no room waits half a second for it, and the others not at all; how many were lost is
    said when there is room again.
    """

    WAIT_SECONDS = 0.5
    # What a pipe takes at once and whole, if it takes anything: records of several processes do not mix.
    _PIECE_BYTES = select.PIPE_BUF

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._lost = 0
        self._cut = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as lost."""
        descriptor = self._pipe()
        if descriptor < 0:
            super().emit(record)
            return
        try:
            self._write(descriptor, self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)

    def _pipe(self) -> int:
        """The descriptor of the stream, if it is a pipe or a socket; else -1."""
        try:
            descriptor = int(self.stream.fileno()) if sys.platform == "linux" else -1
            mode = os.fstat(descriptor).st_mode
        except (AttributeError, OSError, ValueError, TypeError):
            return -1
        return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else -1

    def _write(self, descriptor: int, text: str) -> None:
        if self._lost and self._has_room(descriptor):
            lost, self._lost = self._lost, 0
            notice = f"WARNING:  {lost} message(s) were lost here: nobody read them\n"
            self.stream.write("\n" + notice if self._cut else notice)
            self.stream.flush()
        for piece in self._pieces(text):
            if not self._has_room(descriptor):
                self._lost += 1
                return
            self.stream.write(piece)
            self.stream.flush()
            self._cut = not piece.endswith("\n")

    def _pieces(self, text: str) -> list[str]:
        """The text in parts of whole lines that are no longer than they may be, as far as lines are."""
        pieces, size = [""], 0
        for line in text.splitlines(keepends=True):
            for part in self._parts(line):
                length = len(part.encode("utf-8", "replace"))
                if size + length > self._PIECE_BYTES and pieces[-1]:
                    pieces.append("")
                    size = 0
                pieces[-1] += part
                size += length
        return pieces

    def _parts(self, line: str) -> list[str]:
        if len(line.encode("utf-8", "replace")) <= self._PIECE_BYTES:
            return [line]
        most = self._PIECE_BYTES // 4  # characters, of four bytes at most
        return [line[at : at + most] for at in range(0, len(line), most)]

    def _has_room(self, descriptor: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0 if self._lost else self.WAIT_SECONDS * 1000))


class ColourizedFormatter(logging.Formatter):
    """Adds %(levelprefix)s, and uses the `color_message` in a record's `extra` where colours are on."""

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        self.use_colors = wants_colors(use_colors, self._stream())
        super().__init__(fmt=fmt, datefmt=datefmt, style=style)

    def _stream(self) -> Any:
        return sys.stdout

    def formatMessage(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        name = record.levelname
        space = " " * (8 - len(name))
        if self.use_colors:
            color = _LEVEL_COLORS.get(record.levelno)
            name = style(name, color) if color else name
            colored = record.__dict__.get("color_message")
            if colored is not None:
                record.msg = colored
                record.message = record.getMessage()
        record.__dict__["levelprefix"] = f"{name}:{space}"
        return super().formatMessage(record)


class DefaultFormatter(ColourizedFormatter):
    """For messages of the server."""

    def _stream(self) -> Any:
        return sys.stderr


class AccessFormatter(ColourizedFormatter):
    """For records whose args are (client address, method, path with query, HTTP version, status), as uvicorn's."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        client, method, path, version, status = record.args  # type: ignore[misc]
        line, status_text = f"{method} {path} HTTP/{version}", _status(int(str(status)))
        if self.use_colors:
            line = style(line, bold=True)
            color = _STATUS_COLORS.get(int(str(status)) // 100)
            status_text = style(status_text, color) if color else status_text
        record.__dict__.update({"client_addr": client, "request_line": line, "status_code": status_text})
        return super().formatMessage(record)


def _status(status: int) -> str:
    import http  # not needed unless an access record is formatted

    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} "


def configure_logging(
    log_config: dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None,
    log_level: str | int | None,
    use_colors: bool | None,
) -> None:
    """Set up Python's logging. `log_config` is a dictConfig, a .json or .yaml file of one, or an .ini; None leaves all
    handlers alone. Raises ConfigError."""
    logging.addLevelName(TRACE, "TRACE")
    if log_config is not None:
        try:
            _apply(log_config, use_colors)
        except ConfigError:
            raise
        except Exception as exc:
            where = "" if isinstance(log_config, dict) else f"{log_config}: "
            raise ConfigError("--log-config", f"{where}{exc}") from exc
    if log_level is not None:
        level = LOG_LEVELS[log_level.lower()] if isinstance(log_level, str) else log_level
        logger.setLevel(level)
        access_logger.setLevel(level)
        logging.getLogger("spvn.asgi").setLevel(level)


def _apply(log_config: Any, use_colors: bool | None) -> None:
    if isinstance(log_config, os.PathLike):
        log_config = os.fspath(log_config)
    if log_config == _BUILT_IN:
        _apply_built_in(use_colors)
        return
    from logging import config as logging_config  # half a megabyte with what it imports

    if isinstance(log_config, dict):
        if use_colors is not None:
            log_config = copy.deepcopy(log_config)
            for formatter in log_config.get("formatters", {}).values():
                if "use_colors" in formatter:
                    formatter["use_colors"] = use_colors
        logging_config.dictConfig(log_config)
    elif isinstance(log_config, str) and log_config.endswith((".json", ".yaml", ".yml")):
        load = json.load if log_config.endswith(".json") else _yaml_loader()
        with open(log_config, encoding="utf-8") as file:
            logging_config.dictConfig(load(file))
    else:
        if isinstance(log_config, str) and not os.path.exists(log_config):
            # fileConfig reads a missing file as an empty one and fails without its name.
            raise ConfigError("--log-config", f"{log_config}: no such file")
        logging_config.fileConfig(log_config, disable_existing_loggers=False)


def _apply_built_in(use_colors: bool | None) -> None:
    """What dictConfig makes of the built-in configuration; handlers of other loggers are left alone."""
    formats = {name: settings["fmt"] for name, settings in _BUILT_IN["formatters"].items()}
    formatters = {
        "default": DefaultFormatter(formats["default"], use_colors=use_colors),
        "access": AccessFormatter(formats["access"], use_colors=use_colors),
    }
    streams = {"default": sys.stderr, "access": sys.stdout}
    for name, settings in _BUILT_IN["loggers"].items():
        configured = logging.getLogger(name)
        configured.setLevel(settings["level"])
        configured.propagate = settings.get("propagate", configured.propagate)
        for handler in configured.handlers[:]:
            configured.removeHandler(handler)
        for kind in settings.get("handlers", ()):
            handler = StreamHandler(streams[kind])
            handler.setFormatter(formatters[kind])
            handler.set_name(kind)
            configured.addHandler(handler)


def _yaml_loader() -> Callable[[Any], Any]:
    try:
        import yaml  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise ConfigError("--log-config", "a YAML file needs the PyYAML package: pip install pyyaml") from None
    load: Callable[[Any], Any] = yaml.safe_load
    return load


def access_oddities() -> list[str]:
    """What the loggers' configuration says of the access log and the core does not do: a sentence each."""
    if not access_logger.isEnabledFor(logging.INFO):
        return []
    odd = []
    if access_stream(None)[0] < 0:
        odd.append("there is no access log: spvn.access has no handler with a stream or a file, which spvn writes to")
    handler = next((handler for handler in access_logger.handlers if getattr(handler, "stream", None)), None)
    if handler is not None and type(handler).__module__ == "logging.handlers":
        odd.append(f"the access log does not rotate: spvn writes to the file of a {type(handler).__name__} by itself")
    if access_logger.filters or (handler is not None and handler.filters):
        odd.append("filters of spvn.access do nothing: spvn writes the access log by itself")
    return odd


def access_stream(use_colors: bool | None) -> tuple[int, bool]:
    """The descriptor that the core writes the access log to and whether in colour; -1 where there is none.

    That is the stream of the first handler of `spvn.access` (or of a logger that it propagates to) which has one,
    if the logger is on for INFO. The descriptor is the stream's own: a caller that gives it away duplicates it.
    """
    if not access_logger.isEnabledFor(logging.INFO):
        return -1, False
    current: logging.Logger | None = access_logger
    while current is not None:
        for handler in current.handlers:
            stream = getattr(handler, "stream", None)
            try:
                stream.flush()  # type: ignore[union-attr]
                descriptor = int(stream.fileno())  # type: ignore[union-attr]
            except (AttributeError, OSError, ValueError, TypeError):
                continue
            formatter = handler.formatter
            if isinstance(formatter, ColourizedFormatter):
                return descriptor, formatter.use_colors
            return descriptor, wants_colors(use_colors, stream)
        current = current.parent if current.propagate else None
    return -1, False
