"""start_response(), write(), iterables and their ends (PEP 3333)."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import pytest
from support.wire import Cut, until

from .live import OK, TEXT, ask, connect, serving

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


class Body:
    """An iterable that notes its close()."""

    def __init__(self, *blocks: bytes | BaseException, log: list[str] | None = None) -> None:
        self.blocks = iter(blocks)
        self.log: list[str] = [] if log is None else log

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> bytes:
        block = next(self.blocks)
        if isinstance(block, BaseException):
            raise block
        self.log.append(f"block {block!r}")
        return block

    def close(self) -> None:
        self.log.append("close")


def blocks(*blocks: bytes) -> Any:
    return iter(blocks)


def returning(result: Any, headers: list[tuple[str, str]] = TEXT, status: str = OK) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, headers)
        return result

    return app


LENGTH = [*TEXT, ("Content-Length", "4")]


@pytest.mark.parametrize(
    ("result", "headers", "framing", "body"),
    [
        ([b"Hello"], TEXT, "length", b"Hello"),
        ((b"Hello",), TEXT, "length", b"Hello"),
        ([], TEXT, "length", b""),
        ([b""], TEXT, "length", b""),
        ([b"", b"", b""], TEXT, "length", b""),
        ([b"He", b"llo"], TEXT, "chunked", b"Hello"),
        (blocks(b"", b"He", b"", b"llo", b""), TEXT, "chunked", b"Hello"),
        (blocks(b"ab", b"cd"), LENGTH, "length", b"abcd"),
        (blocks(b"abcd"), LENGTH, "length", b"abcd"),
        ([b"x" * 3_000_000], TEXT, "length", b"x" * 3_000_000),
        (blocks(*[b"y" * 100_000] * 20), TEXT, "chunked", b"y" * 2_000_000),
    ],
)
def test_bodies(result: Any, headers: Any, framing: str, body: bytes) -> None:
    answer = ask(returning(result, headers), GET, valid=False)  # the validator hides that a list has one item
    assert (answer.status, answer.framing, answer.body) == (200, framing, body)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body(status: str) -> None:
    answer = ask(returning(blocks(b"never", b"sent"), [], status), GET, valid=False)
    assert (answer.status, answer.body) == (int(status[:3]), b"")


@pytest.mark.parametrize(
    ("result", "headers", "length"),
    [
        ([b"Hello"], TEXT, "5"),
        ([b"x" * 300_000], TEXT, "300000"),
        (blocks(b"ab", b"cd"), LENGTH, "4"),
        ([b""], LENGTH, "4"),
        ([], TEXT, None),
        (blocks(b"ab", b"cd"), TEXT, None),
    ],
)
def test_head(result: Any, headers: Any, length: str | None) -> None:
    """The fields of a GET, as far as they are known, and nothing behind them."""
    with serving(returning(result, headers), valid=False) as server, connect(server) as wire:
        answer = wire.send(HEAD).answer("HEAD")
        assert (answer.status, answer.field("content-length")) == (200, length)
        assert wire.quiet(0.05)


def test_head_of_an_endless_answer_ends() -> None:
    log: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        return Body(*[b"x"] * 10_000, log=log)

    assert ask(app, HEAD).status == 200
    assert log == ["block b'x'", "close"]


def test_write_and_then_an_iterable() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response(OK, TEXT)
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    assert ask(app, GET).body == b"one two three"


def test_start_response_may_come_with_the_first_block() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("201 Created", TEXT)
        yield b"late"

    answer = ask(app, GET, valid=False)
    assert (answer.status, answer.body) == (201, b"late")


def test_the_head_waits_for_the_first_block_that_is_not_empty() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        yield b""
        try:
            raise LookupError("too bad")
        except LookupError:
            start_response("500 Too Bad", TEXT, sys.exc_info())
        yield b"sorry"

    answer = ask(app, GET)
    assert (answer.status, answer.body) == (500, b"sorry")


def test_exc_info_after_the_head_raises_it(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        yield b"begun"
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 Too Bad", TEXT, sys.exc_info())
        yield b"never"

    with serving(app) as server, connect(server) as wire, pytest.raises(Cut):
        wire.send(GET).answer()
    error = caplog.records[-1]
    assert error.getMessage() == 'Exception in WSGI application: "GET / HTTP/1.1"\n'
    assert error.exc_info is not None and str(error.exc_info[1]) == "too late"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda start: (start(OK, TEXT), start(OK, TEXT)),
            "start_response() was called a second time without exc_info",
        ),
        (lambda start: start(b"200 OK", TEXT), "The status must be a str such as '200 OK', got bytes."),
        (lambda start: start("OK", TEXT), "The status must be a final one, such as '200 OK', got 'OK'."),
        (lambda start: start("100 Continue", TEXT), "The status must be a final one"),
        (lambda start: start("2000", TEXT), "The status must be a final one"),
        (lambda start: start(OK, [("a", 1)]), "A header's value must be a str, got int: 1."),
        (lambda start: start(OK, [(b"a", "b")]), "A header's name must be a str, got bytes: b'a'."),
        (lambda start: start(OK, ["ab"]), "Each of the headers must be a pair (name, value) of str, got 'ab'."),
        (lambda start: start(OK, [("a b", "c")]), "Invalid HTTP header name"),
        (lambda start: start(OK, [("a", "b\r\nc: d")]), "Invalid HTTP header value"),
        (lambda start: start(OK, [("a", "\u20ac")]), "'latin-1' codec can't encode"),
        (lambda start: start(OK, [("content-length", "many")]), "Invalid Content-Length"),
        (lambda start: start(OK, [("a", "b" * 1_000_000)]), "The head of the response has 1000009 bytes of fields"),
        (lambda start: start(OK, TEXT)("text"), "A WSGI app must send bytes, got str."),
        (lambda start: None, "The WSGI app returned without calling start_response()."),
    ],
)
def test_mistakes_are_500(call: Any, message: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        call(start_response)
        return []

    assert ask(app, GET, valid=False).status == 500
    assert message in str(caplog.records[-1].exc_info[1])  # type: ignore[index]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "'NoneType' object is not iterable"),
        ([b"a", "b"], "A WSGI app must send bytes, got str."),
        (Body(b"ab", LookupError("in the middle")), "in the middle"),
    ],
)
def test_mistakes_in_the_middle_cut(result: Any, message: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(returning(result), valid=False) as server, connect(server) as wire:
        try:
            assert wire.send(GET).answer().status == 500
        except Cut:
            pass
    assert message in str(caplog.records[-1].exc_info[1])  # type: ignore[index]


@pytest.mark.parametrize("exception", [LookupError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_exception_is_500_and_the_thread_goes_on(exception: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/boom":
            raise exception
        start_response(OK, TEXT)
        return [b"fine"]

    with serving(app, threads=1) as server, connect(server) as wire:
        assert wire.get("/boom").answer().status == 500
        assert wire.get("/").answer().text == "fine"
        assert until(lambda: server.stats()["calls"]["failed"] == 1)
    assert any("/boom" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("blocks", [(b"abcdef",), (b"ab", b"cdef"), (b"abcd", b"ef")])
def test_more_than_content_length(blocks: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets what it was promised, and the log says it."""
    answer = ask(returning(list(blocks), LENGTH), GET)
    assert answer.body == b"abcd"
    assert "longer than Content-Length (4)" in str(caplog.records[-1].exc_info[1])  # type: ignore[index]


