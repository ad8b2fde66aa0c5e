"""A FastAPI application with every URL of examples/README.md.

    pip install fastapi
    spvn fastapi_app:app --app-dir examples

The app is FastAPI's and knows nothing of spvn.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, Cookie, FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI):
    """Runs up to `yield` before the first request, and the rest after the last one."""
    app.state.finished = 0
    yield


app = FastAPI(title="spvn example", lifespan=lifespan)


class Greeting(BaseModel):
    message: str
    path: str


@app.get("/", response_class=PlainTextResponse)
async def index() -> str:
    return "Hello from FastAPI on spvn!\n"


@app.get("/json")
async def as_json(request: Request) -> Greeting:
    return Greeting(message="hello", path=request.url.path)


@app.post("/echo")
async def echo(request: Request) -> StreamingResponse:
    """Sends the body back as it comes in.

    Reading while sending needs a server of ASGI 2.4, as spvn is: below that Starlette looks for a client that left by
    reading the request itself, and takes the body away from here.
    """
    kind = request.headers.get("content-type", "application/octet-stream")
    return StreamingResponse(request.stream(), media_type=kind)


@app.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    """Counts the body without holding it."""
    count = 0
    async for piece in request.stream():
        count += len(piece)
    return {"bytes": count}


@app.get("/stream")
async def stream(n: int = 10) -> StreamingResponse:
    async def lines():
        for number in range(n):
            yield f"line {number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/sse")
async def sse(n: int = 3, interval: float = 0.1) -> StreamingResponse:
    async def events():
        for number in range(n):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(interval)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(__file__, media_type="text/x-python", filename="fastapi_app.py")


@app.get("/cookie")
async def cookie(response: Response, visits: int = Cookie(default=0)) -> dict[str, int]:
    """Counts a client's visits in a cookie."""
    count = visits + 1
    response.set_cookie("visits", str(count), httponly=True, samesite="lax")
    return {"visits": count}


@app.get("/slow", response_class=PlainTextResponse)
async def slow(seconds: float = 1) -> str:
    await asyncio.sleep(seconds)
    return f"waited {seconds} s\n"


async def work() -> None:
    await asyncio.sleep(0.05)
    app.state.finished += 1


@app.get("/background", status_code=202)
async def background(tasks: BackgroundTasks) -> dict[str, bool]:
    """Answers first and works afterwards."""
    tasks.add_task(work)
    return {"accepted": True}


@app.get("/background/done")
async def background_done() -> dict[str, int]:
    return {"done": app.state.finished}


@app.get("/error")
async def error() -> None:
    raise RuntimeError("this URL fails on purpose")
