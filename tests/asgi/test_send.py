"""send(): records, order, checks, errors."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import pytest

from .core_side import S
from .harness import EAGER, Runner, Worker, _asgi

ONE_RECORD = ["RESPONSE DONE"] if EAGER else ["RESPONSE", "CALL_DONE"]


def start(status: Any = 200, headers: Any = (), **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


def body(data: Any = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def answer_of(run: Runner, *messages: dict[str, Any], **options: Any) -> tuple[Worker, int]:
    """What an app gets out with these messages."""
    calls: list[int] = []
    call_options = options.pop("call", {})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def scenario(worker: Worker) -> None:
        calls.append(worker.core.call(**call_options))
        await worker.done(calls[0])

    return run(app, scenario, **options), calls[0]


def error_of(run: Runner, *messages: dict[str, Any], **options: Any) -> tuple[BaseException, Worker, int]:
    worker, call = answer_of(run, *messages, **options)
    ((kind, error, line),) = worker.errors
    assert (kind, line) == ("exception", "GET / HTTP/1.1")
    assert error is not None
    assert worker.names(call)[-1] == "CALL_FAILED"
    return error, worker, call


def test_a_short_answer_is_one_record(run: Runner) -> None:
    worker, call = answer_of(run, start(201, [(b"a", b"1"), (b"b", b"")]), body(b"data"))
    assert worker.names(call) == ONE_RECORD
    record = worker.of(call)[0]
    assert (record.status, record.fields, record.body, record.last) == (201, [(b"a", b"1"), (b"b", b"")], b"data", True)
    assert worker.link.calls == 0


@pytest.mark.parametrize(
    "headers",
    [
        lambda: [(b"name", b"value")],
        lambda: [[b"name", b"value"]],
        lambda: ((b"Name", b"value"),),
        lambda: iter([(b"NAME", b"value")]),
        lambda: [iter([b"name", b"value"])],
        lambda: [(bytearray(b"name"), memoryview(b"value"))],
        lambda: [(b"transfer-encoding", b"chunked"), (b"name", b"value"), (b"Transfer-Encoding", b"x")],
        lambda: {b"name": b"value"}.items(),
    ],
)
def test_headers_are_pairs_of_any_kind(run: Runner, headers: Any) -> None:
    worker, call = answer_of(run, start(headers=headers()), body())
    assert worker.errors == []
    assert worker.of(call)[0].fields == [(b"name", b"value")]


def test_many_headers(run: Runner) -> None:
    fields = [(b"x-%d" % i, b"v" * i) for i in range(200)]
    worker, call = answer_of(run, start(headers=fields), body(b"x"))
    assert (worker.of(call)[0].fields, worker.of(call)[0].body) == (fields, b"x")


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")], ids=lambda v: type(v).__name__)
def test_body_is_any_buffer(run: Runner, data: Any) -> None:
    worker, call = answer_of(run, start(), body(data))
    assert worker.body(call) == b"bytes"


def test_defaults(run: Runner) -> None:
    minimal = {"type": "http.response.start", "status": HTTPStatus.NO_CONTENT}
    worker, call = answer_of(run, minimal, {"type": "http.response.body"})
    record = worker.of(call)[0]
    assert (record.status, record.fields, record.body, record.last) == (204, [], b"", True)


def test_keys_that_are_not_interned(run: Runner) -> None:
    def fresh(message: dict[str, Any]) -> dict[str, Any]:
        return {"".join(list(key)): value for key, value in message.items()}

    more = {**body(b"a", True), "x-unknown": 1}
    worker, call = answer_of(run, fresh(start(headers=[(b"a", b"b")])), fresh(more), fresh(body(b"b")))
    assert worker.errors == []
    assert worker.body(call) == b"ab"


def test_a_stream_is_published_as_it_comes(run: Runner) -> None:
    gates: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        gates.extend(asyncio.Event() for _ in range(3))
        await send(start())
        await gates[0].wait()
        await send(body(b"one", True))
        await gates[1].wait()
        await send(body(b"two", True))
        await gates[2].wait()
        await send(body())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        # The head must not wait for a body: server-sent events may begin late.
        await worker.until(lambda: worker.names(call) == ["RESPONSE"])
        assert not worker.of(call)[0].last
        for i, expected in enumerate([b"one", b"onetwo"]):
            gates[i].set()
            await worker.until(lambda expected=expected: worker.body(call) == expected)
        gates[2].set()
        await worker.done(call)
        assert worker.names(call) == ["RESPONSE", "RESPONSE_BODY", "RESPONSE_BODY", "RESPONSE_BODY", "CALL_DONE"]
        assert worker.of(call)[3].last and worker.of(call)[3].body == b""

    run(app, scenario)


def test_head_and_first_part_leave_together_later_too(run: Runner) -> None:
    """Also when the app answers from a turn of the loop that is no drain."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.001)
        await send(start())
        await send(body(b"data"))

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.done(call)
        assert worker.names(call) == ["RESPONSE", "CALL_DONE"]
        assert worker.body(call) == b"data"

    run(app, scenario)


