"""A Starlette application with every URL of examples/README.md.

    pip install starlette
    spvn starlette_app:app --app-dir examples

The app is Starlette's and knows nothing of spvn.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app: Starlette):
    """Runs up to `yield` before the first request, and the rest after the last one."""
    app.state.finished = 0
    yield


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Hello from Starlette on spvn!\n")


async def as_json(request: Request) -> JSONResponse:
    return JSONResponse({"message": "hello", "path": request.url.path})


async def echo(request: Request) -> StreamingResponse:
    """Sends the body back as it comes in.

    Reading while sending needs a server of ASGI 2.4, as spvn is: below that Starlette looks for a client that left by
    reading the request itself, and takes the body away from here.
    """
    kind = request.headers.get("content-type", "application/octet-stream")
    return StreamingResponse(request.stream(), media_type=kind)


async def upload(request: Request) -> JSONResponse:
    """Counts the body without holding it."""
    count = 0
    async for piece in request.stream():
        count += len(piece)
    return JSONResponse({"bytes": count})


async def stream(request: Request) -> StreamingResponse:
    async def lines():
        for number in range(int(request.query_params.get("n", "10"))):
            yield f"line {number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def sse(request: Request) -> StreamingResponse:
    interval = float(request.query_params.get("interval", "0.1"))

    async def events():
        for number in range(int(request.query_params.get("n", "3"))):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(interval)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def file(request: Request) -> FileResponse:
    return FileResponse(__file__, media_type="text/x-python", filename="starlette_app.py")


async def cookie(request: Request) -> JSONResponse:
    """Counts a client's visits in a cookie."""
    visits = int(request.cookies.get("visits", "0")) + 1
    response = JSONResponse({"visits": visits})
    response.set_cookie("visits", str(visits), httponly=True, samesite="lax")
    return response


async def slow(request: Request) -> PlainTextResponse:
    seconds = float(request.query_params.get("seconds", "1"))
    await asyncio.sleep(seconds)
    return PlainTextResponse(f"waited {seconds} s\n")


async def work() -> None:
    await asyncio.sleep(0.05)
    app.state.finished += 1


async def background(request: Request) -> JSONResponse:
    """Answers first and works afterwards."""
    return JSONResponse({"accepted": True}, status_code=202, background=BackgroundTask(work))


async def background_done(request: Request) -> JSONResponse:
    return JSONResponse({"done": request.app.state.finished})


async def error(request: Request) -> None:
    raise RuntimeError("this URL fails on purpose")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/json", as_json),
        Route("/echo", echo, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/sse", sse),
        Route("/file", file),
        Route("/cookie", cookie),
        Route("/slow", slow),
        Route("/background", background),
        Route("/background/done", background_done),
        Route("/error", error),
    ],
)
