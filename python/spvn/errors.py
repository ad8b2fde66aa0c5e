"""What can go wrong before a server serves; each error knows the exit code it stands for.

0 a served and drained server, 1 app or address, 2 option, 3 start-up of the app.
The text of an error is one sentence for a person: what happened, to which value, what to do.
"""

from __future__ import annotations


class SpvnError(Exception):
    """Base of every error that spvn raises by itself."""

    exit_code = 1


class ConfigError(SpvnError, ValueError):
    """An option that cannot be used. `option` is its flag, such as "--port"."""

    exit_code = 2

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option = option
        self.message = message


class AppError(SpvnError):
    """The app cannot be found, or is not something that can be served."""


class AppImportError(AppError):
    """The app's own code raised while it was imported, or its factory while it was called.

    `report` is the traceback without the frames of spvn and of the import system.
    """

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report


class AddressError(SpvnError):
    """An address that the server cannot listen on."""


class StartupFailed(SpvnError):
    """The app's lifespan start-up failed. The text is the app's own message, if it gave one."""

    exit_code = 3
