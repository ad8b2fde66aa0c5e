"""A Flask application with every URL of examples/README.md.

    pip install flask
    spvn flask_app:app --app-dir examples

Flask speaks WSGI: each call runs in one of spvn's threads (--threads), so views may block.
"""

from __future__ import annotations

import threading
import time

from flask import Flask, Response, jsonify, request, send_file

app = Flask(__name__)

PIECE = 64 * 1024
finished = 0
lock = threading.Lock()  # views run in several threads


@app.get("/")
def index() -> Response:
    return Response("Hello from Flask on spvn!\n", content_type="text/plain; charset=utf-8")


@app.get("/json")
def as_json() -> Response:
    return jsonify(message="hello", path=request.path)


@app.post("/echo")
def echo() -> Response:
    """Sends the body back as it comes in."""
    body = request.stream

    def pieces():
        while piece := body.read(PIECE):
            yield piece

    return Response(pieces(), content_type=request.content_type or "application/octet-stream")


@app.post("/upload")
def upload() -> Response:
    """Counts the body without holding it."""
    count = 0
    while piece := request.stream.read(PIECE):
        count += len(piece)
    return jsonify(bytes=count)


@app.get("/stream")
def stream() -> Response:
    lines = int(request.args.get("n", "10"))
    return Response((f"line {number}\n" for number in range(lines)), content_type="text/plain; charset=utf-8")


@app.get("/sse")
def sse() -> Response:
    count = int(request.args.get("n", "3"))
    interval = float(request.args.get("interval", "0.1"))

    def events():
        for number in range(count):
            yield f"id: {number}\ndata: event {number}\n\n"
            time.sleep(interval)

    return Response(events(), content_type="text/event-stream", headers={"cache-control": "no-store"})


@app.get("/file")
def file() -> Response:
    return send_file(__file__, mimetype="text/x-python", as_attachment=True, download_name="flask_app.py")


@app.get("/cookie")
def cookie() -> Response:
    """Counts a client's visits in a cookie."""
    visits = int(request.cookies.get("visits", "0")) + 1
    response = jsonify(visits=visits)
    response.set_cookie("visits", str(visits), httponly=True, samesite="Lax")
    return response


@app.get("/slow")
def slow() -> Response:
    seconds = float(request.args.get("seconds", "1"))
    time.sleep(seconds)
    return Response(f"waited {seconds} s\n", content_type="text/plain; charset=utf-8")


def work() -> None:
    global finished
    time.sleep(0.05)
    with lock:
        finished += 1


@app.get("/background")
def background() -> Response:
    """Answers first and works afterwards: the client has its answer when the response is closed."""
    response = jsonify(accepted=True)
    response.status_code = 202
    response.call_on_close(work)
    return response


@app.get("/background/done")
def background_done() -> Response:
    return jsonify(done=finished)


@app.get("/error")
def error() -> Response:
    raise RuntimeError("this URL fails on purpose")
