"""An app with timers, for worker processes. What they do is appended to the file $RAN, a line each."""

from __future__ import annotations

import asyncio
import os
import time

from spvn import schedule


def note(*words: object) -> None:
    """One write, so that lines of several processes do not mix."""
    descriptor = os.open(os.environ["RAN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


def ran(name: str) -> None:
    firing = schedule.firing()
    assert firing is not None
    note(name, firing.number, os.getpid())


@schedule.every(0.2)
async def one() -> None:
    ran("one")
    await asyncio.sleep(0.02)


@schedule.every(0.2, on="all")
def each() -> None:
    ran("each")


def later(word: str) -> None:
    ran(word)


async def app(scope, receive, send) -> None:
    assert scope["type"] == "http"
    if scope["path"] == "/after":
        schedule.after(0.6, later, scope["query_string"].decode())
    elif scope["path"] == "/block":
        time.sleep(1.0)
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
