"""A Django application on WSGI in one file with every URL of examples/README.md.

    pip install django
    spvn django_wsgi_app:app --app-dir examples

Each call runs in one of spvn's threads (--threads), so views may block. Unlike django_app.py this one reads an upload
as it comes in.
"""

from __future__ import annotations

import threading
import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

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
lock = threading.Lock()  # views run in several threads


def pieces_of(request: HttpRequest):
    """The body, piece by piece.

    Without a Content-Length Django reads nothing; but wsgi.input ends where the body does (wsgi.input_terminated).
    """
    body = request if request.headers.get("content-length") else request.environ["wsgi.input"]
    while piece := body.read(PIECE):
        yield piece


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello from Django on spvn!\n", content_type="text/plain; charset=utf-8")


@require_GET
def as_json(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"message": "hello", "path": request.path})


@require_POST
def echo(request: HttpRequest) -> StreamingHttpResponse:
    """Sends the body back as it comes in."""
    kind = request.content_type or "application/octet-stream"
    return StreamingHttpResponse(pieces_of(request), content_type=kind)


@require_POST
def upload(request: HttpRequest) -> JsonResponse:
    """Counts the body without holding it in memory."""
    return JsonResponse({"bytes": sum(map(len, pieces_of(request)))})


@require_GET
def stream(request: HttpRequest) -> StreamingHttpResponse:
    lines = (f"line {number}\n" for number in range(int(request.GET.get("n", "10"))))
    return StreamingHttpResponse(lines, content_type="text/plain; charset=utf-8")


@require_GET
def sse(request: HttpRequest) -> StreamingHttpResponse:
    interval = float(request.GET.get("interval", "0.1"))

    def events():
        for number in range(int(request.GET.get("n", "3"))):
            yield f"id: {number}\ndata: event {number}\n\n"
            time.sleep(interval)

    headers = {"cache-control": "no-store"}
    return StreamingHttpResponse(events(), content_type="text/event-stream", headers=headers)


@require_GET
def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"), as_attachment=True, filename="django_wsgi_app.py")  # closed by Django


@require_GET
def cookie(request: HttpRequest) -> JsonResponse:
    """Counts a client's visits in a cookie."""
    visits = int(request.COOKIES.get("visits", "0")) + 1
    response = JsonResponse({"visits": visits})
    response.set_cookie("visits", str(visits), httponly=True, samesite="Lax")
    return response


@require_GET
def slow(request: HttpRequest) -> HttpResponse:
    seconds = float(request.GET.get("seconds", "1"))
    time.sleep(seconds)
    return HttpResponse(f"waited {seconds} s\n", content_type="text/plain; charset=utf-8")


def work() -> None:
    global finished
    time.sleep(0.05)
    with lock:
        finished += 1


@require_GET
def background(request: HttpRequest) -> JsonResponse:
    """Answers first and works afterwards, in a thread of its own: Django has no background tasks."""
    threading.Thread(target=work).start()
    return JsonResponse({"accepted": True}, status=202)


@require_GET
def background_done(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"done": finished})


@require_GET
def error(request: HttpRequest) -> HttpResponse:
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

app = get_wsgi_application()
