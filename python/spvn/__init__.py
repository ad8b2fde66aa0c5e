"""spvn: an ASGI server whose networking core is Go.

>>> import spvn
>>> spvn.run("main:app", port=8000)
"""

from spvn._run import run
from spvn._version import __version__
from spvn.config import Config
from spvn.errors import AddressError, AppError, ConfigError, SpvnError, StartupFailed
from spvn.server import Server

__all__ = [
    "AddressError",
    "AppError",
    "Config",
    "ConfigError",
    "Server",
    "SpvnError",
    "StartupFailed",
    "__version__",
    "run",
]