def test_two_heads_at_once(run: Runner) -> None:
    """A head that another call's record follows goes without its body."""
    gate: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not gate:
            gate.append(asyncio.Event())
        await gate[0].wait()
        await send(start())
        await asyncio.sleep(0)
        await send(body(scope["path"].encode()))

    async def scenario(worker: Worker) -> None:
        calls = [worker.core.call(path=b"/%d" % i) for i in range(20)]
        await worker.until(lambda: worker.link.calls == 20)
        gate[0].set()
        await worker.done(*calls)
        assert [worker.body(call) for call in calls] == [b"/%d" % i for i in range(20)]

    run(app, scenario)


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        ("x", TypeError, "takes an ASGI message, a dict with a 'type', got str"),
        ({}, TypeError, "must have a 'type'"),
        ({"type": 1}, TypeError, "must have a 'type'"),
        ({"type": "http.response.start"}, RuntimeError, "must have a 'status'"),
        (start("200"), TypeError, "'status' in 'http.response.start' must be an int, got str"),
        (start(99), RuntimeError, "a final status, from 200 to 999, got 99"),
        (start(103), RuntimeError, "a final status, from 200 to 999, got 103"),
        (start(1 << 70), RuntimeError, "a final status, from 200 to 999, got 1180591620717411303424"),
        (start(headers=5), TypeError, "'headers' in 'http.response.start' must be an iterable of pairs"),
        (start(headers=[b"ab"]), TypeError, "must be a pair"),
        (start(headers=[(b"a",)]), TypeError, "must be a pair"),
        (start(headers=[("a", b"b")]), TypeError, "header name in 'http.response.start' must be bytes, got str: 'a'"),
        (start(headers=[(b"a", "b")]), TypeError, "header value in 'http.response.start' must be bytes, got str: 'b'"),
        (start(headers=[(b"a b", b"c")]), RuntimeError, r"Invalid HTTP header name b'a b'"),
        (start(headers=[(b"", b"c")]), RuntimeError, r"Invalid HTTP header name b''"),
        (start(headers=[(b"a\xe4", b"c")]), RuntimeError, "Invalid HTTP header name"),
        (start(headers=[(b"a", b"b\r\nc: d")]), RuntimeError, r"Invalid HTTP header value b'b\\r\\nc: d' of b'a'"),
        (start(headers=[(b"a", b"b\nc")]), RuntimeError, "Invalid HTTP header value"),
        (start(headers=[(b"a", b"b\0")]), RuntimeError, "Invalid HTTP header value"),
        (start(headers=[(b"content-length", b"x")]), RuntimeError, "Invalid Content-Length b'x'.*not a number"),
        (start(headers=[(b"content-length", b"-1")]), RuntimeError, "Invalid Content-Length"),
        (
            start(headers=[(b"content-length", b"1"), (b"Content-Length", b"2")]),
            RuntimeError,
            "Invalid Content-Length b'2'.*differs",
        ),
        (body(), RuntimeError, "Expected ASGI message 'http.response.start', but got 'http.response.body'"),
        ({"type": "lifespan.startup.complete"}, RuntimeError, "Expected ASGI message 'http.response.start', but got"),
    ],
)
def test_wrong_start(run: Runner, message: Any, error: type[Exception], text: str) -> None:
    raised, worker, call = error_of(run, message)
    assert type(raised) is error
    with pytest.raises(error, match=text):
        raise raised
    assert worker.names(call) == ["CALL_FAILED"]


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        (start(), RuntimeError, "Expected ASGI message 'http.response.body', but got 'http.response.start'"),
        (body("text"), TypeError, "'body' in 'http.response.body' must be bytes, got str"),
        (body(None), TypeError, "'body' in 'http.response.body' must be bytes, got NoneType"),
        ({"type": "http.response.trailers"}, RuntimeError, "Expected ASGI message 'http.response.body'"),
        ({"type": "http.response.pathsend", "path": "/x"}, RuntimeError, "Expected ASGI message 'http.response.body'"),
    ],
)
def test_wrong_body(run: Runner, message: Any, error: type[Exception], text: str) -> None:
    raised, worker, call = error_of(run, start(), message)
    with pytest.raises(error, match=text):
        raise raised
    # Nobody had seen the head: the core can still answer 500.
    assert worker.names(call) == (["CALL_FAILED"] if EAGER else ["RESPONSE", "CALL_FAILED"])


