"""An ASGI app that does what the request says. Paths are functions of this module.

What an app sees that its client does not (a disconnect, an exception) it notes under the
request's `key`; GET /notes?key=K&has=WORD answers once that word was noted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import defaultdict
from urllib.parse import parse_qs

NOTES = defaultdict(list)
PATIENCE = 10


def noted(key, word):
    NOTES[key].append(word)


class Request:
    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.raw_send = scope, receive, send
        self.query = {k: v[-1] for k, v in parse_qs(scope["query_string"].decode(), keep_blank_values=True).items()}
        self.key = self.query.get("key", "")

    def note(self, word):
        noted(self.key, word)

    def number(self, name, default=0):
        return float(self.query.get(name, default))

    async def send(self, message):
        try:
            await self.raw_send(message)
        except OSError as exc:
            self.note(f"send raised {type(exc).__mro__[1].__name__}")
            raise

    async def start(self, status=200, *headers, **more):
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers), **more})

    async def body(self, body=b"", more=False):
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, body=b"", status=200, *headers):
        await self.start(status, (b"content-length", b"%d" % len(body)), *headers)
        await self.body(body)

    async def read(self):
        parts = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.note("disconnect")
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)


async def root(r):
    await r.answer(b"hello")


async def echo(r):
    body = await r.read()
    if body is not None:
        await r.answer(body)


async def collector(r):
    """How Python's garbage collector is set."""
    await r.answer(json.dumps([list(gc.get_threshold()), gc.get_freeze_count()]).encode())


async def scope(r):
    seen = {k: v for k, v in r.scope.items() if isinstance(v, (str, int, type(None)))}
    seen["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in r.scope["headers"]]
    seen["query_string"], seen["raw_path"] = r.scope["query_string"].decode(), r.scope["raw_path"].decode("latin-1")
    for name in ("client", "server"):
        seen[name] = list(r.scope[name]) if r.scope.get(name) else None
    seen["asgi"], seen["state"] = r.scope["asgi"], {k: repr(v) for k, v in r.scope.get("state", {}).items()}
    await r.answer(json.dumps(seen).encode())


async def notes(r):
    word = r.query.get("has")
    deadline = time.monotonic() + PATIENCE
    while word and word not in NOTES[r.key] and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    await r.answer(json.dumps(NOTES[r.key]).encode())


async def say(r):
    """Note a word, for another call that waits for it."""
    r.note(r.query["word"])
    await r.answer()


async def heard(r, word):
    deadline = time.monotonic() + PATIENCE
    while word not in NOTES[r.key] and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


async def status(r):
    headers = []
    if "length" in r.query:
        headers.append((b"content-length", r.query["length"].encode()))
    await r.start(int(r.number("code", 200)), *headers)
    await r.body(r.query.get("body", "").encode())


async def parts(r):
    """A body in parts, its length declared if `length` says so."""
    headers = [(b"content-length", r.query["length"].encode())] if "length" in r.query else []
    await r.start(200, *headers)
    each = r.query.get("part", "x" * int(r.number("size", 1))).encode()
    for _ in range(int(r.number("n", 3))):
        await r.body(each, True)
        await asyncio.sleep(r.number("pause"))
    await r.body()
    r.note("sent")


async def field(r):
    name, value = (bytes.fromhex(r.query[x]) for x in ("name", "value"))
    await r.start(200, (name, value), (b"content-length", b"2"))
    await r.body(b"ok")
    r.note("sent")


async def trailers(r):
    await r.start(200, (b"trailer", b"x-sum"), trailers=True)
    await r.body(b"body")
    await r.send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})


async def hints(r):
    await r.send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await r.answer(b"hinted")


async def fail(r):
    """An exception before the start, after it, or in the middle of the body."""
    where = r.query["where"]
    if where != "before":
        await r.start(200, *([(b"content-length", b"100")] if "length" in r.query else []))
    if where == "middle":
        await r.body(b"half", True)
        await asyncio.sleep(r.number("pause", 0.02))
    raise LookupError("as asked")


async def nothing(r):
    """Return without an answer, or with half of one."""
    if r.query.get("where") == "after":
        await r.start(200)
        await r.body(b"half", True)


async def undying(r):
    """Leave a task behind that cannot be cancelled."""

    async def task():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    undead.append(asyncio.create_task(task()))
    await r.answer(b"left")


undead = []


async def leave(r):
    if r.query.get("pause"):
        await asyncio.sleep(r.number("pause", 0))
    raise KeyboardInterrupt if r.query.get("how") == "interrupt" else SystemExit(3)


async def mistake(r):
    messages = {
        "type": {"type": "http.nonsense"},
        "body-first": {"type": "http.response.body", "body": b"x"},
        "text": {"type": "http.response.start", "status": 200, "headers": [("name", "value")]},
        "status": {"type": "http.response.start", "status": "200"},
    }
    try:
        await r.send(messages[r.query["what"]])
    except Exception as exc:
        await r.answer(f"{type(exc).__name__}: {exc}".encode())
        return
    await r.answer(b"no exception")


async def twice(r):
    await r.answer(b"once")
    try:
        await r.answer(b"twice")
    except Exception as exc:
        r.note(f"{type(exc).__name__}")


async def slow(r):
    r.note("begun")
    await asyncio.sleep(r.number("seconds"))
    await r.answer(b"slow")


