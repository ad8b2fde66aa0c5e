"""What leaves the server: RFC 9110 and 9112 for answers, and the rules of ASGI for the app that gives them."""

from __future__ import annotations

import contextlib
import re
import sys

import pytest
from support.wire import Cut

LARGE = 300_000


def test_an_answer_of_known_length(server):
    with server.wire() as wire:
        answer = wire.get("/").answer()
        assert (answer.status, answer.reason, answer.body, answer.framing) == (200, "OK", b"hello", "length")
        assert answer.field("server") == "spvn"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.field("date") or "")
        assert answer.field("connection") is None
        assert wire.get("/").answer().body == b"hello"


def test_one_body_without_a_length_gets_one(server):
    answer = server.get("/status?body=abc")
    assert answer.framing == "length"
    assert answer.body == b"abc"


def test_parts_are_chunks(server):
    with server.wire() as wire:
        answer = wire.get("/parts?n=3&part=abc").answer()
        assert (answer.framing, answer.body) == ("chunked", b"abcabcabc")
        assert wire.get("/").answer().body == b"hello"


def test_parts_of_declared_length(server):
    with server.wire() as wire:
        answer = wire.get("/parts?n=3&part=abc&length=9").answer()
        assert (answer.framing, answer.body) == ("length", b"abcabcabc")
        assert wire.get("/").answer().body == b"hello"


def test_http_1_0_has_no_chunks(server):
    with server.wire() as wire:
        answer = wire.get("/parts?n=3&part=abc", version="HTTP/1.0").answer()
        assert (answer.framing, answer.body) == ("close", b"abcabcabc")


def test_http_1_0_closes(server):
    with server.wire() as wire:
        answer = wire.get("/", version="HTTP/1.0").answer()
        assert answer.field("connection") == "close"
        wire.ended()


def test_http_1_0_keep_alive(server):
    with server.wire() as wire:
        for _ in range(2):
            answer = wire.get("/", "Connection: keep-alive", version="HTTP/1.0").answer()
            assert answer.field("connection") == "keep-alive"


def test_http_1_0_with_keep_alive_and_no_length_closes(server):
    with server.wire() as wire:
        answer = wire.get("/parts?n=2&part=ab", "Connection: keep-alive", version="HTTP/1.0").answer()
        assert (answer.framing, answer.body, answer.field("connection")) == ("close", b"abab", "close")


def test_connection_close_is_honoured(server):
    with server.wire() as wire:
        assert wire.get("/", "Connection: close").answer().field("connection") == "close"
        wire.ended()


@pytest.mark.parametrize("path", ["/", "/parts?n=3&part=abc", "/status?body=abc"])
def test_head_has_no_body(server, path):
    with server.wire() as wire:
        wire.get(path, method="HEAD").answer("HEAD")
        assert wire.get("/").answer().body == b"hello"


def test_head_keeps_the_length_of_the_app(server):
    assert server.get("/", method="HEAD").field("content-length") == "5"


@pytest.mark.parametrize("code", [204, 304])
def test_statuses_without_body(server, code):
    """RFC 9110 6.4.1: what the app sends all the same is dropped."""
    with server.wire() as wire:
        answer = wire.get(f"/status?code={code}&body=abc").answer()
        assert (answer.status, answer.field("transfer-encoding")) == (code, None)
        if code == 204:
            assert answer.field("content-length") is None
        assert wire.get("/").answer().body == b"hello"


def test_304_keeps_the_length_of_the_app(server):
    assert server.get("/status?code=304&length=77").field("content-length") == "77"


def test_an_unknown_status(server):
    assert server.get("/status?code=299&body=x").status == 299


def test_less_body_than_declared_in_one_message(server):
    """The mistake is known before anything left: an honest 500. Before 3.12, where a call runs
    on by itself, the head may have left."""
    with contextlib.suppress(Cut) if sys.version_info < (3, 12) else contextlib.nullcontext():
        answer = server.get("/status?length=10&body=abc")
        assert (answer.status, answer.text) == (500, "Internal Server Error")


def test_less_body_than_declared_in_parts(server):
    with server.wire() as wire, pytest.raises(Cut):
        wire.get("/parts?n=2&part=abc&length=100").answer()


def test_more_body_than_declared(server):
    """The client gets what was promised, and no more."""
    with server.wire() as wire:
        answer = wire.get("/parts?n=5&part=abc&length=6").answer()
        assert answer.body == b"abcabc"
        with contextlib.suppress(Cut):
            wire.ended()


def test_what_was_sent_before_a_crash_is_not_kept_back(server):
    with server.wire() as wire:
        wire.get("/fail?where=middle&pause=0")
        assert wire.head()[1] == 200
        assert wire.chunk() == b"half"
        with pytest.raises(Cut):
            wire.line()


def test_an_exception_before_the_start(server, name):
    with server.wire() as wire:
        answer = wire.get(f"/fail?where=before&key={name}").answer()
        assert (answer.status, answer.text) == (500, "Internal Server Error")
        assert wire.get("/").answer().status == 200
    server.err.wait(f"where=before&key={name}")
    server.err.wait("LookupError: as asked")


