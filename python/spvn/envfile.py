"""A .env file: NAME=VALUE lines put into the environment. The basics of python-dotenv.

    # a comment                     export NAME=value      the word export is ignored
    NAME=value # a comment          NAME="two\\nlines"      escapes, and ${OTHER}, in double quotes
    NAME='taken as it is'           NAME=${OTHER:-default}

What is set already stays. A quoted value may go on over several lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from spvn.errors import ConfigError

_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*")
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_COMMENT = re.compile(r"[ \t]*(?:#.*)?(?:\r?\n|\Z)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def load_env_file(path: str | os.PathLike[str]) -> None:
    """Set what the file says and the environment does not have yet. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError("--env-file", f"{os.fspath(path)}: {reason}") from None
    try:
        values = parse(text, os.environ)
    except ValueError as exc:
        raise ConfigError("--env-file", f"{os.fspath(path)}: {exc}") from None
    for name, value in values.items():
        os.environ.setdefault(name, value)


def parse(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The values in the text of a .env file. Raises ValueError that names the line."""
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        blank = _COMMENT.match(text, position)
        if blank is not None and (blank.end() > position):
            position = blank.end()
            continue
        name = _NAME.match(text, position)
        if name is None:
            raise ValueError(f"line {_line(text, position)} is not NAME=VALUE")
        position = name.end()
        if not text.startswith("=", position):
            # A name alone, as in a shell's `export NAME`: nothing to set.
            if _COMMENT.match(text, position) is None:
                raise ValueError(f"line {_line(text, position)} is not NAME=VALUE")
            continue
        position += 1
        while text[position : position + 1] in (" ", "\t"):
            position += 1
        value, position = _value(text, position, {**values, **environ})
        values[name[1]] = value
    return values


def _value(text: str, position: int, known: Mapping[str, str]) -> tuple[str, int]:
    quote = text[position : position + 1]
    if quote in ("'", '"'):
        match = (_SINGLE if quote == "'" else _DOUBLE).match(text, position)
        if match is None:
            raise ValueError(f"line {_line(text, position)} opens a quote that nothing closes")
        end = _COMMENT.match(text, match.end())
        if end is None:
            raise ValueError(f"line {_line(text, match.end())} goes on after its closing quote")
        if quote == "'":
            return re.sub(r"\\(['\\])", r"\1", match[1]), end.end()
        plain = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match[1], flags=re.DOTALL)
        return _expand(plain, known), end.end()
    end_of_line = text.find("\n", position)
    end_of_line = len(text) if end_of_line < 0 else end_of_line
    raw = re.split(r"(?:^|[ \t])#", text[position:end_of_line], maxsplit=1)[0]
    return _expand(raw.strip(), known), end_of_line + 1


def _expand(value: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: known.get(match[1], match[2] or ""), value)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