async def block(r):
    """Blocks the loop, and says so where it is heard meanwhile."""
    r.note("begun")
    print(f"blocks {r.key}", flush=True)
    time.sleep(r.number("seconds"))
    await r.answer(b"blocked")


async def wait(r):
    """Reads the body, then waits for the client to leave."""
    r.note("begun")
    if await r.read() is not None:
        message = await r.receive()
        r.note(message["type"].replace("http.", ""))
    try:
        await r.answer(b"too late")
        r.note("sent")
    except OSError:
        pass


async def compute(r):
    """Waits for a word without receiving, then answers and notes what became of it."""
    r.note("begun")
    if "first" in r.query:
        await r.receive()
        r.note("received")
    await heard(r, r.query.get("word", "go on"))
    r.note("goes on")
    if "read" in r.query:
        body = await r.read()
        await r.answer(b"%d" % len(body or b""))
    else:
        await r.answer(b"computed")
    r.note("answered")


async def upload(r):
    """Counts a body; with `hold` not before that word was said."""
    if "hold" in r.query:
        r.note("begun")
        await heard(r, r.query["hold"])
    total, longest, largest = 0, 0.0, 0
    while True:
        began = time.monotonic()
        message = await r.receive()
        longest = max(longest, time.monotonic() - began)
        if message["type"] == "http.disconnect":
            r.note("disconnect")
            return
        total += len(message["body"])
        largest = max(largest, len(message["body"]))
        if "first" not in NOTES[r.key]:
            r.note("first")
        if not message["more_body"]:
            break
        if r.number("pause"):
            await asyncio.sleep(r.number("pause"))
    await r.answer(json.dumps({"bytes": total, "largest": largest}).encode())


async def early(r):
    """Answers without reading the body."""
    await r.answer(r.query.get("body", "early").encode())


async def flood(r):
    """A stream that never waits for anything but send()."""
    chunk = b"x" * int(r.number("size", 65536))
    total = int(r.number("total", 1 << 40))
    await r.start()
    sent = 0
    PROGRESS[r.key] = 0
    try:
        while sent < total:
            await r.body(chunk, True)
            sent += len(chunk)
            PROGRESS[r.key] = sent
        await r.body()
        r.note("done")
    finally:
        r.note("stopped")


PROGRESS = {}


async def progress(r):
    await r.answer(b"%d" % PROGRESS.get(r.key, -1))


async def events(r):
    """Server-sent events; the next one comes when it is said so."""
    await r.start(200, (b"content-type", b"text/event-stream"))
    for number in range(3):
        await heard(r, f"send {number}")
        await r.body(b"data: %d\n\n" % number, True)
    await r.body()


async def background(r):
    await r.answer(b"accepted")
    if "seconds" in r.query:
        await asyncio.sleep(r.number("seconds"))
    else:
        await heard(r, "go on")
    r.note("done")
    print(f"done {r.key}", flush=True)


async def head_only(r):
    """The head at once, the body when it is said so."""
    await r.start(200)
    await r.body(b"", True)
    await heard(r, "go on")
    await r.body(b"body")


async def children(r):
    """A forked child that lives on, with copies of every descriptor."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            os.write(told, b"!")
            time.sleep(30)
        finally:
            os._exit(0)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    await r.answer(b"%d" % pid)


async def forked(r):
    """A forked child that is terminated: what is its signal to us?"""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(5)
    await r.answer(b"%d" % (process.exitcode or 0))


async def stuck(r):
    """A thread that does not end."""
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    await r.answer(b"stuck")


async def kill(r):
    os.kill(os.getpid(), getattr(signal, r.query["signal"]))
    await r.answer(b"sent")


async def usage(r):
    import resource

    u = resource.getrusage(resource.RUSAGE_SELF)
    await r.answer(json.dumps({"cpu": u.ru_utime + u.ru_stime, "fds": len(os.listdir("/proc/self/fd"))}).encode())


PATHS = {
    "/": root, "/collector": collector, "/echo": echo,
    "/scope": scope, "/notes": notes, "/say": say, "/status": status, "/parts": parts,
    "/field": field, "/trailers": trailers, "/hints": hints, "/fail": fail, "/nothing": nothing, "/exit": leave,
    "/mistake": mistake, "/twice": twice, "/slow": slow, "/block": block, "/wait": wait, "/compute": compute,
    "/upload": upload, "/early": early, "/flood": flood, "/progress": progress, "/events": events,
    "/background": background, "/head": head_only, "/fork": children, "/kill": kill, "/usage": usage,
    "/forked": forked, "/stuck": stuck, "/undying": undying,
}  # fmt: skip


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    request = Request(scope, receive, send)
    try:
        handler = PATHS.get(scope["path"])
        if handler is None:
            await request.answer(b"nobody here", 404)
        else:
            await handler(request)
    except asyncio.CancelledError:
        request.note("cancelled")
        raise


async def lifespan(scope, receive, send):
    await receive()
    scope["state"]["shared"] = "from the start-up"
    print("lifespan start-up", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def broken(scope, receive, send):
    """An app whose start-up fails."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is not there"})


async def hanging(scope, receive, send):
    """An app whose start-up does not end."""
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.2)
        print("cleaned up", file=sys.stderr)
