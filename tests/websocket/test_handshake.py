"""The opening handshake (RFC 6455 4.2) and the app's answers to it."""

from __future__ import annotations

import json
import socket

import pytest
from support.process import key
from ws_client import Client, closing, handshake, text, until


def refused(server, request):
    with Client(server.port) as client:
        client.send(request)
        status, fields = client.head()
        return status, dict(fields), client.rest()


def test_fields_of_the_answer(echo_server):
    with Client(echo_server.port).open(
        "/chosen?subprotocol=b", "Sec-WebSocket-Protocol: a, b", "Origin: http://x"
    ) as c:
        assert [name for name, _ in c.answer][:4] == [
            "upgrade",
            "connection",
            "sec-websocket-accept",
            "sec-websocket-protocol",
        ]
        assert dict(c.answer)["sec-websocket-protocol"] == "b"
        names = [name for name, _ in c.answer]
        assert names.index("x-b") < names.index("x-a") < names.index("set-cookie")
        assert "content-length" not in names and "transfer-encoding" not in names
        c.send(closing(1000))
        assert c.closed() == (1000, b"")
        c.ended()


def test_scope(echo_server):
    fields = (
        "Origin: http://example.com",
        "Sec-WebSocket-Protocol: a,b",
        "Sec-WebSocket-Protocol: c",
        "X-A: 1",
        "X-A: 2",
    )
    with Client(echo_server.port).open("/sc%6fpe?q=%20", *fields) as c:
        seen = json.loads(c.message())
        assert (seen["type"], seen["scheme"], seen["http_version"]) == ("websocket", "ws", "1.1")
        assert (seen["path"], seen["subprotocols"]) == ("/scope", ["a", "b", "c"])
        assert "method" not in seen
        assert seen["extensions"] == ["websocket.http.response"]
        names = [name for name, _ in seen["headers"]]
        assert names[-5:] == ["origin", "sec-websocket-protocol", "sec-websocket-protocol", "x-a", "x-a"]
        assert ["origin", "http://example.com"] in seen["headers"]


@pytest.mark.parametrize(
    ("request_bytes", "status", "field"),
    [
        (handshake("/echo", method="POST"), 405, ("allow", "GET")),
        (handshake("/echo", version="8"), 426, ("sec-websocket-version", "13")),
        (handshake("/echo", version=""), 426, ("sec-websocket-version", "13")),
        (handshake("/echo", key=b""), 400, None),
        (handshake("/echo", key=b"dGhl"), 400, None),
        (handshake("/echo").replace(b"Host: h\r\n", b""), 400, None),
        (handshake("/echo", "Content-Length: 1") + b"x", 400, None),
        (handshake("/echo", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, None),
        (handshake("/echo").replace(b"keep-alive, Upgrade", b"keep-alive"), 400, None),
    ],
)
def test_bad_handshakes(echo_server, request_bytes, status, field):
    before = echo_server.count("calls.arrived")
    got, fields, _ = refused(echo_server, request_bytes)
    assert got == status
    if field:
        assert fields[field[0]] == field[1]
    assert fields["connection"] == "close"
    assert echo_server.count("calls.arrived") == before, "the app heard of it"


def test_http_1_0_is_an_ordinary_request(echo_server):
    assert refused(echo_server, handshake("/").replace(b"1.1", b"1.0").replace(b"keep-alive, ", b""))[0] == 200


def test_other_upgrades_are_ordinary_requests(echo_server):
    with Client(echo_server.port) as c:
        c.send(handshake("/").replace(b"Upgrade: websocket", b"Upgrade: h2c"))
        assert c.head()[0] == 200


def test_close_before_accepting_is_403(echo_server):
    name = key()
    with Client(echo_server.port) as c:
        c.send(handshake(f"/reject?key={name}"))
        status, fields = c.head()
        assert (status, dict(fields)["content-length"]) == (403, "0")
    echo_server.noted(name, "disconnect 1006")


def test_denial_response(echo_server):
    with Client(echo_server.port) as c:
        c.send(handshake("/deny"))
        status, fields = c.head()
        assert (status, dict(fields)["www-authenticate"]) == (401, "Basic")
        assert c.take(len("4\r\nnot \r\n5\r\ntoday\r\n0\r\n\r\n")) == b"4\r\nnot \r\n5\r\ntoday\r\n0\r\n\r\n"
        # It was an answer as any other, so the connection goes on.
        c.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert c.head()[0] == 200


def test_denial_response_in_parts(echo_server):
    """Its first part leaves before the app has the second."""
    name = key()
    with Client(echo_server.port) as c:
        c.send(handshake(f"/deny-slowly?key={name}"))
        assert c.head()[0] == 401
        assert c.take(4) == b"not "
        with Client(echo_server.port).open(f"/opens?key={name}"):
            pass
        assert c.take(5) == b"today"


@pytest.mark.parametrize("path", ["/crash", "/returns"])
def test_an_app_that_ends_before_accepting_is_500(echo_server, path):
    with Client(echo_server.port) as c:
        c.send(handshake(path))
        assert c.head()[0] == 500


@pytest.mark.parametrize("end", [closing(1000), b""])
def test_everything_behind_the_handshake_at_once(ws_serve, end):
    """Messages and the end are there before the app accepts: nobody comes to harm."""
    server = ws_serve()
    with Client(server.port) as c:
        c.send(handshake("/accepts-late?key=late") + 8 * text("early") + end)
        if not end:
            c.socket.shutdown(socket.SHUT_WR)
        with Client(server.port).open("/opens?key=late"):
            pass
        if end:
            server.noted("late", "disconnect 1000")
    assert until(lambda: server.stats()["calls"]["in_flight"] == 0)
    with Client(server.port).open("/echo") as c:
        c.send(text("still here"))
        assert c.message() == "still here"


def test_messages_behind_the_handshake(echo_server):
    """A client may not send before the answer, but some do, and nothing is lost of it."""
    with Client(echo_server.port) as c:
        c.send(handshake("/echo") + text("early"))
        assert c.head()[0] == 101
        assert c.message() == "early"


def test_the_client_leaves_before_the_answer(echo_server):
    name = key()
    with Client(echo_server.port) as c:
        c.send(handshake(f"/gate?key={name}"))
        assert c.head()[0] == 101
    with Client(echo_server.port).open(f"/opens?key={name}"):
        pass
    echo_server.noted(name, "disconnect 1006")


def test_ws_none(ws_serve):
    server = ws_serve("--ws", "none", app="support.app:app")
    with Client(server.port) as c:
        c.send(handshake("/"))
        status, fields = c.head()
        assert status == 200
        assert "upgrade" not in dict(fields)
