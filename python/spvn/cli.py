"""The command line: `spvn APP`, `spvn serve APP`, `python -m spvn APP`.

The flags are made from config.py; this file only arranges them. A flag beats SPVN_..., which
beats UVICORN_...; both are read after --env-file, so they may stand in that file.

A line without a mistake is read here; argparse (_parser.py) is loaded for the others, and for --help, so that a
process that serves does not hold it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from spvn._run import run_config
from spvn.config import Config, options
from spvn.envfile import load_env_file
from spvn.errors import ConfigError, SpvnError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends by SystemExit unless the server drained and all is well."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments[:1]) == ["ps"]:
        from spvn import ps  # the other command, which needs nothing of the server

        ps.main(arguments[1:])
        return
    try:
        config = parse(arguments)
    except SpvnError as exc:
        _fail(str(exc))
    try:
        run_config(config, exits=True)
    except KeyboardInterrupt:
        # Before the server took over SIGINT, while the app was imported: what a shell calls an interrupt.
        sys.exit(130)


def parse(arguments: Sequence[str]) -> Config:
    """The Config that these arguments and the environment say. Raises ConfigError."""
    arguments = list(arguments)
    if arguments[:1] == ["serve"]:
        del arguments[0]
    flags = _read(arguments)
    if flags is None:
        from spvn._parser import parser

        flags = vars(parser().parse_args(arguments))
    app = flags.pop("app")
    env_file = flags.get("env_file") or os.environ.get("SPVN_ENV_FILE") or os.environ.get("UVICORN_ENV_FILE")
    if env_file:
        load_env_file(env_file)
    app = app or os.environ.get("SPVN_APP") or os.environ.get("UVICORN_APP")
    if not app:
        raise ConfigError("APP", "what is to be served? give it as MODULE:ATTRIBUTE, such as: spvn main:app")
    config = Config.from_sources(app, flags, os.environ)
    if config.app_dir is None:
        config.app_dir = ""  # like `python -m`: modules of the current directory come first
    return config


def _read(arguments: Sequence[str]) -> dict[str, Any] | None:
    """What argparse makes of these arguments; None where it is needed: a mistake, --help, a value with a -."""
    by_flag = {field.flag: field for field in options()}
    read: dict[str, Any] = {"app": None}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            if read["app"] is not None:
                return None
            read["app"] = argument
            continue
        name, equals, value = argument.partition("=")
        field = by_flag.get(name)
        if field is None and name.startswith("--no-"):
            field = by_flag.get("--" + name[len("--no-") :])
            if field is not None and not field.option.paired:
                return None
        if field is None or (field.option.switch and equals):
            return None
        if field.option.switch:
            read[field.name] = name == field.flag
            continue
        if not equals:
            value = next(rest, "-")
            if value.startswith("-"):
                return None
        if field.option.many:
            read.setdefault(field.name, []).append(value)
        else:
            read[field.name] = value
    return read


def default_of(field: Any) -> str:
    """An option's default, as people read it; "" where there is nothing to say."""
    option, default = field.option, field.default
    if option.shown_default:
        return str(option.shown_default)
    if default is None:
        return str(option.none) if option.none != "unset" else ""
    if option.switch:
        return {True: "on", False: ""}[default] if option.paired else ""
    if default in ("", []):
        return ""
    if option.unit == "bytes":
        return size_text(default)
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def size_text(size: int) -> str:
    """A number of bytes in the largest unit that divides it."""
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def _fail(message: str) -> NoReturn:
    print(f"spvn: error: {message}", file=sys.stderr)
    sys.exit(2)