@pytest.mark.parametrize("length", ["", "&length"])
def test_an_exception_in_the_body_cuts_the_connection(server, name, length):
    with server.wire() as wire, pytest.raises(Cut):
        wire.get(f"/fail?where=middle&key={name}{length}").answer()
    server.err.wait(f"where=middle&key={name}")


def test_an_exception_behind_the_start(server):
    """Whether the head has left by then is the server's business; a complete answer it must not be."""
    with server.wire() as wire:
        try:
            assert wire.get("/fail?where=after").answer().status == 500
        except Cut:
            pass


def test_no_answer_at_all(server, name):
    assert server.get(f"/nothing?where=before&key={name}").status == 500
    assert "without completing" in server.err.wait(f"/nothing?where=before&key={name}")


def test_half_an_answer(server, name):
    with server.wire() as wire, pytest.raises(Cut):
        wire.get(f"/nothing?where=after&key={name}").answer()
    server.err.wait(f"/nothing?where=after&key={name}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"x-evil", b"a\r\nset-cookie: b=c"),
        (b"x-evil", b"a\nb"),
        (b"x-evil", b"a\rb"),
        (b"x-evil", b"a\0b"),
        (b"x evil", b"a"),
        (b"x-evil:", b"a"),
        (b"", b"a"),
        (b"x\r\ny", b"a"),
    ],
)
def test_fields_that_must_not_get_out(server, field, value):
    with server.wire() as wire:
        answer = wire.get(f"/field?name={field.hex()}&value={value.hex()}").answer()
        assert answer.status == 500
        assert not any("evil" in key or "cookie" in key for key, _ in answer.fields)
        assert wire.get("/").answer().body == b"hello"


@pytest.mark.parametrize("value", [b"caf\xe9", "caf\u00e9".encode(), b"tab\there", b""])
def test_field_values_of_any_visible_bytes(server, value):
    answer = server.get(f"/field?name={b'x-fine'.hex()}&value={value.hex()}")
    assert (answer.field("x-fine") or "").encode("latin-1") == value


def test_the_apps_date_and_server_win(server):
    answer = server.get(f"/field?name={b'Server'.hex()}&value={b'mine'.hex()}")
    assert answer.field("server") == "mine"


def test_trailers_for_who_asked(server):
    with server.wire() as wire:
        answer = wire.get("/trailers", "TE: trailers").answer()
        assert (answer.body, answer.trailers) == (b"body", [("x-sum", "42")])
        answer = wire.get("/trailers").answer()
        assert (answer.body, answer.trailers) == (b"body", [])


def test_early_hints(server):
    with server.wire() as wire:
        wire.get("/hints")
        hint = wire.answer()
        assert (hint.status, hint.field("link")) == (103, "</a.css>; rel=preload")
        assert wire.answer().body == b"hinted"


@pytest.mark.parametrize(
    ("what", "said"),
    [("type", "http.response.start"), ("body-first", "http.response.start"), ("text", "bytes"), ("status", "int")],
)
def test_wrong_messages_raise_and_say_what_was_expected(server, what, said):
    answer = server.get(f"/mistake?what={what}")
    assert answer.status == 200
    assert said in answer.text


def test_a_second_answer_raises(server, name):
    with server.wire() as wire:
        assert wire.get(f"/twice?key={name}").answer().body == b"once"
        assert wire.get("/").answer().body == b"hello"
    server.noted(name, "RuntimeError")


def test_the_head_is_not_kept_back(server, name):
    """A head followed by an empty part leaves at once; server-sent events begin like that."""
    with server.wire() as wire:
        wire.get(f"/head?key={name}")
        assert wire.head()[1] == 200
        assert wire.quiet()
        server.say(name, "go on")
        assert wire.chunks() == b"body"


def test_events_leave_one_by_one(server, name):
    with server.wire() as wire:
        wire.get(f"/events?key={name}")
        server.say(name, "send 0")
        assert wire.head()[1] == 200
        for number in range(3):
            assert wire.chunk() == b"data: %d\n\n" % number
            assert wire.quiet(0.05) or number == 2
            server.say(name, f"send {number + 1}")
        assert wire.chunk() == b""


@pytest.mark.parametrize("size", [16_000, 65_536, LARGE])
def test_large_bodies_in_one_message(server, size):
    with server.wire() as wire:
        body = bytes(range(256)) * (size // 256)
        wire.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert wire.answer().body == body
        assert wire.get("/").answer().body == b"hello"


def test_a_call_may_go_on_behind_its_answer(server, name):
    """A background task does not keep the connection busy."""
    with server.wire() as wire:
        assert wire.get(f"/background?key={name}").answer().body == b"accepted"
        assert wire.get("/").answer().body == b"hello"
    server.say(name, "go on")
    server.noted(name, "done")
