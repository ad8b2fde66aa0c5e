"""A raw ASGI application: no framework, every URL of examples/README.md.

    spvn hello:app --app-dir examples

It shows what a server does for an application and nothing more: `receive` gives the request's body piece by piece,
`send` takes the answer piece by piece, and waits when the client is slower than the application.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import parse_qs

finished = 0  # background tasks that ran to their end


async def app(scope, receive, send):
    """The application: one call per request, and one for its whole life (lifespan)."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await ROUTES.get((scope["method"], scope["path"]), not_found)(scope, receive, send)
    else:
        raise NotImplementedError(f"this example has no {scope['type']}")


async def lifespan(receive, send):
    """Answers the server before the first request and after the last one."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def index(scope, receive, send):
    await answer(send, b"Hello from spvn!\n")


async def as_json(scope, receive, send):
    await answer(send, json.dumps({"message": "hello", "path": scope["path"]}).encode(), b"application/json")


async def echo(scope, receive, send):
    """Sends the body back as it comes in: nothing is held but the piece in hand."""
    kind = dict(scope["headers"]).get(b"content-type", b"application/octet-stream")
    await start(send, 200, [(b"content-type", kind)])
    async for piece in body(receive):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def upload(scope, receive, send):
    """Counts the body. The server reads from the client only as fast as this loop turns."""
    count = 0
    async for piece in body(receive):
        count += len(piece)
    await answer(send, json.dumps({"bytes": count}).encode(), b"application/json")


async def stream(scope, receive, send):
    await start(send, 200, [(b"content-type", b"text/plain; charset=utf-8")])
    for number in range(int(query(scope, "n", "10"))):
        await send({"type": "http.response.body", "body": f"line {number}\n".encode(), "more_body": True})
    await send({"type": "http.response.body"})


async def sse(scope, receive, send):
    """Server-sent events. When the client has left, `send` raises OSError, and this ends."""
    await start(send, 200, [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")])
    for number in range(int(query(scope, "n", "3"))):
        event = f"id: {number}\ndata: event {number}\n\n".encode()
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(float(query(scope, "interval", "0.1")))
    await send({"type": "http.response.body"})


async def file(scope, receive, send):
    content = Path(__file__).read_bytes()
    await answer(send, content, b"text/x-python", [(b"content-disposition", b'attachment; filename="hello.py"')])


async def cookie(scope, receive, send):
    """Counts a client's visits in a cookie."""
    visits = 1
    for name, value in scope["headers"]:
        for pair in value.decode("latin-1").split(";") if name == b"cookie" else ():
            key, _, text = pair.strip().partition("=")
            if key == "visits":
                visits = int(text) + 1
    headers = [(b"set-cookie", f"visits={visits}; Path=/; HttpOnly; SameSite=lax".encode())]
    await answer(send, json.dumps({"visits": visits}).encode(), b"application/json", headers)


async def slow(scope, receive, send):
    seconds = float(query(scope, "seconds", "1"))
    await asyncio.sleep(seconds)
    await answer(send, f"waited {seconds} s\n".encode())


async def background(scope, receive, send):
    """Answers first and works afterwards: the call goes on when its answer is complete."""
    global finished
    await answer(send, b'{"accepted": true}', b"application/json", status=202)
    await asyncio.sleep(0.05)
    finished += 1


async def background_done(scope, receive, send):
    await answer(send, json.dumps({"done": finished}).encode(), b"application/json")


async def error(scope, receive, send):
    raise RuntimeError("this URL fails on purpose")


async def not_found(scope, receive, send):
    await answer(send, b"not found\n", status=404)


ROUTES = {
    ("GET", "/"): index,
    ("GET", "/json"): as_json,
    ("POST", "/echo"): echo,
    ("POST", "/upload"): upload,
    ("GET", "/stream"): stream,
    ("GET", "/sse"): sse,
    ("GET", "/file"): file,
    ("GET", "/cookie"): cookie,
    ("GET", "/slow"): slow,
    ("GET", "/background"): background,
    ("GET", "/background/done"): background_done,
    ("GET", "/error"): error,
}


async def body(receive):
    """The request's body, piece by piece."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client left before the end of the body")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def query(scope, name, default):
    return parse_qs(scope["query_string"].decode("ascii")).get(name, [default])[0]


async def start(send, status, headers):
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send, content, kind=b"text/plain; charset=utf-8", headers=(), status=200):
    """A whole answer. Its length is known, so it needs no chunks."""
    length = str(len(content)).encode()
    await start(send, status, [(b"content-type", kind), (b"content-length", length), *headers])
    await send({"type": "http.response.body", "body": content})
