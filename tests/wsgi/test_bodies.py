"""wsgi.input: bodies as the app reads them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.wire import until

from .live import OK, TEXT, ask, connect, serving


def reading(read: Any) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        got = read(environ["wsgi.input"])
        start_response(OK, TEXT)
        return [got]

    return app


def post(body: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *fields, b"Content-Length: %d" % len(body), b"", body])


def chunked(*parts: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


LINES = b"one\ntwo\r\n\nfour" + b"x" * 100_000 + b"\nlast"
READS = {
    "read": lambda stream: stream.read(),
    "read(-1)": lambda stream: stream.read(-1),
    "read(n)": lambda stream: b"".join(iter(lambda: stream.read(1000), b"")),
    "read(more)": lambda stream: stream.read(10_000_000),
    "readline": lambda stream: b"".join(iter(lambda: stream.readline(), b"")),
    "readlines": lambda stream: b"".join(stream.readlines()),
    "iteration": lambda stream: b"".join(list(stream)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("body", [b"", b"x", LINES, LINES * 20], ids=len)
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_reading(body: bytes, kind: str, read: Any) -> None:
    request = post(body) if kind == "length" else chunked(*(body[i : i + 70_000] for i in range(0, len(body), 70_000)))
    assert ask(reading(read), request, valid=False).body == body


def test_reading_under_the_validator() -> None:
    """It wants read() with a number."""
    read = reading(
        lambda stream: b"".join([stream.readline(), *stream.readlines(10), stream.read(5), stream.read(10**7)])
    )
    assert ask(read, post(LINES)).body == LINES
    assert ask(read, chunked(LINES)).body == LINES


def test_a_body_that_is_not_read() -> None:
    with serving(reading(lambda stream: b"fine")) as server, connect(server) as wire:
        for _ in range(3):
            assert wire.send(post(b"x" * 10_000)).answer().body == b"fine"


def test_100_continue_comes_with_the_first_read() -> None:
    go = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        go.wait(10)
        body = environ["wsgi.input"].read(100)
        start_response(OK, TEXT)
        return [body]

    with serving(app) as server, connect(server) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert wire.quiet(0.05)
        go.set()
        assert wire.head()[1] == 100
        assert wire.send(b"body").answer().body == b"body"


def test_the_answer_may_begin_before_the_body_ends() -> None:
    """Echo, one part after the other, over one connection."""

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ["wsgi.input"]
        start_response(OK, TEXT)
        while True:
            line = stream.readline()
            if not line:
                return
            yield line

    with serving(app) as server, connect(server) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        wire.head()
        assert wire.chunk() == b"one\n"
        wire.send(b"4\r\ntwo\n\r\n")
        assert wire.chunk() == b"two\n"
        wire.send(b"0\r\n\r\n")
        assert wire.chunk() == b""


def test_an_upload_waits_for_its_reader() -> None:
    """The core takes no more than its windows until the app reads."""
    go = threading.Event()
    size = 50_000_000

    def app(environ: Any, start_response: Any) -> Any:
        go.wait(10)
        count = 0
        while True:
            block = environ["wsgi.input"].read(65536)
            if not block:
                break
            count += len(block)
        start_response(OK, TEXT)
        return [b"%d" % count]

    with serving(app) as server, connect(server) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        sent = 0
        wire.socket.settimeout(0.3)
        block = b"x" * 1_000_000
        try:
            while sent < size:
                sent += wire.socket.send(block[: size - sent])
        except OSError:
            pass
        assert sent < size  # stuck in the sockets' buffers
        wire.socket.settimeout(15)
        go.set()
        while sent < size:
            sent += wire.socket.send(block[: size - sent])
        assert wire.answer().body == b"%d" % size


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_of_its_body(how: str, caplog: pytest.LogCaptureFixture) -> None:
    said: list[BaseException] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.input"].read(1000)
        except OSError as exc:
            said.append(exc)
            raise
        return []

    with serving(app) as server, connect(server) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf")
        assert until(lambda: server.stats()["calls"]["claimed"] == 1)
        getattr(wire, how)()
        assert until(lambda: said and server.stats()["calls"]["held"] == 0)
        assert until(lambda: server.stats()["calls"]["left"] == 1)
    assert "The client left" in str(said[0])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