def test_after_the_end(run: Runner) -> None:
    raised, worker, call = error_of(run, start(), body(b"x"), body(b"y"))
    with pytest.raises(RuntimeError, match="'http.response.body' sent, after response already completed"):
        raise raised
    assert worker.names(call) == ["RESPONSE", "CALL_FAILED"]


def length(n: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % n)]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([start(headers=length(3)), body(b"long")], "Response content longer than Content-Length"),
        ([start(headers=length(3)), body(b"ab", True), body(b"cd")], "Response content longer than Content-Length"),
        ([start(headers=length(5)), body(b"long")], "Response content shorter than Content-Length"),
        ([start(headers=length(5)), body(b"a", True), body()], "Response content shorter than Content-Length"),
    ],
)
def test_wrong_content_length(run: Runner, messages: list[dict[str, Any]], text: str) -> None:
    raised, worker, call = error_of(run, *messages)
    with pytest.raises(RuntimeError, match=text):
        raise raised
    assert not any(record.last for record in worker.of(call))


@pytest.mark.parametrize(
    ("call", "messages", "expected"),
    [
        ({}, [start(headers=length(4)), body(b"ab", True), body(b"cd")], b"abcd"),
        ({}, [start(headers=[(b"Content-Length", b" 2 ")]), body(b"ab")], b"ab"),
        ({"method": b"HEAD"}, [start(headers=length(4)), body()], b""),
        ({"method": b"HEAD"}, [start(headers=length(4)), body(b"abcd")], b"abcd"),
        ({}, [start(304, length(4)), body()], b""),
        ({}, [start(204), body(b"null")], b""),
        ({}, [start(304, length(4)), body(b"ab", True), body(b"cd")], b""),
    ],
)
def test_content_length(run: Runner, call: dict[str, Any], messages: list[dict[str, Any]], expected: bytes) -> None:
    worker, id = answer_of(run, *messages, call=call)
    assert worker.errors == []
    assert worker.body(id) == expected
    assert [record.last for record in worker.of(id) if record.type in (S.RESPONSE, S.RESPONSE_BODY)][-1]


def test_a_head_that_is_too_large(run: Runner) -> None:
    fields = [(b"x-large", b"v" * 1000)] * 100
    raised, worker, call = error_of(run, start(headers=fields), outbox=1 << 18)
    assert "The head of the response has 101500 bytes of fields; at most 65" in str(raised)
    assert worker.names(call) == ["CALL_FAILED"]


def test_trailers(run: Runner) -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"Digest", b"1")], "more_trailers": True}
    last = {"type": "http.response.trailers", "headers": [(b"b", b"2")]}
    worker, call = answer_of(run, start(trailers=True), body(b"data"), trailers, last)
    assert worker.errors == []
    head, first, second = worker.of(call)[:3]
    assert (head.flags & S.FLAG_TRAILERS, head.last, head.body) == (S.FLAG_TRAILERS, False, b"data")
    assert (first.trailers, first.last) == ([(b"digest", b"1")], False)
    assert (second.trailers, second.last) == ([(b"b", b"2")], True)


