"""The command line for argparse: help, and what is wrong with a line that cli.py could not read."""

from __future__ import annotations

import argparse
import difflib
import platform
import shutil
import sys
from typing import Any, NoReturn

from spvn._version import __version__
from spvn.cli import default_of
from spvn.config import GROUPS, NOT_YET, REFUSED_FLAGS, options
from spvn.errors import ConfigError, SpvnError

_USAGE = "spvn [serve] MODULE:ATTRIBUTE [options]"
_EPILOG = (
    "`spvn ps` shows the workers and calls of a running server. "
    "Each option can also be given in the environment, as SPVN_ and its name in capitals (SPVN_PORT=9000); "
    "UVICORN_ is read too. Exit codes: 0 served and drained, 1 app not importable or address not usable, "
    "2 bad option, 3 the app's start-up failed."
)


def parser() -> argparse.ArgumentParser:
    """The parser; an option that was not given is not in its result."""
    made = _Parser(
        prog="spvn",
        usage=_USAGE,
        description="Serve an ASGI app over HTTP.",
        epilog=_EPILOG,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=_HelpFormatter,
    )
    groups = {name: made.add_argument_group(name) for name in GROUPS}
    about = groups[GROUPS[0]]
    about.add_argument("app", metavar="APP", nargs="?", default=None, help="The app, as MODULE:ATTRIBUTE.")
    about.add_argument("--version", action=_Version, nargs=0, help="Show the version and exit.")
    about.add_argument("-h", "--help", action="help", help="Show this and exit.")
    for field in options():
        option = field.option
        settings: dict[str, Any] = {"dest": field.name, "help": help_of(field)}
        if option.paired:
            settings["action"] = argparse.BooleanOptionalAction
        elif option.switch:
            settings["action"] = "store_true"
        else:
            settings["metavar"] = option.metavar
            settings["action"] = "append" if option.many else "store"
        groups[option.group].add_argument(field.flag, **settings)
    for flag, reason in REFUSED_FLAGS.items():
        made.add_argument(flag, action=_Refuse, const=reason, nargs="?", help=argparse.SUPPRESS)
    return made


def help_of(field: Any) -> str:
    """An option's help with its default."""
    text = str(field.option.help)
    default = default_of(field)
    if field.name in NOT_YET:
        text += " Not in this version."
    elif default:
        text += f" [{default}]"
    return text.replace("%", "%%")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, and for a flag that does not exist the one that was meant."""
        unknown = "unrecognized arguments: "
        if message.startswith(unknown):
            first = message[len(unknown) :].split()[0]
            if first.startswith("-"):
                flags = [flag for flag in self._option_string_actions if flag not in REFUSED_FLAGS]
                close = difflib.get_close_matches(first.partition("=")[0], flags, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise SpvnError(f"there is no option {first.partition('=')[0]}.{hint} `spvn --help` has the list.")
            raise SpvnError(f"{first!r} is too much: one APP is served.")
        raise SpvnError(message.removeprefix("argument "))


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100) - 2
        super().__init__(prog, max_help_position=26, width=max(width, 40))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """ "--access-log, --no-access-log" takes less room as "--[no-]access-log"."""
        if isinstance(action, argparse.BooleanOptionalAction):
            return "--[no-]" + action.option_strings[0][2:]
        return super()._format_action_invocation(action)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        print(
            f"Running spvn {__version__} with {platform.python_implementation()} {platform.python_version()} "
            f"on {platform.system()}"
        )
        sys.exit(0)


class _Refuse(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> NoReturn:
        raise ConfigError(str(option_string), str(self.const))
