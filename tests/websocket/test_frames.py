"""Frames, messages and closing against a raw socket (RFC 6455 5 to 7).

The Go tests of the connection have more vectors.
"""

from __future__ import annotations

import struct
import time
import zlib

import pytest
from support.process import key
from ws_client import BINARY, CLOSE, FIN, MORE, PING, PONG, RSV1, TEXT, Client, closing, frame, text, until


@pytest.fixture
def echo(echo_server):
    with Client(echo_server.port).open("/echo") as client:
        yield client


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000, 1 << 21])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_echo(echo, size, opcode):
    payload = bytes(range(32, 127)) * (size // 95 + 1)
    payload = payload[:size]
    echo.send(frame(FIN | opcode, payload))
    message = echo.message()
    assert (message.encode() if isinstance(message, str) else message) == payload
    assert isinstance(message, str) == (opcode == TEXT)
    echo.send(closing(1000))
    assert echo.closed() == (1000, b"")
    echo.ended()


def test_the_largest_message(echo):
    payload = b"x" * (16 << 20)
    echo.send(frame(FIN | BINARY, payload))
    assert echo.message() == payload


def test_one_byte_more_is_too_large(echo):
    echo.send(frame(FIN | BINARY, b"x" * ((16 << 20) + 1))[:20])
    assert echo.closed() == (1009, b"message too large")
    echo.ended()


@pytest.mark.parametrize("chop", [0, 1, 7])
def test_fragments_with_pings_between(echo, chop):
    data = (
        frame(TEXT, b"\xce")
        + frame(FIN | PING, b"1")
        + frame(MORE, b"\xba")
        + frame(FIN | PING, b"2")
        + frame(FIN | MORE)
    )
    echo.send(data, chop)
    assert echo.frame() == (FIN | PONG, b"1")
    assert echo.frame() == (FIN | PONG, b"2")
    assert echo.frame() == (FIN | TEXT, "κ".encode())


@pytest.mark.parametrize("chop", [0, 1])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(FIN | RSV1 | TEXT, b"x"), 1002),
        (frame(FIN | 0x20 | TEXT, b"x"), 1002),
        (frame(FIN | 3), 1002),
        (frame(FIN | 11), 1002),
        (frame(FIN | MORE, b"x"), 1002),
        (frame(TEXT, b"x") + text("y"), 1002),
        (frame(PING, b"x"), 1002),
        (frame(FIN | PING, b"x" * 126), 1002),
        (b"\x81\x01x", 1002),
        (b"\x81\xfe\x00\x01\0\0\0\0x", 1002),
        (frame(FIN | CLOSE, b"\x03"), 1002),
        (closing(1005), 1002),
        (closing(2999), 1002),
        (closing(1000, b"\xff"), 1007),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0") + frame(FIN | MORE, b"\x80"), 1007),
    ],
)
def test_violations(echo_server, data, code, chop):
    name = key()
    with Client(echo_server.port).open(f"/echo?key={name}") as client:
        client.send(data, chop)
        got, reason = client.closed()
        assert got == code, reason
        client.ended()
    assert until(lambda: echo_server.notes(name))[0].startswith(f"disconnect {code}")


@pytest.mark.parametrize("chop", [0, 1])
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (text("x")[:1] + b"\x01x", 1002),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
        (closing(1005), 1002),
        (frame(FIN | BINARY, b"x" * ((16 << 20) + 1))[:20], 1009),
    ],
)
def test_what_came_before_a_violation_is_answered(echo_server, bad, code, chop):
    name = key()
    with Client(echo_server.port).open(f"/echo?key={name}") as client:
        client.send(b"".join(text(str(i)) for i in range(20)) + bad + frame(FIN | PING), chop)
        assert [client.frame() for _ in range(20)] == [(FIN | TEXT, b"%d" % i) for i in range(20)]
        first, payload = client.frame()
        assert (first, struct.unpack(">H", payload[:2])[0]) == (FIN | CLOSE, code)
        client.ended()
    assert until(lambda: echo_server.notes(name))[0].startswith(f"disconnect {code}")


def test_a_violation_waits_for_no_app_that_does_not_receive(echo_server):
    name = key()
    with Client(echo_server.port).open(f"/gate?key={name}") as client:
        echo_server.noted(name, "accepted")
        begun = time.monotonic()
        client.send(text("good") + text("x")[:1] + b"\x01x")
        assert client.closed()[0] == 1002
        assert time.monotonic() - begun < 2
        client.ended()
        with Client(echo_server.port).open(f"/opens?key={name}"):
            pass


