"""The raw ASGI apps of the harness: each does one thing, so that a row measures the server and not the app.

Every server serves the same objects. Nothing is imported that a hello would not need: the memory figures are of
the server. Messages are built for each call, as a framework builds them.
"""

from __future__ import annotations

import asyncio
import time

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
BODY_10K = b"x" * 10240
HEADERS_10K = [(b"content-type", b"application/octet-stream"), (b"content-length", b"10240")]
CHUNK = b"y" * 1024
CHUNKS = 20
EVENT_INTERVAL = 0.1


async def lifespan(receive, send):
    """Answers every lifespan message with success, so that no server takes a slower way round its absence."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def hello(scope, receive, send):
    """13 bytes of text, without reading the request body."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


async def answer10k(scope, receive, send):
    """10 KiB in one body message."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS_10K})
    await send({"type": "http.response.body", "body": BODY_10K})


async def echo(scope, receive, send):
    """Reads the whole request body and sends it back with its length."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"".join(parts)
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def sleep10ms(scope, receive, send):
    """Waits 10 ms on the event loop, as a call to a database would, then says hello."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


async def stream(scope, receive, send):
    """20 body messages of 1 KiB without a content-length, and no pause between them."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def events(scope, receive, send):
    """Server-sent events: every 100 ms its number and the CLOCK_MONOTONIC nanoseconds of its sending."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        number = 0
        while not gone.done():
            data = b"data: %d %d\n\n" % (number, time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            await send({"type": "http.response.body", "body": data, "more_body": True})
            number += 1
            await asyncio.wait([gone], timeout=EVENT_INTERVAL)
    except OSError:
        pass  # ASGI 2.4: send() says so when the client has left
    finally:
        gone.cancel()


async def until_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def websocket_echo(scope, receive, send):
    """Sends every message back."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "http":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


SUBSCRIBERS = set()


async def websocket_broadcast(scope, receive, send):
    """Sends every message to everybody."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "http":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    SUBSCRIBERS.add(send)
    try:
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                return
            for one in list(SUBSCRIBERS):
                await one({"type": "websocket.send", "bytes": message["bytes"]})
    finally:
        SUBSCRIBERS.discard(send)


async def faults(scope, receive, send):
    """For the fault works: /wait 20 ms; /burn, /late, /later, /mixed, /block hold the loop, before or after an await; /pid."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path = scope["path"]
    body = b"Hello, world!"
    if path == "/wait":
        await asyncio.sleep(0.02)
    elif path == "/block":
        time.sleep(2)
    elif path == "/burn":
        burn(0.005)
    elif path == "/late":
        await asyncio.sleep(0.001)
        burn(0.005)
    elif path == "/later" or path == "/mixed":
        faults.wait = not faults.wait
        if path == "/later" or faults.wait:
            await asyncio.sleep(0.1)
        burn(0.005)
    elif path == "/pid":
        import os

        body = str(os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


faults.wait = False  # the last call of /mixed waited


def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
