"""A WebSocket app that does what the path says; HTTP requests go to the app of the other black-box tests.

What it sees that its client does not it notes there, under the request's `key`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import parse_qs

from support.app import app as http_app
from support.app import noted

EVERYBODY = set()
GATES: dict[str, asyncio.Event] = {}


class Socket:
    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.raw_send = scope, receive, send
        self.query = {k: v[-1] for k, v in parse_qs(scope["query_string"].decode(), keep_blank_values=True).items()}
        self.key = self.query.get("key", "")

    def note(self, word):
        noted(self.key, word)

    async def send(self, type, **items):
        await self.raw_send({"type": "websocket." + type, **items})

    async def accept(self, **items):
        message = await self.receive()
        assert message == {"type": "websocket.connect"}, message
        await self.send("accept", **items)

    async def next(self):
        """The next message; None, noted, at the end."""
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            self.note(f"disconnect {message['code']} {message['reason']}".strip())
            return None
        return message

    async def back(self, message):
        if message.get("text") is not None:
            await self.send("send", text=message["text"])
        else:
            await self.send("send", bytes=message["bytes"])


async def echo(s):
    await s.accept()
    while (message := await s.next()) is not None:
        await s.back(message)


async def scope(s):
    await s.accept()
    seen = {k: v for k, v in s.scope.items() if isinstance(v, (str, int, list, type(None)))}
    seen["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in s.scope["headers"]]
    seen["extensions"] = sorted(s.scope["extensions"])
    await s.send("send", text=json.dumps(seen))
    await s.next()


async def chosen(s):
    await s.accept(
        subprotocol=s.query["subprotocol"], headers=[(b"X-B", b"1"), (b"x-a", b"2"), (b"Set-Cookie", b"a=b")]
    )
    await s.next()


async def reject(s):
    await s.receive()
    await s.send("close", code=4000)
    await s.next()


async def deny(s):
    await s.receive()
    await s.send("http.response.start", status=401, headers=[(b"www-authenticate", b"Basic")])
    await s.send("http.response.body", body=b"not ", more_body=True)
    await s.send("http.response.body", body=b"today")


async def deny_slowly(s):
    """The rest of the answer comes once somebody says open."""
    gate = GATES.setdefault(s.key, asyncio.Event())
    await s.receive()
    await s.send("http.response.start", status=401, headers=[(b"content-length", b"9")])
    await s.send("http.response.body", body=b"not ", more_body=True)
    await gate.wait()
    await s.send("http.response.body", body=b"today")


async def shouts(s):
    """Says on standard error how it ended, for those that cannot be asked any more."""
    await s.accept()
    message = await s.receive()
    print(f"{s.key} heard {message}", file=sys.stderr, flush=True)


async def returns(s):
    await s.receive()


async def crash(s):
    await s.receive()
    raise RuntimeError("on purpose")


async def crash_later(s):
    await s.accept()
    await s.next()
    raise RuntimeError("on purpose")


async def goes(s):
    await s.accept()


async def close(s):
    await s.accept()
    await s.send("close", code=int(s.query.get("code", 1000)), reason=s.query.get("reason", ""))
    s.note(str(await s.receive()))


async def late(s):
    await s.accept()
    await s.next()
    try:
        await s.send("send", text="late")
    except OSError as exc:
        s.note(f"OSError {type(exc).__name__}")


async def sink(s):
    await s.accept()
    count = 0
    while (message := await s.next()) is not None:
        count += 1
        if message.get("text") == "count":
            await s.send("send", text=str(count))


async def gate(s):
    """Receives nothing until somebody says open."""
    gate = GATES.setdefault(s.key, asyncio.Event())
    await s.accept()
    s.note("accepted")
    await gate.wait()
    while (message := await s.next()) is not None:
        await s.back(message)


async def accepts_late(s):
    """Accepts once somebody says open, and answers nothing."""
    await GATES.setdefault(s.key, asyncio.Event()).wait()
    await s.accept()
    while await s.next() is not None:
        pass


async def opens(s):
    GATES.setdefault(s.key, asyncio.Event()).set()
    await s.accept()


async def block(s):
    """Holds the loop on the first message."""
    await s.accept()
    await s.next()
    s.note("blocking")
    time.sleep(float(s.query["seconds"]))
    await s.send("send", text="done")
    await s.next()


async def flood(s):
    """Sends until the client is gone."""
    await s.accept()
    sent = 0
    try:
        while sent < 1 << 30:
            await s.send("send", bytes=b"x" * int(s.query.get("size", 65536)))
            sent += 1
    except OSError:
        s.note("OSError")


async def big(s):
    await s.accept()
    await s.send("send", bytes=bytes(range(256)) * (int(s.query["size"]) // 256))
    await s.next()


async def broadcast(s):
    """Every message goes to everybody, and nobody waits for the others."""
    await s.accept()
    EVERYBODY.add(s)
    sending = set()

    async def give(other, message):
        try:
            await other.back(message)
        except OSError:
            EVERYBODY.discard(other)

    try:
        while (message := await s.next()) is not None:
            for other in list(EVERYBODY):
                task = asyncio.ensure_future(give(other, message))
                sending.add(task)
                task.add_done_callback(sending.discard)
    finally:
        EVERYBODY.discard(s)


async def bare(receive, send):
    """An echo with nothing to remember, for what a connection costs."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return await http_app(scope, receive, send)
    if scope["path"] == "/bare":
        return await bare(receive, send)
    name = scope["path"].strip("/").replace("-", "_")
    await globals()[name](Socket(scope, receive, send))
