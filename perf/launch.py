"""Starts the servers whose command line lacks what every other one has: workers, a backlog.

python launch.py SERVER MODULE:APP PORT WORKERS BACKLOG
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def freastal(app: Any, port: int, workers: int, backlog: int) -> None:
    # Its backlog is compiled in (4096 in 0.0.3).
    import freastal as server  # type: ignore[import-not-found]

    server.serve_asgi(app, host="127.0.0.1", port=port, workers=workers)


def fastpysgi(app: Any, port: int, workers: int, backlog: int) -> None:
    import fastpysgi as module  # type: ignore[import-not-found]

    module.server.backlog = backlog
    module.server.tcp_nodelay = 1  # all the others set it
    module.run(app, host="127.0.0.1", port=port, workers=workers)


def main() -> None:
    name, target, port, workers, backlog = sys.argv[1:]
    module, _, attribute = target.partition(":")
    sys.path.insert(0, "")
    app = getattr(importlib.import_module(module), attribute)
    {"freastal": freastal, "fastpysgi": fastpysgi}[name](app, int(port), int(workers), int(backlog))


if __name__ == "__main__":
    main()