@pytest.mark.parametrize(
    ("sent", "answer", "heard"),
    [
        (closing(), (None, b""), "disconnect 1005"),
        (closing(1000), (1000, b""), "disconnect 1000"),
        (closing(1001, b"bye"), (1001, b""), "disconnect 1001 bye"),
        (closing(4999, "grüße".encode()), (4999, b""), "disconnect 4999 grüße"),
    ],
)
def test_the_client_closes(echo_server, sent, answer, heard):
    name = key()
    with Client(echo_server.port).open(f"/echo?key={name}") as client:
        client.send(sent + text("behind the close"))
        assert client.closed() == answer
        client.ended()
    assert until(lambda: echo_server.notes(name)) == [heard]


def test_the_app_closes(echo_server):
    name = key()
    with Client(echo_server.port).open(f"/close?code=4321&reason=enough&key={name}") as client:
        assert client.closed() == (4321, b"enough")
        client.send(closing(4321))
        client.ended()
    assert until(lambda: echo_server.notes(name)) == [
        "{'type': 'websocket.disconnect', 'code': 4321, 'reason': 'enough'}"
    ]


def test_an_app_that_returns_closes(echo_server):
    with Client(echo_server.port).open("/goes") as client:
        assert client.closed() == (1000, b"")
        client.send(closing(1000))
        client.ended()


def test_an_app_that_crashes(echo_server):
    with Client(echo_server.port).open("/crash-later") as client:
        client.send(text("go"))
        assert client.closed() == (1011, b"internal error")
        client.send(closing(1011))
        client.ended()


@pytest.mark.parametrize("how", ["close", "cut"])
def test_send_after_the_end_raises(echo_server, how):
    name = key()
    with Client(echo_server.port).open(f"/late?key={name}") as client:
        if how == "close":
            client.send(closing(1000))
            assert client.closed() == (1000, b"")
    notes = echo_server.noted(name, "OSError ClientDisconnected")
    assert notes[0] == ("disconnect 1000" if how == "close" else "disconnect 1006")


@pytest.mark.parametrize("size", [1 << 18, 300_000 // 256 * 256, 5 << 20])
def test_large_messages_of_the_app(echo_server, size):
    with Client(echo_server.port).open(f"/big?size={size}") as client:
        assert client.message() == bytes(range(256)) * (size // 256)


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compression(echo_server):
    with Client(echo_server.port).open("/echo", DEFLATE) as client:
        assert dict(client.answer)["sec-websocket-extensions"].startswith("permessage-deflate;")
        message = b"spvn " * 1000
        client.send(frame(FIN | RSV1 | TEXT, deflate(message)))
        first, payload = client.frame()
        assert first == FIN | RSV1 | TEXT
        assert len(payload) < 200
        assert zlib.decompress(payload + b"\0\0\xff\xff\x01\0\0\xff\xff", wbits=-15) == message
        client.send(frame(FIN | RSV1 | TEXT, deflate(b"small")))
        assert client.frame() == (FIN | TEXT, b"small")
        # A bomb: 64 MiB in 64 KiB.
        client.send(frame(FIN | RSV1 | BINARY, deflate(b"\0" * (64 << 20))))
        assert client.closed()[0] == 1009
        client.ended()


@pytest.mark.parametrize("offer", ["permessage-deflate; server_max_window_bits=9", "permessage-deflate; x", "x-other"])
def test_offers_that_are_declined(echo_server, offer):
    with Client(echo_server.port).open("/echo", f"Sec-WebSocket-Extensions: {offer}") as client:
        assert "sec-websocket-extensions" not in dict(client.answer)
        client.send(text("plain"))
        assert client.message() == "plain"


def test_many_messages_at_once(echo_server):
    with Client(echo_server.port).open("/echo") as client:
        client.send(b"".join(text(str(i)) for i in range(2000)))
        assert [client.message() for _ in range(2000)] == [str(i) for i in range(2000)]


def test_counters(echo_server):
    assert until(lambda: echo_server.stats()["websockets"]["open"] == 0)  # the tests before this one have left
    before = echo_server.stats()["websockets"]
    with Client(echo_server.port).open("/echo") as client:
        client.send(text("x") + frame(FIN | PING))
        assert client.frame() in ((FIN | PONG, b""), (FIN | TEXT, b"x"))
        client.frame()
        # A turn's counters are shown at its end, when the frames may have arrived already.
        more = {"open": 1, "pings_in": 1, "messages_in": 1, "messages_out": 1}
        assert until(lambda: {name: echo_server.stats()["websockets"][name] - before[name] for name in more} == more)
        client.send(struct.pack(">BB", 0xFF, 0))
        assert client.closed()[0] == 1002
    assert echo_server.count("websockets.failed_by.protocol_error") >= before["failed_by"]["protocol_error"] + 1
