"""A Quart application with every URL of examples/README.md.

    pip install quart
    spvn quart_app:app --app-dir examples

The app is Quart's and knows nothing of spvn.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from quart import Quart, jsonify, request, send_file

app = Quart(__name__)
# Quart refuses bodies above 16 MB, and ends a streamed answer after a minute, unless told otherwise.
app.config["MAX_CONTENT_LENGTH"] = None
app.config["BODY_TIMEOUT"] = None
app.config["RESPONSE_TIMEOUT"] = None

finished = 0


@app.get("/")
async def index():
    return "Hello from Quart on spvn!\n", {"content-type": "text/plain; charset=utf-8"}


@app.get("/json")
async def as_json():
    return jsonify(message="hello", path=request.path)


@app.post("/echo")
async def echo():
    """Sends the body back as it comes in."""
    kind = request.headers.get("content-type", "application/octet-stream")
    return copy(request.body), {"content-type": kind}


async def copy(body):
    async for piece in body:
        yield piece


@app.post("/upload")
async def upload():
    """Counts the body without holding it."""
    count = 0
    async for piece in request.body:
        count += len(piece)
    return jsonify(bytes=count)


@app.get("/stream")
async def stream():
    count = request.args.get("n", 10, type=int)

    async def lines():
        for number in range(count):
            yield f"line {number}\n".encode()

    return lines(), {"content-type": "text/plain; charset=utf-8"}


@app.get("/sse")
async def sse():
    count = request.args.get("n", 3, type=int)
    interval = request.args.get("interval", 0.1, type=float)

    async def events():
        for number in range(count):
            yield f"id: {number}\ndata: event {number}\n\n".encode()
            await asyncio.sleep(interval)

    return events(), {"content-type": "text/event-stream", "cache-control": "no-store"}


@app.get("/file")
async def file():
    return await send_file(
        Path(__file__), mimetype="text/x-python", as_attachment=True, attachment_filename="quart_app.py"
    )


@app.get("/cookie")
async def cookie():
    """Counts a client's visits in a cookie."""
    visits = int(request.cookies.get("visits", "0")) + 1
    response = jsonify(visits=visits)
    response.set_cookie("visits", str(visits), httponly=True, samesite="Lax")
    return response


@app.get("/slow")
async def slow():
    seconds = request.args.get("seconds", 1.0, type=float)
    await asyncio.sleep(seconds)
    return f"waited {seconds} s\n", {"content-type": "text/plain; charset=utf-8"}


async def work():
    global finished
    await asyncio.sleep(0.05)
    finished += 1


@app.get("/background")
async def background():
    """Answers first and works afterwards."""
    app.add_background_task(work)
    return jsonify(accepted=True), 202


@app.get("/background/done")
async def background_done():
    return jsonify(done=finished)


@app.get("/error")
async def error():
    raise RuntimeError("this URL fails on purpose")