def test_less_than_content_length(caplog: pytest.LogCaptureFixture) -> None:
    with serving(returning(blocks(b"abc"), LENGTH)) as server, connect(server) as wire, pytest.raises(Cut):
        wire.send(GET).answer()
    assert "shorter than Content-Length (4)" in str(caplog.records[-1].exc_info[1])  # type: ignore[index]


def test_the_answer_is_complete_when_its_length_is_reached() -> None:
    """What the app does afterwards keeps nobody waiting: close() is called when the client has its answer."""
    import threading

    go = threading.Event()
    log: list[str] = []

    class Slow(Body):
        def close(self) -> None:
            go.wait(10)
            super().close()

    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, LENGTH)
        return Slow(b"abcd", log=log)

    with serving(app) as server, connect(server) as wire:
        assert wire.send(GET).answer().body == b"abcd"
        assert log == ["block b'abcd'"]
        go.set()
    assert log == ["block b'abcd'", "close"]


@pytest.mark.parametrize("end", [None, LookupError("x")])
def test_close_is_called(end: BaseException | None, caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []
    with (
        serving(returning(Body(b"a", *([end] if end else []), log=log)), valid=False) as server,
        connect(server) as wire,
    ):
        try:
            wire.send(GET).answer()
        except Cut:
            assert end
    assert log == ["block b'a'", "close"]


def test_blocks_leave_at_once() -> None:
    """PEP 3333: none is kept back until the next one is made."""
    import threading

    go = threading.Semaphore(0)

    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        for number in range(3):
            yield b"%d" % number
            go.acquire(timeout=10)

    with serving(app) as server, connect(server) as wire:
        wire.send(GET).head()
        for number in range(3):
            assert wire.chunk() == b"%d" % number
            go.release()
        assert wire.chunk() == b""


def test_file_wrapper(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    opened = []

    def app(environ: Any, start_response: Any) -> Any:
        opened.append(open(path, "rb"))
        start_response(OK, TEXT)
        return environ["wsgi.file_wrapper"](opened[0], 10_000)

    assert ask(app, GET, valid=False).body == path.read_bytes()
    assert opened[0].closed


def test_file_wrapper_of_something_that_cannot_be_closed() -> None:
    class Source:
        def __init__(self) -> None:
            self.read = io.BytesIO(b"abc" * 10).read

    def app(environ: Any, start_response: Any) -> Any:
        start_response(OK, TEXT)
        return environ["wsgi.file_wrapper"](Source())

    assert ask(app, GET, valid=False).body == b"abc" * 10


def test_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        errors = environ["wsgi.errors"]
        errors.write("one\ntw")
        errors.write("o\n")
        errors.writelines(["thr", "ee\n", "four"])
        errors.flush()
        print("five", file=errors)
        errors.write("six")
        start_response(OK, TEXT)
        return [b""]

    assert ask(app, GET).status == 200
    lines = [(r.name, r.levelno, r.getMessage()) for r in caplog.records if r.name == "spvn.error" and r.levelno > 20]
    assert lines == [("spvn.error", logging.ERROR, text) for text in ("one", "two", "three", "four", "five", "six")]


def test_write_from_another_thread_at_the_same_time() -> None:
    """It is refused, not mixed up; one after the other is fine."""
    import threading

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response(OK, TEXT)
        thread = threading.Thread(target=write, args=(b"from there ",))
        thread.start()
        thread.join()
        return [b"and here"]

    assert ask(app, GET).body == b"from there and here"


def test_after_the_end_nothing_works() -> None:
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        kept.extend([start_response(OK, TEXT), start_response, environ["wsgi.input"]])
        return [b"done"]

    post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with serving(app, valid=False) as server, connect(server) as wire:
        assert wire.send(post).answer().body == b"done"
        write, start_response, _ = kept
        with pytest.raises(RuntimeError):
            write(b"more")
        with pytest.raises((RuntimeError, AssertionError)):
            start_response(OK, TEXT)


def test_a_websocket_handshake_gets_the_apps_answer() -> None:
    """The Upgrade is not taken up (RFC 9110 7.8)."""
    upgrade = (
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    def app(environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", TEXT)
        return [environ["REQUEST_METHOD"].encode() + environ["PATH_INFO"].encode()]

    answer = ask(app, upgrade, valid=False)
    assert (answer.status, answer.text) == (404, "GET/chat")
    answer = ask(returning(iter([b"one ", b"two"])), upgrade, valid=False)
    assert (answer.status, answer.text) == (200, "one two")
