"""What an idle keep-alive connection costs in memory, and whether it still answers afterwards.

The server is first warmed with calls on few connections, so that what it allocates once is not divided among the
idle ones.
Memory in the kernel (about 2 KB a socket, the same for all) is not counted.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from .. import load
from ..context import Context, resident
from ..errors import RowError
from ..process import Running, pinned
from ..servers import Server
from ..works import Cell

SETTLE = 3.0
OPEN_LIMIT = 90.0


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    with context.serve(server, cell, round_number) as running:
        warm = ["closed", "-addr", running.address, "-connections", "64", "-calls", "50"]
        load.run(context.load, warm, limit=60, cpus=context.load_cpus)
        time.sleep(0.5)
        before = resident(running.root)
        opened, during, checked = hold(context, running, cell.size)
        errors = {f"opening: {kind}": count for kind, count in opened["errors"].items()}
        errors.update({f"after: {kind}": count for kind, count in checked["errors"].items()})
        held = max(opened["open"], 1)
        return {
            "errors": errors,
            "open": opened["open"],
            "answered_after": checked["open"],
            "open_seconds": opened["seconds"],
            "bytes_per_connection": (during["rss"] - before["rss"]) / held,
            "pss_per_connection": (during["pss"] - before["pss"]) / held,
            "rss_before": before["rss"],
            **during,
        }


def hold(context: Context, running: Running, size: int) -> tuple[dict[str, Any], dict[str, int], dict[str, Any]]:
    """Opens the connections, lets the server settle, measures, then asks on all of them again."""
    arguments = [str(context.load), "idle", "-addr", running.address, "-connections", str(size), "-timeout", "20s"]
    process = subprocess.Popen(
        pinned(arguments, context.load_cpus),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        # Bounded by the client's own timeouts: 20 s a call, 64 at a time; a dead server refuses at once.
        line = process.stdout.readline()
        if not line:
            raise RowError(f"load idle ended early: {process.communicate(timeout=5)[1][-300:]}")
        opened = json.loads(line)
        time.sleep(SETTLE)
        during = resident(running.root)
        output, _ = process.communicate("\n", timeout=OPEN_LIMIT)
        return opened, during, load.parse(output)
    except subprocess.TimeoutExpired:
        raise RowError(f"load idle was not done after {OPEN_LIMIT:.0f} s") from None
    finally:
        process.kill()
        process.wait()
