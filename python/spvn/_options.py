"""How one option is described, and how its value is read from text.

Strategy: config.py has one dataclass, and each of its fields carries an `Option`. The
command line, the environment, the table in docs/options.md and the core's JSON are all
made from these descriptions, so an option is written down once. A value is text (from a
flag or the environment) or already of its type (from Python); `Option.convert` takes both
and raises ConfigError, which names the flag; the readers raise ValueError or TypeError.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from spvn.errors import ConfigError

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"", "0", "false", "f", "no", "n", "off"})
_OFF = frozenset({"off", "none"})
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# RFC 9110 5.6.2 (token) and 5.5 (field-value; obs-text is allowed, CR, LF and NUL never are).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def read_text(value: Any) -> str:
    """A text; paths are taken as text."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def read_int(value: Any) -> int:
    """A whole number."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def read_size(value: Any) -> int:
    """A number of bytes; text may end in K, M or G (of 1024)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a size: give bytes, or a number with K, M or G, such as 64K")
        return int(match[1]) * _UNITS[match[2].lower()]
    return read_int(value)


def read_seconds(value: Any) -> float:
    """A number of seconds, fractions allowed."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number of seconds") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number of seconds")
    return value


def read_bool(value: Any) -> bool:
    """True or false; from text also 1 and 0, yes and no, on and off."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
    raise ValueError(f"{value!r} is neither true nor false")


def read_header(value: Any) -> tuple[str, str]:
    """A field for every answer, as "Name: Value" or as a pair."""
    if isinstance(value, str):
        name, colon, content = value.partition(":")
        if not colon:
            raise ValueError(f"{value!r} is not of the form Name:Value")
    else:
        try:
            name, content = (item.decode("latin-1") if isinstance(item, bytes) else item for item in value)
        except (TypeError, ValueError):
            raise ValueError(f"{value!r} is not a pair of name and value") from None
        if not isinstance(name, str) or not isinstance(content, str):
            raise TypeError(f"{value!r} is not a pair of texts")
    name, content = name.strip(), content.strip()
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a field name (RFC 9110 5.1)")
    if not _VALUE.fullmatch(content):
        raise ValueError(f"the value {content!r} of {name} has a character that no field may have (RFC 9110 5.5)")
    return name, content


def read_path(value: Any) -> str:
    """The path of a request; "" is none."""
    path = read_text(value)
    if path and not path.startswith("/"):
        raise ValueError(f"{path!r} is not a path: it begins with /")
    if "?" in path or "#" in path:
        raise ValueError(f"{path!r} is more than a path, which ends before ? and #")
    return path


def read_name(value: Any) -> str:
    """The name of a field; "" is none."""
    name = read_text(value).strip()
    if name and not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a field name (RFC 9110 5.1)")
    return name


def read_address(value: Any) -> str:
    """Where to listen: HOST:PORT, [V6]:PORT, unix:PATH or fd://N."""
    address = read_text(value)
    if address.startswith("unix:"):
        good = address != "unix:"
    elif address.startswith("fd://"):
        good = address[len("fd://") :].isdigit()
    else:
        host, _, port = address.rpartition(":")
        good = port.isdigit() and int(port) < 65536 and (":" not in host or host[:1] + host[-1:] == "[]")
        good = good and ":" in address
    if not good:
        raise ValueError(f"{address!r} is not HOST:PORT, [V6]:PORT, unix:PATH or fd://N")
    return address


def read_any(value: Any) -> Any:
    """Anything: checked by who uses it."""
    return value


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: what it is called, what it takes, what it says about itself."""

    group: str
    help: str
    read: Callable[[Any], Any]
    metavar: str = "VALUE"
    flag: str = ""
    """The flag, when it is not the field's name with dashes."""
    unit: str = ""
    switch: bool = False
    """A flag without a value."""
    paired: bool = False
    """A switch that has a --no- form."""
    many: bool = False
    """May be given several times; the field is a list."""
    separator: str | None = None
    """What stands between the values of a list in the environment; None is white space or a comma."""
    none: str = ""
    """What None means, where None is a value. A number's text is then also "off"."""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    variables: tuple[str, ...] = ()
    """Variables read after SPVN_... and UVICORN_... ."""
    core: bool = False
    """Sent to the core."""
    shown_default: str = ""
    """The default as people read it, where the value itself does not say it."""

    def convert(self, flag: str, value: Any) -> Any:
        """The value as the field has it. Raises ConfigError."""
        try:
            if self.many:
                if value is None:
                    return []
                items = [value] if isinstance(value, str) else list(value)
                return [self._convert_one(item) for item in items]
            return self._convert_one(value)
        except (ValueError, TypeError) as exc:
            raise ConfigError(flag, str(exc)) from None

    def _convert_one(self, value: Any) -> Any:
        if self.none:
            numeric = self.read not in (read_text, read_any)  # "off" may be the name of a file
            if value is None or (numeric and isinstance(value, str) and value.strip().lower() in _OFF):
                return None
        elif value is None:
            raise ValueError("a value is needed")
        value = self.read(value)
        if self.choices and value not in self.choices:
            raise ValueError(f"{value!r} is not one of {', '.join(self.choices)}")
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"{value} is too small: {_plain(self.minimum)} or more")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"{value} is too large: {_plain(self.maximum)} or less")
        return value

    def split(self, text: str, prefix: str) -> list[str]:
        """The values in one variable of the environment.

        Behind UVICORN_ they are separated by white space, as uvicorn reads them.
        """
        if prefix == "UVICORN_" or self.separator is None:
            parts = re.split(r"\s+" if prefix == "UVICORN_" else r"[\s,]+", text)
            return [part for part in parts if part]
        return [item.strip() for item in text.split(self.separator) if item.strip()]


def option(
    default: Any,
    group: str,
    help: str,
    read: Callable[[Any], Any] = read_text,
    *,
    factory: Callable[[], Any] | None = None,
    **description: Any,
) -> Any:
    """A dataclass field that carries an Option. Returns Any so that a field keeps its declared type."""
    metadata: Mapping[str, Any] = {"option": Option(group, help, read, **description)}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
