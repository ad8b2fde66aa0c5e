"""The WSGI app of the tests with worker processes: what it does is in the path."""

from __future__ import annotations

import os
import time
from typing import Any


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path, _, number = environ["PATH_INFO"].rpartition("/")
    if path == "/sleep":
        time.sleep(float(number))
    elif path == "/die-once" and not os.path.exists(number):
        with open(number, "w"):
            os.kill(os.getpid(), 9)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Multiprocess", str(environ["wsgi.multiprocess"]))])
    return [str(os.getpid()).encode()]
