"""WebSocket calls."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from .core_side import WS, Record, S, decode_fields, rung
from .harness import Runner, Worker, _asgi

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}


def sent(records: list[Record]) -> list[bytes | str]:
    """The messages in WS_SEND records, put together."""
    messages: list[bytes | str] = []
    parts = b""
    for record in records:
        if record.type == S.WS_SEND:
            opcode, size = struct.unpack_from("<II", record.payload)
            parts += record.payload[8 : 8 + size]
            if not record.flags & S.FLAG_MORE:
                messages.append(parts.decode() if opcode == 1 else parts)
                parts = b""
    return messages


def credit(records: list[Record]) -> tuple[int, int]:
    """Messages and bytes that the WS_CREDIT records tell of."""
    told = [struct.unpack_from("<II", record.payload) for record in records if record.type == S.WS_CREDIT]
    return sum(messages for messages, _ in told), sum(size for _, size in told)


def closed(record: Record) -> tuple[int, bytes]:
    assert record.type == S.WS_CLOSE
    code, size, _ = struct.unpack_from("<HHI", record.payload)
    return code, record.payload[8 : 8 + size]


def open_call(worker: Worker, **call: Any) -> int:
    return worker.core.call(websocket=True, scheme=WS, **call)


def test_echo(run: Runner) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await send({**ACCEPT, "subprotocol": "chat", "headers": [(b"X-A", b"b")]})
        while True:
            message = await receive()
            received.append(message)
            if message["type"] == "websocket.disconnect":
                break
            await send({**message, "type": "websocket.send"})

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.until(lambda: worker.of(call))
        record = worker.of(call)[0]
        assert record.type == S.WS_ACCEPT
        length, count, size, _ = struct.unpack_from("<4I", record.payload)
        assert record.payload[16 : 16 + length] == b"chat"
        assert decode_fields(record.payload[16 + length : 16 + length + size], count) == [(b"x-a", b"b")]
        worker.core.ws_message(call, "grüße".encode())
        worker.core.ws_message(call, b"\x00\xff", opcode=2)
        worker.core.ws_message(call, b"")
        await worker.until(lambda: len(sent(worker.of(call))) == 3)
        worker.core.ws_closed(call, 4001, b"bye")
        await worker.done(call)
        assert sent(worker.of(call)) == ["grüße", b"\x00\xff", ""]
        assert credit(worker.of(call)) == (3, len("grüße".encode()) + 2)
        assert worker.names(call)[-1] == "CALL_DONE"

    worker = run(app, scenario)
    assert worker.errors == []
    assert received == [
        CONNECT,
        {"type": "websocket.receive", "text": "grüße"},
        {"type": "websocket.receive", "bytes": b"\x00\xff"},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.disconnect", "code": 4001, "reason": "bye"},
    ]


def test_a_message_in_parts(run: Runner) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        received.append(await receive())
        await send({"type": "websocket.send", "bytes": received[0]["bytes"] * 3})
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        data = bytes(range(256)) * 400
        for i in range(0, len(data), 20000):
            part = data[i : i + 20000]
            worker.core.ws_message(call, part, opcode=2, more=i + 20000 < len(data))
        await worker.until(lambda: worker.names(call).count("WS_SEND") == 3)
        await worker.turns()
        assert worker.names(call).count("WS_SEND") == 3  # the window is full
        for _ in range(8):
            worker.core.window(call, S.SEND_WINDOW_STREAM)
            await worker.turns()
            worker.take()
        await worker.done(call)
        assert sent(worker.of(call)) == [data * 3]
        assert credit(worker.of(call)) == (1, len(data))
        assert closed([r for r in worker.of(call) if r.type == S.WS_CLOSE][0]) == (4000, b"enough")

    worker = run(app, scenario, outbox=1 << 17)
    assert worker.errors == []
    assert len(received) == 1


def test_credit_is_told_once_it_is_worth_a_record(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        for _ in range(S.WS_CREDIT_MESSAGES - 1):
            worker.core.ws_message(call, b"x")
            await worker.turns()
        assert credit(worker.of(call)) == (0, 0)
        worker.core.ws_message(call, b"x")
        await worker.until(lambda: credit(worker.of(call)) == (S.WS_CREDIT_MESSAGES, S.WS_CREDIT_MESSAGES))
        worker.core.ws_message(call, b"x" * S.WS_CREDIT_BYTES)
        await worker.until(lambda: credit(worker.of(call))[0] == S.WS_CREDIT_MESSAGES + 1)
        worker.core.ws_closed(call, 1000)
        await worker.done(call)

    assert run(app, scenario).errors == []


@pytest.mark.parametrize(("calls", "batch"), [(1, False), (3, True)])
def test_answers_of_what_one_drain_woke_share_a_ring(run: Runner, calls: int, batch: bool) -> None:
    """Until it comes the core looks at the heads by itself, as it does during a drain."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "x"})
            seen.append((worker.core.draining, rung(worker.core.loop_bells[0])))

    worker: Worker

    async def scenario(the_worker: Worker) -> None:
        nonlocal worker
        worker = the_worker
        opened = [open_call(worker) for _ in range(calls)]
        await worker.until(lambda: all(worker.of(call) for call in opened))
        await worker.turns()
        for call in opened:
            worker.core.ws_message(call, b"x")
        await worker.until(lambda: len(sent(worker.records)) == calls)
        await worker.until(lambda: not worker.core.draining)
        for call in opened:
            worker.core.ws_closed(call, 1000)
        await worker.done(*opened)

    assert run(app, scenario).errors == []
    assert seen == [(batch, not batch)] * calls


