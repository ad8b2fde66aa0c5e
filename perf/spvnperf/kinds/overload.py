"""More asked than one worker can do, by clients who give up after a second: goodput, a light call meanwhile, recovery.

An open loop asks for calls of 5 ms, beside it another one for a light call 20 times a second that goes on for three
seconds after the load's end. Goodput is how many answers were whole at their clients before these gave up and before
the load ended, of what the worker can do in that time (or of what is offered, if that is less): 1/burn, since the app
burns by the clock and no server can do more. Several workers may have fewer cores than they are: what they can do is what
patient clients get from them just before. Answers that come in the second after the load's end are no part of it.
Recovery is how long after the load's end light calls still took 50 ms or more, in steps of 0.1 s.

The light call's path is one of spvn's default --priority-path; the others have nothing of the kind.
"""

from __future__ import annotations

import time
from typing import Any

from .. import load
from ..context import Context
from ..errors import Skipped
from ..process import Running
from ..servers import Server
from ..works import Cell
from .fault import CAPACITY, DEADLINE, LIGHT_RATE, OVERLOAD_CONNECTIONS, RateRun

AFTER = 3.0
NORMAL_US = 50_000
WAIT = 15  # seconds that a light call's client waits
PATIENT = 32  # clients for each worker, who ask for so long:
PATIENT_SECONDS = 4


def measure(context: Context, server: Server, cell: Cell, round_number: int) -> dict[str, Any]:
    seconds = cell.work.seconds or context.seconds
    if cell.work.workers > 1 and not server.two_workers:
        raise Skipped(f"{server.name} runs one worker only")
    with context.serve(server, cell, round_number) as running:
        capacity = CAPACITY if cell.work.workers == 1 else patiently(context, running, cell)
        begun = time.monotonic()
        light = RateRun(context, running, "/health", LIGHT_RATE, seconds + AFTER, LIGHT_RATE * WAIT, WAIT)
        started = time.monotonic() - begun
        heavy = RateRun(
            context, running, str(cell.work.options["path"]), cell.size, seconds, OVERLOAD_CONNECTIONS, DEADLINE
        )
        row = heavy.row()
        row["light"] = light.row()
    row["goodput"] = sum(point["good"] for point in row["series"]) / (min(capacity, cell.size) * seconds)
    row["recovery_ms"] = recovery(row["light"]["series"], seconds + started) * 1000
    return row


def patiently(context: Context, running: Running, cell: Cell) -> float:
    """How many calls a second all workers together do for clients who wait."""
    arguments = ["closed", "-addr", running.address, "-path", str(cell.work.options["path"])]
    arguments += ["-connections", str(PATIENT * cell.work.workers), "-duration", f"{PATIENT_SECONDS}s"]
    report = load.run(context.load, arguments, limit=PATIENT_SECONDS + 60, cpus=context.load_cpus)
    return float(report["ok"] / report["seconds"])


def recovery(series: list[dict[str, Any]], end: float) -> float:
    """Seconds from the load's end to that of the last slice in which a light call was slow or lost."""
    slow = [point["second"] for point in series if point["calls"] and (point["lost"] or point["max"] >= NORMAL_US)]
    width = series[1]["second"] - series[0]["second"] if len(series) > 1 else 0.1
    return max((second + width - end for second in slow if second >= end - width), default=0.0)
