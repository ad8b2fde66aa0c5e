"""A Django application in one file with every URL of examples/README.md.

    pip install django
    spvn django_app:app --app-dir examples

Django's ASGI handler reads a whole request body before it calls a view, into a temporary file from
FILE_UPLOAD_MAX_MEMORY_SIZE on, so memory stays bounded but /echo cannot begin before the upload's end. And Django has
no background tasks of its own: /background starts one on the event loop.
"""

from __future__ import annotations

import asyncio
import functools

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="only an example",
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING_CONFIG=None,
    MIDDLEWARE=[],
)

PIECE = 64 * 1024
finished = 0
tasks: set[asyncio.Task[None]] = set()  # a task that nobody refers to may vanish before its end


def only(method: str):
    """As Django's require_GET and require_POST, which take async views since Django 5.0 only."""

    def decorate(view):
        @functools.wraps(view)
        async def checked(request: HttpRequest) -> HttpResponse:
            if request.method != method:
                return HttpResponseNotAllowed([method])
            return await view(request)

        return checked

    return decorate


@only("GET")
async def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello from Django on spvn!\n", content_type="text/plain; charset=utf-8")


@only("GET")
async def as_json(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"message": "hello", "path": request.path})


@only("POST")
async def echo(request: HttpRequest) -> StreamingHttpResponse:
    """Sends the body back piece by piece."""

    async def pieces():
        while piece := request.read(PIECE):
            yield piece

    return StreamingHttpResponse(pieces(), content_type=request.content_type or "application/octet-stream")


@only("POST")
async def upload(request: HttpRequest) -> JsonResponse:
    """Counts the body without holding it in memory."""
    count = 0
    while piece := request.read(PIECE):
        count += len(piece)
    return JsonResponse({"bytes": count})


@only("GET")
async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines():
        for number in range(int(request.GET.get("n", "10"))):
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")


@only("GET")
async def sse(request: HttpRequest) -> StreamingHttpResponse:
    interval = float(request.GET.get("interval", "0.1"))

    async def events():
        for number in range(int(request.GET.get("n", "3"))):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(interval)

    headers = {"cache-control": "no-store"}
    return StreamingHttpResponse(events(), content_type="text/event-stream", headers=headers)


@only("GET")
async def file(request: HttpRequest) -> StreamingHttpResponse:
    """A download. FileResponse would do, but under ASGI Django reads its file whole before it sends."""

    async def pieces():
        with open(__file__, "rb") as source:
            while piece := await asyncio.to_thread(source.read, PIECE):
                yield piece

    headers = {"content-disposition": 'attachment; filename="django_app.py"'}
    return StreamingHttpResponse(pieces(), content_type="text/x-python", headers=headers)


@only("GET")
async def cookie(request: HttpRequest) -> JsonResponse:
    """Counts a client's visits in a cookie."""
    visits = int(request.COOKIES.get("visits", "0")) + 1
    response = JsonResponse({"visits": visits})
    response.set_cookie("visits", str(visits), httponly=True, samesite="Lax")
    return response


@only("GET")
async def slow(request: HttpRequest) -> HttpResponse:
    seconds = float(request.GET.get("seconds", "1"))
    await asyncio.sleep(seconds)
    return HttpResponse(f"waited {seconds} s\n", content_type="text/plain; charset=utf-8")


async def work() -> None:
    global finished
    await asyncio.sleep(0.05)
    finished += 1


@only("GET")
async def background(request: HttpRequest) -> JsonResponse:
    """Answers first and works afterwards."""
    task = asyncio.create_task(work())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return JsonResponse({"accepted": True}, status=202)


@only("GET")
async def background_done(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"done": finished})


@only("GET")
async def error(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("this URL fails on purpose")


urlpatterns = [
    path("", index),
    path("json", as_json),
    path("echo", echo),
    path("upload", upload),
    path("stream", stream),
    path("sse", sse),
    path("file", file),
    path("cookie", cookie),
    path("slow", slow),
    path("background", background),
    path("background/done", background_done),
    path("error", error),
]

app = get_asgi_application()
