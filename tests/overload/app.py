"""An app that burns its time before its first await, after one, or waits; and says hello for anything else."""

from __future__ import annotations

import asyncio
import time

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
BIG = b"x" * 10_000_000
heard = []


def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while scope["path"] == "/listen" and (await receive())["type"] != "websocket.disconnect":
            heard.append(1)
        await asyncio.sleep(30 if scope["path"] != "/listen" else 0)
        return
    path = scope["path"]
    if path == "/early":
        burn(0.005)
    elif path == "/late":
        await asyncio.sleep(0.001)
        burn(0.005)
    elif path == "/sleep":
        await asyncio.sleep(1)
    elif path.startswith("/heard"):
        while len(heard) < int(path[6:]):
            await asyncio.sleep(0.01)
    elif path == "/poll":
        await asyncio.sleep(30)
    elif path.startswith("/block"):
        time.sleep(float(path[6:]))
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            await asyncio.sleep(0.1)
    elif path == "/big":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BIG))]})
        await send({"type": "http.response.body", "body": BIG})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