def test_messages_wait_for_the_window(run: Runner) -> None:
    count = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal count
        await receive()
        await send(ACCEPT)
        for _ in range(10):
            await send({"type": "websocket.send", "bytes": b"x" * 40000})
            count += 1
        await send({"type": "websocket.close"})

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        # The second may begin, as less than the window is on its way; the third may not.
        await worker.until(lambda: len(sent(worker.of(call))) == 2)
        await worker.turns()
        assert count == 2
        for i in range(3, 11):
            worker.core.window(call, 40000)
            await worker.until(lambda i=i: len(sent(worker.of(call))) == i)
        await worker.done(call)

    assert run(app, scenario).errors == []


def test_close_before_the_handshake_is_a_403(run: Runner) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await send({"type": "websocket.close"})
        received.append(await receive())

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        status, fields, body = await worker.answer(call)
        assert (status, fields, body) == (403, [], b"")

    assert run(app, scenario).errors == []
    assert received == [CONNECT, {"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_denial_response(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"pe"})
        with pytest.raises(RuntimeError, match="'websocket.accept', after sending 'websocket.close' or a response"):
            await send(ACCEPT)

    async def scenario(worker: Worker) -> None:
        status, fields, body = await worker.answer(open_call(worker))
        assert (status, fields, body) == (401, [(b"a", b"b")], b"nope")

    assert run(app, scenario).errors == []


def test_an_app_that_returns_closes(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.done(call)
        assert worker.names(call) == ["WS_ACCEPT", "WS_CLOSE", "CALL_DONE"]
        assert closed(worker.of(call)[1]) == (1000, b"")

    assert run(app, scenario).errors == []


def test_an_app_that_returns_without_handshake(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.done(call)
        assert worker.names(call) == ["CALL_FAILED"]

    assert run(app, scenario).errors == [("incomplete", None, "GET / HTTP/1.1")]


@pytest.mark.parametrize("how", ["close frame", "cut"])
def test_the_client_leaves(run: Runner, how: str) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        while True:
            message = await receive()
            received.append(message)
            if message["type"] == "websocket.disconnect":
                break
        await send({"type": "websocket.send", "text": "too late"})

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.until(lambda: worker.names(call) == ["WS_ACCEPT"])
        worker.core.ws_message(call, b"last words")
        if how == "cut":
            worker.core.disconnect(call)
        else:
            worker.core.ws_closed(call, 1001)
        await worker.done(call)

    assert run(app, scenario).errors == []
    # What came before is delivered before.
    assert received[1:] == [
        {"type": "websocket.receive", "text": "last words"},
        {"type": "websocket.disconnect", "code": 1006 if how == "cut" else 1001, "reason": ""},
    ]


@pytest.mark.parametrize("end", ["hears", "returns", "closes", "raises"])
def test_the_client_breaks_the_rules(run: Runner, end: str) -> None:
    """What came before is answered; then the app hears of it, or ends without, and the core of that."""
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        message = await receive()
        await asyncio.sleep(0)
        await send({"type": "websocket.send", "text": message["text"]})
        if end == "returns":
            return
        if end == "closes":
            await send({"type": "websocket.close", "code": 4000})
        if end == "raises":
            raise ValueError("on purpose")
        received.append(await receive())
        with pytest.raises(OSError):
            await send({"type": "websocket.send", "text": "too late"})

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.until(lambda: worker.names(call) == ["WS_ACCEPT"])
        worker.core.ws_message(call, b"good")
        worker.core.ws_closed(call, 1002, b"bad", later=True)
        await worker.done(call)
        names = [name for name in worker.names(call)[1:] if name != str(S.WS_CREDIT)]
        assert names == ["WS_SEND", *(["CALL_FAILED"] if end == "raises" else ["WS_CLOSE", "CALL_DONE"])]

    assert len(run(app, scenario).errors) == (end == "raises")
    if end in ("hears", "closes"):
        assert received == [{"type": "websocket.disconnect", "code": 1002, "reason": "bad"}]


def test_an_answer_that_takes_too_long_after_the_rules_were_broken(run: Runner) -> None:
    """A message that waits for the window is still sent if the core waits for it, and else dropped."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def flood() -> None:
            try:
                for _ in range(5):
                    await send({"type": "websocket.send", "bytes": b"x" * (S.SEND_WINDOW_STREAM // 4)})
            except OSError as error:
                seen.append(type(error))

        flooding = asyncio.ensure_future(flood())
        await asyncio.sleep(0)
        seen.append(await receive())
        await flooding
        seen.append("over")

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.until(lambda: len(sent(worker.of(call))) == 4)
        await worker.turns()
        worker.core.ws_closed(call, 1002, b"bad", later=True)
        await worker.until(lambda: "over" in seen)
        assert len(sent(worker.of(call))) == 4  # the fifth waits for the window, and the close for the fifth
        assert "WS_CLOSE" not in worker.names(call)
        worker.core.ws_closed(call, 1002, b"bad")
        await worker.done(call)
        assert worker.names(call)[-2:] == ["WS_CLOSE", "CALL_DONE"]
        assert len(sent(worker.of(call))) == 4

    assert run(app, scenario).errors == []
    assert [s for s in seen if isinstance(s, dict)] == [{"type": "websocket.disconnect", "code": 1002, "reason": "bad"}]


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        ([{"type": "websocket.send", "text": "x"}], RuntimeError, "Expected ASGI message 'websocket.accept', "),
        ([{"type": "http.response.start", "status": 200}], RuntimeError, "Expected ASGI message 'websocket.accept', "),
        ([{**ACCEPT, "subprotocol": 5}], TypeError, "'subprotocol' in 'websocket.accept' must be a str, got int"),
        ([{**ACCEPT, "headers": [(b"a", b"\n")]}], RuntimeError, "Invalid HTTP header value"),
        ([ACCEPT, ACCEPT], RuntimeError, "Expected ASGI message 'websocket.send' or 'websocket.close', but got"),
        ([ACCEPT, {"type": "websocket.send"}], TypeError, "must have 'bytes', which are bytes, or 'text', a str"),
        ([ACCEPT, {"type": "websocket.send", "text": b"x"}], TypeError, "must have 'bytes'"),
        ([ACCEPT, {"type": "websocket.send", "bytes": "x"}], TypeError, "must have 'bytes'"),
        *[
            ([ACCEPT, {"type": "websocket.close", "code": code}], RuntimeError, f"from 3000 to 4999, got {code}")
            for code in (99, 999, 1004, 1005, 1006, 1015, 2500, 5000)
        ],
        ([ACCEPT, {"type": "websocket.close", "code": "x"}], TypeError, "int"),
        ([ACCEPT, {"type": "websocket.close", "reason": "x" * 124}], RuntimeError, "at most 123 bytes"),
        ([ACCEPT, CLOSE, {"type": "websocket.send", "text": "x"}], OSError, "The WebSocket was closed"),
        ([ACCEPT, CLOSE, ACCEPT], RuntimeError, "'websocket.accept', after sending 'websocket.close'"),
        ([ACCEPT, CLOSE, CLOSE], RuntimeError, "after sending 'websocket.close'"),
        ([{**ACCEPT, "subprotocol": "a b"}], RuntimeError, "'subprotocol' in 'websocket.accept' must be a token"),
    ],
)
def test_wrong_messages(run: Runner, messages: list[dict[str, Any]], error: type[Exception], text: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.done(call)
        assert worker.names(call)[-1] == "CALL_FAILED"

    ((_, raised, _),) = run(app, scenario).errors
    assert raised is not None
    with pytest.raises(error, match=text):
        raise raised


def test_none_counts_as_missing(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**ACCEPT, "subprotocol": None})
        await send({"type": "websocket.send", "bytes": None, "text": "a"})
        await send({"type": "websocket.send", "bytes": b"b", "text": None})
        await send({"type": "websocket.close", "code": None, "reason": None})

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.done(call)
        assert sent(worker.of(call)) == ["a", b"b"]
        assert closed(worker.of(call)[3]) == (1000, b"")

    assert run(app, scenario).errors == []


def test_send_after_the_client_left(run: Runner) -> None:
    errors: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
            try:
                await send(message)
            except _asgi.ClientDisconnected as error:
                errors.append(error)

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.until(lambda: worker.of(call))
        worker.core.disconnect(call)
        await worker.done(call)

    assert run(app, scenario).errors == []
    assert len(errors) == 2


def test_concurrent_receive_and_send(run: Runner) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def read() -> int:
            count = 0
            while (await receive())["type"] == "websocket.receive":
                count += 1
            return count

        async def write() -> None:
            for i in range(50):
                await send({"type": "websocket.send", "text": str(i)})
                await asyncio.sleep(0)

        count, _ = await asyncio.gather(read(), write())
        assert count == 50

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        for i in range(50):
            worker.core.ws_message(call, b"%d" % i)
        await worker.until(lambda: len(sent(worker.of(call))) == 50)
        worker.core.ws_closed(call, 1000)
        await worker.done(call)
        assert sent(worker.of(call)) == [str(i) for i in range(50)]

    assert run(app, scenario).errors == []


def test_a_task_beside_an_app_that_returns(run: Runner) -> None:
    """It hears the code that the client got, and its send() finds nobody."""
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def beside() -> None:
            heard.append(await receive())
            try:
                await send({"type": "websocket.send", "text": "x"})
            except OSError as exc:
                heard.append(str(exc))

        tasks.append(asyncio.create_task(beside()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []

    async def scenario(worker: Worker) -> None:
        call = open_call(worker)
        await worker.done(call)
        await tasks[0]

    assert run(app, scenario).errors == []
    assert heard == [
        {"type": "websocket.disconnect", "code": 1000, "reason": ""},
        "The WebSocket was closed: nothing more can be sent.",
    ]
