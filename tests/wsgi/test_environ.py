"""What a WSGI app is told of its request, with wsgiref.validate in between."""

from __future__ import annotations

import ast
import os
from typing import Any

import pytest
from support.wire import Wire

from .live import OK, TEXT, ask, connect, serving


def tell(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers with what of the environ can be written down."""
    plain = {key: value for key, value in environ.items() if isinstance(value, (str, bool, tuple))}
    start_response(OK, TEXT)
    return [repr(plain).encode()]


def told(request: bytes, **options: Any) -> dict[str, Any]:
    answer = ask(tell, request, **options)
    assert answer.status == 200
    value: dict[str, Any] = ast.literal_eval(answer.text)
    return value


def test_everything_that_pep_3333_wants() -> None:
    environ = told(
        b"GET /a%20b/%C3%A9?x=%C3%A9&y HTTP/1.1\r\nHost: example.org\r\nX-One: 1\r\nContent-Type: a/b\r\n\r\n"
    )
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xc3\xa9",
        "QUERY_STRING": "x=%C3%A9&y",
        "REQUEST_URI": "/a%20b/%C3%A9?x=%C3%A9&y",
        "RAW_URI": "/a%20b/%C3%A9?x=%C3%A9&y",
        "CONTENT_TYPE": "a/b",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "example.org",
        "HTTP_X_ONE": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["SERVER_PORT"].isdigit() and environ["REMOTE_PORT"].isdigit()
    assert environ["SERVER_SOFTWARE"].startswith("spvn/")
    assert "CONTENT_LENGTH" not in environ and "HTTP_CONTENT_TYPE" not in environ


@pytest.mark.parametrize(
    ("fields", "key", "want"),
    [
        (b"X-A: 1\r\nx-a: 2\r\n", "HTTP_X_A", "1,2"),
        (b"Accept: a\r\nAccept: b\r\n", "HTTP_ACCEPT", "a,b"),
        (b"Cookie: a=1\r\nCookie: b=2\r\n", "HTTP_COOKIE", "a=1; b=2"),
        (b"X-Latin: caf\xe9\r\n", "HTTP_X_LATIN", "caf\xe9"),
        (b"X-Empty:\r\n", "HTTP_X_EMPTY", ""),
        (b"X-A.b~c: 1\r\n", "HTTP_X_A.B~C", "1"),
        (b"X_User: root\r\n", "HTTP_X_USER", None),
        (b"X_User: root\r\nX-User: me\r\n", "HTTP_X_USER", "me"),
        (b"X-Forwarded-Proto: https\r\n", "wsgi.url_scheme", "https"),
        (b"Content-Length: 0\r\n", "CONTENT_LENGTH", "0"),
    ],
)
def test_fields(fields: bytes, key: str, want: str | None) -> None:
    assert told(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n").get(key) == want


@pytest.mark.parametrize(
    ("line", "path", "uri", "method", "protocol"),
    [
        (b"GET / HTTP/1.1", "/", "/", "GET", "HTTP/1.1"),
        (b"GET /x HTTP/1.0", "/x", "/x", "GET", "HTTP/1.0"),
        (b"GET http://other/x?q HTTP/1.1", "/x", "/x?q", "GET", "HTTP/1.1"),
        (b"OPTIONS * HTTP/1.1", "", "*", "OPTIONS", "HTTP/1.1"),
        (b"GET /%2F%00 HTTP/1.1", "//\0", "/%2F%00", "GET", "HTTP/1.1"),
        (b"DELETE /x HTTP/1.1", "/x", "/x", "DELETE", "HTTP/1.1"),
    ],
)
def test_request_lines(line: bytes, path: str, uri: str, method: str, protocol: str) -> None:
    environ = told(line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
    got = [environ[key] for key in ("PATH_INFO", "REQUEST_URI", "REQUEST_METHOD", "SERVER_PROTOCOL")]
    assert got == [path, uri, method, protocol]


def test_root_path_is_the_script_name() -> None:
    environ = told(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", root_path="/mounted/\xe9/")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mounted/\xc3\xa9", "/x")


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        (b"example.org", "example.org", "80"),
        (b"example.org:81", "example.org", "81"),
        (b"[::1]", "[::1]", "80"),
        (b"[::1]:82", "[::1]", "82"),
        (b"", "localhost", "80"),
    ],
)
def test_behind_a_unix_socket(tmp_path: Any, host: bytes, name: str, port: str) -> None:
    path = os.path.join(tmp_path, "socket")
    with serving(tell, uds=path), Wire(path) as wire:
        environ = ast.literal_eval(wire.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").answer().text)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == (name, port, "")


def test_environs_are_apart() -> None:
    """What one call writes into its environ is not in the next one's."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen = environ.get("spvn.test", "nothing")
        environ["spvn.test"] = environ["SCRIPT_NAME"] = "/written"
        start_response(OK, TEXT)
        return [seen.encode() + environ["wsgi.url_scheme"].encode()]

    with serving(app, valid=False) as server, connect(server) as wire:
        assert [wire.get("/").answer().text for _ in range(3)] == ["nothinghttp"] * 3