def test_trailers_that_do_not_come(run: Runner) -> None:
    worker, call = answer_of(run, start(trailers=True), body(b"data"))
    assert worker.errors == [("incomplete", None, "GET / HTTP/1.1")]
    assert worker.names(call)[-1] == "CALL_FAILED"


def test_early_hints(run: Runner) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>"]}
    late = {"type": "http.response.early_hint", "links": [b"</late>"]}
    worker, call = answer_of(run, hint, start(headers=[(b"a", b"b")]), hint, body(b"x", True), late, body(b"y"))
    assert worker.errors == []
    names = worker.names(call)
    assert names[:3] == ["INFORMATIONAL", "INFORMATIONAL", "RESPONSE"]
    assert names.count("INFORMATIONAL") == 2  # the late one is ignored
    for record in worker.of(call)[:2]:
        assert (record.status, record.fields) == (103, [(b"link", link) for link in hint["links"]])
    assert worker.of(call)[2].fields == [(b"a", b"b")]
    assert worker.body(call) == b"xy"


@pytest.mark.parametrize("links", [None, 5, ["text"]])
def test_wrong_early_hint(run: Runner, links: Any) -> None:
    raised, _, _ = error_of(run, {"type": "http.response.early_hint", "links": links})
    assert isinstance(raised, TypeError)


def test_pathsend(run: Runner) -> None:
    worker, call = answer_of(
        run, start(), {"type": "http.response.pathsend", "path": "/etc/ä"}, link={"pathsend": True}
    )
    assert worker.errors == []
    assert worker.names(call)[:2] == ["RESPONSE", "PATHSEND"]
    record = worker.of(call)[1]
    assert (record.text, record.last) == ("/etc/ä", True)


def test_send_after_the_client_left(run: Runner) -> None:
    raised: list[BaseException] = []
    gate: list[asyncio.Event] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        gate.append(asyncio.Event())
        await send(start())
        await gate[0].wait()
        for _ in range(2):
            try:
                await send(body(b"x", True))
            except OSError as error:
                raised.append(error)
        raise raised[0]

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: gate)
        worker.core.disconnect(call)
        await worker.turns()
        gate[0].set()
        await worker.done(call)

    worker = run(app, scenario)
    assert [type(error) for error in raised] == [_asgi.ClientDisconnected] * 2
    assert issubclass(_asgi.ClientDisconnected, OSError)
    assert worker.errors == []


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_reported_after_the_client_left(run: Runner, quiet: bool) -> None:
    """A framework's own word for it (Starlette's ClientDisconnect) is not an error; anything else is."""

    class ClientDisconnect(Exception):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        try:
            await send(start())
        except OSError:
            raise (ClientDisconnect() if quiet else ZeroDivisionError()) from None

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        await worker.until(lambda: worker.link.calls == 1)
        worker.core.disconnect(call)
        await worker.done(call)

    worker = run(app, scenario)
    assert [type(error) for _, error, _ in worker.errors] == ([] if quiet else [ZeroDivisionError])


def test_headers_that_send_themselves(run: Runner) -> None:
    """A header list whose iteration sends must not put two heads into the ring."""
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        def headers() -> Any:
            send(start(201))
            yield (b"a", b"b")

        try:
            await send(start(headers=headers()))
        except RuntimeError as error:
            errors.append(str(error))
        await send(body())

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        status, _, _ = await worker.answer(call)
        assert status == 201
        assert worker.names(call).count("RESPONSE") <= 1

    run(app, scenario)
    assert errors == ["An ASGI message was sent while send() was still reading another one."]


def test_send_from_another_thread(run: Runner) -> None:
    """asyncio.run_coroutine_threadsafe(send(...), loop) does nothing before the loop awaits it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            for message in (start(), body(b"a", True), body(b"b")):
                asyncio.run_coroutine_threadsafe(send(message), loop).result(10)
            assert asyncio.run_coroutine_threadsafe(receive(), loop).result(10)["type"] == "http.disconnect"
            with pytest.raises(RuntimeError, match="must be awaited on the event loop"):
                receive().send(None)

        await loop.run_in_executor(None, work)

    async def scenario(worker: Worker) -> None:
        call = worker.core.call()
        assert (await worker.answer(call))[2] == b"ab"

    assert run(app, scenario).errors == []
