"""A Litestar application with every URL of examples/README.md.

    pip install litestar
    spvn litestar_app:app --app-dir examples

The app is Litestar's and knows nothing of spvn.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import Cookie, State
from litestar.response import File, Stream


async def on_startup(app: Litestar) -> None:
    app.state.finished = 0


@get("/", media_type=MediaType.TEXT)
async def index() -> str:
    return "Hello from Litestar on spvn!\n"


@get("/json")
async def as_json(request: Request) -> dict[str, str]:
    return {"message": "hello", "path": request.url.path}


@post("/echo", status_code=200, request_max_body_size=None)
async def echo(request: Request) -> Response[bytes]:
    """Sends the body back. Litestar's Stream reads what is left of the request while it sends, to see the client
    leave, so this one has to hold the body."""
    kind = request.headers.get("content-type", "application/octet-stream")
    return Response(await request.body(), media_type=kind)


@post("/upload", status_code=200, request_max_body_size=None)
async def upload(request: Request) -> dict[str, int]:
    """Counts the body without holding it."""
    count = 0
    async for piece in request.stream():
        count += len(piece)
    return {"bytes": count}


@get("/stream")
async def stream(n: int = 10) -> Stream:
    async def lines() -> AsyncIterator[str]:
        for number in range(n):
            yield f"line {number}\n"

    return Stream(lines(), media_type="text/plain; charset=utf-8")


@get("/sse")
async def sse(n: int = 3, interval: float = 0.1) -> Stream:
    async def events() -> AsyncIterator[str]:
        for number in range(n):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(interval)

    return Stream(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@get("/file")
async def file() -> File:
    return File(Path(__file__), media_type="text/x-python", filename="litestar_app.py")


@get("/cookie")
async def cookie(request: Request) -> Response[dict[str, int]]:
    """Counts a client's visits in a cookie."""
    visits = int(request.cookies.get("visits", "0")) + 1
    return Response({"visits": visits}, cookies=[Cookie(key="visits", value=str(visits), httponly=True)])


@get("/slow", media_type=MediaType.TEXT)
async def slow(seconds: float = 1.0) -> str:
    await asyncio.sleep(seconds)
    return f"waited {seconds} s\n"


async def work(state: State) -> None:
    await asyncio.sleep(0.05)
    state.finished += 1


@get("/background", status_code=202)
async def background(state: State) -> Response[dict[str, bool]]:
    """Answers first and works afterwards."""
    return Response({"accepted": True}, background=BackgroundTask(work, state))


@get("/background/done")
async def background_done(state: State) -> dict[str, int]:
    return {"done": state.finished}


@get("/error")
async def error() -> None:
    raise RuntimeError("this URL fails on purpose")


app = Litestar(
    route_handlers=[
        index,
        as_json,
        echo,
        upload,
        stream,
        sse,
        file,
        cookie,
        slow,
        background,
        background_done,
        error,
    ],
    on_startup=[on_startup],
    openapi_config=None,
)
