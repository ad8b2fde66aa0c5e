"""From exec to the first answer, and what the server holds then."""

from __future__ import annotations

from typing import Any

from .. import procfs
from ..context import Context, resident
from ..servers import Server
from ..works import Cell


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    with context.serve(server, cell, round_number) as running:
        return {
            "errors": {},
            "ready_ms": running.ready * 1000,
            "start_cpu_ms": procfs.usage(running.root).total * 1000,
            "processes": len(procfs.tree(running.root)),
            "backlog": procfs.listening_backlog(running.port),
            **resident(running.root),
        }
