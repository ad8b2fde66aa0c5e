"""What comes in: requests in all their forms, through sockets (the parser's own tests are in Go)."""

from __future__ import annotations

import json

import pytest

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST_5 = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
POST_CHUNKED = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(200)
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "folded": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    "NUL": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    "length and chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde", 400),
    "signed length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde", 400),
    "other coding": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunked twice": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    "bad chunk size": (POST_CHUNKED + b"x\r\n", 400),
    "expectation": (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
    "version": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "no version": (b"GET /\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    "long line": (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "large head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 66_000 + b"\r\n\r\n", 431),
    "many fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 128 + b"\r\n", 431),
    "TLS": (TLS_HELLO, 400),
    "HTTP/2": (HTTP2_PREFACE, 505),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_a_sentence(server, what):
    data, status = REFUSED[what]
    with server.wire() as wire:
        wire.send(data)
        answer = wire.answer()
        assert answer.status == status, answer
        assert answer.field("connection") == "close"
        assert answer.text.endswith(".")
        wire.ended()


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_request_in_pieces(server, pieces):
    data = POST_CHUNKED + CHUNKS
    with server.wire() as wire:
        for at in range(0, len(data), pieces):
            wire.send(data[at : at + pieces])
        assert wire.answer().body == b"abcde"


def test_pipelined_requests_are_answered_in_order(server):
    """The second is ready long before the first."""
    with server.wire() as wire:
        slow = b"GET /slow?seconds=0.2 HTTP/1.1\r\nHost: a\r\n\r\n"
        wire.send(slow + GET + POST_5 + b"abcde" + GET + POST_CHUNKED + CHUNKS + GET)
        bodies = [wire.answer().body for _ in range(6)]
        assert bodies == [b"slow", b"hello", b"abcde", b"hello", b"abcde", b"hello"]


def test_a_thousand_pipelined_requests(server):
    with server.wire() as wire:
        for _ in range(10):
            wire.send(GET * 100)
        for _ in range(1000):
            assert wire.answer().body == b"hello"


def test_nothing_is_answered_behind_a_close(server):
    with server.wire() as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        assert wire.answer().body == b"hello"
        wire.ended()


def test_empty_lines_before_a_request(server):
    with server.wire() as wire:
        assert wire.send(b"\r\n\r\n" + GET + b"\r\n" + GET).answer().body == b"hello"
        assert wire.answer().body == b"hello"


def test_the_scope(server):
    with server.wire() as wire:
        wire.send(b"GET /scope?a=%20b&c HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-one: 2\r\nEmpty:\r\n\r\n")
        seen = json.loads(wire.answer().body)
        ours = wire.socket.getsockname()
    assert (seen["type"], seen["method"], seen["scheme"], seen["http_version"]) == ("http", "GET", "http", "1.1")
    assert (seen["path"], seen["raw_path"], seen["query_string"], seen["root_path"]) == (
        "/scope", "/scope", "a=%20b&c", "",
    )  # fmt: skip
    assert seen["headers"] == [["host", "a"], ["x-one", "1"], ["x-one", "2"], ["empty", ""]]
    assert seen["client"] == list(ours)
    assert seen["server"] == ["127.0.0.1", server.port]
    assert seen["state"] == {"shared": "'from the start-up'"}


def test_a_percent_encoded_path(server):
    with server.wire() as wire:
        wire.send(b"GET /%73cope HTTP/1.1\r\nHost: a\r\n\r\n")
        seen = json.loads(wire.answer().body)
    assert (seen["path"], seen["raw_path"]) == ("/scope", "/%73cope")


def test_absolute_form(server):
    with server.wire() as wire:
        wire.send(b"GET http://other.example:81/scope?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        seen = json.loads(wire.answer().body)
    assert (seen["path"], seen["query_string"]) == ("/scope", "x=1")
    assert ["host", "other.example:81"] in seen["headers"]


def test_a_body_that_the_app_does_not_read(server):
    """The connection goes on behind a small one."""
    with server.wire() as wire:
        wire.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde" + GET)
        assert wire.answer().body == b"early"
        assert wire.answer().body == b"hello"


def test_a_body_that_comes_behind_its_answer(server):
    with server.wire() as wire:
        wire.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        assert wire.answer().body == b"early"
        wire.send(b"abcde" + GET)
        assert wire.answer().body == b"hello"


def test_a_large_body_that_the_app_does_not_read(server):
    """It is not worth reading: the connection closes, and says so, and the answer is not lost in a reset."""
    with server.wire() as wire:
        wire.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
        answer = wire.answer()
        assert (answer.body, answer.field("connection")) == (b"early", "close")


def test_the_answer_survives_a_client_that_goes_on_sending(server):
    """A large answer to a large upload that nobody reads: input must not end the output."""
    body = "y" * 10_000
    with server.wire(receive_buffer=4096) as wire:
        wire.send(f"POST /early?body={body} HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n".encode())
        for _ in range(10):
            wire.send(b"x" * 10_000)
        assert wire.answer().body == body.encode()


def test_a_slow_reader_that_goes_on_sending(patient, name):
    """Bytes behind the last request must not end its answer, which is still on its way."""
    with patient.wire(receive_buffer=4096) as wire:
        wire.get(f"/parts?n=100&size=60000&length=6000000&key={name}", "Connection: close")
        wire.head()
        got = 0
        while "sent" not in patient.notes(name):  # the server has all of it, and the kernel not
            got += len(wire.take(60_000))
        wire.send(GET)
        assert wire.quiet(0.2) is False
        assert got + len(wire.rest()) == 6_000_000


def test_100_continue_when_the_app_asks(server, name):
    with server.wire() as wire:
        wire.send(
            f"POST /compute?key={name}&read HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            "Content-Length: 5\r\n\r\n".encode()
        )
        server.noted(name, "begun")
        assert wire.quiet()
        server.say(name, "go on")
        assert wire.answer().status == 100
        wire.send(b"abcde")
        assert wire.answer().body == b"5"
        assert wire.get("/").answer().body == b"hello"


def test_no_100_when_the_app_does_not_ask(server):
    with server.wire() as wire:
        wire.send(b"POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.field("connection")) == (200, "close")
        wire.ended()


def test_no_100_to_a_client_that_did_not_wait(server):
    with server.wire() as wire:
        wire.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nabcde"
        )
        answer = wire.answer()
        assert answer.status in (100, 200)
        if answer.status == 100:
            answer = wire.answer()
        assert answer.body == b"abcde"


def test_no_100_for_http_1_0(server):
    with server.wire() as wire:
        wire.send(b"POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert wire.quiet()
        assert wire.send(b"abcde").answer().body == b"abcde"


@pytest.mark.parametrize("path", ["/echo", "/upload", "/early"])
def test_a_half_closed_client_is_answered(server, path):
    with server.wire() as wire:
        wire.last(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde".encode())
        assert wire.answer().status == 200
        wire.ended()


def test_a_half_closed_client_of_a_slow_app_is_answered(server):
    with server.wire() as wire:
        wire.last(b"GET /slow?seconds=0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.answer().body == b"slow"
        wire.ended()


def test_a_half_closed_client_with_requests_in_a_pipeline_is_answered(server):
    """All of them: the FIN came together with the last."""
    with server.wire() as wire:
        wire.last(b"GET /slow?seconds=0.1 HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + GET)
        assert [wire.answer().body for _ in range(3)] == [b"slow", b"slow", b"hello"]
        wire.ended()


def test_a_half_closed_client_with_half_a_request(server):
    with server.wire() as wire:
        wire.last(GET + b"GET / HTT")
        assert wire.answer().body == b"hello"
        wire.ended()


def test_a_half_closed_client_with_its_upload_still_unread(patient, name):
    """All of the body is in the kernel's buffers by then; the app reads it later."""
    size = 150_000
    with patient.wire() as wire:
        wire.send(f"POST /upload?key={name}&hold=go HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        patient.noted(name, "begun")
        wire.last(b"x" * size)
        assert wire.quiet(0.2)
        patient.say(name, "go")
        assert json.loads(wire.answer().body)["bytes"] == size


def test_an_upload_over_several_windows(patient):
    size = 3_000_000
    with patient.wire() as wire:
        wire.send(f"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
        assert json.loads(wire.answer().body)["bytes"] == size
        assert wire.get("/").answer().body == b"hello"


def test_an_upload_in_many_small_chunks(patient):
    with patient.wire() as wire:
        wire.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send(b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n")
        assert json.loads(wire.answer().body)["bytes"] == 50_000
