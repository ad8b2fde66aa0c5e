"""One module for each kind of work.

Each has `measure(context, server, cell, round_number)`, which starts the server, asks, and returns one row as a dict:
"errors" by kind always, and of "rate" (calls/s), "cpu_us" and "latency" (microseconds), "rss" and "pss" (bytes),
"threads", "busy" (the client's share of a core) what the kind has.
"""

from __future__ import annotations

from typing import Any, Callable

from ..context import Context
from ..servers import Server
from ..works import Cell
from . import burst, closed, fault, idle, overload, rate, sse, startup, websocket, wrk

Measure = Callable[[Context, Server, Cell, int], dict[str, Any]]

KINDS: dict[str, Measure] = {
    "wrk": wrk.measure,
    "rate": rate.measure,
    "closed": closed.measure,
    "burst": burst.measure,
    "idle": idle.measure,
    "sse": sse.measure,
    "startup": startup.measure,
    "fault": fault.measure,
    "overload": overload.measure,
    "websocket": websocket.measure,
}
