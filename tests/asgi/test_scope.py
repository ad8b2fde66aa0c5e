"""The scope, as in the ASGI specification (HTTP & WebSocket 2.5)."""

from __future__ import annotations

from typing import Any

import pytest

from .core_side import HTTPS, WS, WSS
from .harness import Runner, Worker, hello


def scopes_of(run: Runner, *calls: dict[str, Any], **link: Any) -> list[dict[str, Any]]:
    """The scopes that an app gets for these calls."""
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await hello(scope, receive, send)

    async def scenario(worker: Worker) -> None:
        for call in calls:
            await worker.done(worker.core.call(**call))

    worker = run(app, scenario, link=link)
    assert worker.errors == []
    return scopes


def test_http(run: Runner) -> None:
    fields = [(b"host", b"example.org"), (b"accept", b"a"), (b"accept", b"b"), (b"x-empty", b"")]
    (scope,) = scopes_of(run, {"path": b"/a/b", "query": b"x=1&y=%20", "fields": fields})
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/a/b",
        "raw_path": b"/a/b",
        "query_string": b"x=1&y=%20",
        "headers": fields,
        "extensions": {"http.response.trailers": {}, "http.response.early_hint": {}},
    }
    assert all(type(name) is type(value) is bytes for name, value in scope["headers"])


@pytest.mark.parametrize(
    ("call", "key", "value"),
    [
        ({"version": 10}, "http_version", "1.0"),
        ({"version": 20}, "http_version", "2"),
        ({"scheme": HTTPS}, "scheme", "https"),
        ({"method": b"POST"}, "method", "POST"),
        ({"method": b"PROPFIND"}, "method", "PROPFIND"),
        ({"client": None}, "client", None),
        ({"client": ("::1", 40000)}, "client", ("::1", 40000)),
        ({"client": ("203.0.113.9", -1)}, "client", ("203.0.113.9", 0)),
        ({"server": None}, "server", None),
        ({"server": ("/run/app.sock", -1)}, "server", ("/run/app.sock", None)),
        ({"fields": []}, "headers", []),
        ({"path": "/ä €".encode(), "raw_path": b"/%C3%A4%20%E2%82%AC"}, "path", "/ä €"),
        ({"path": "/ä €".encode(), "raw_path": b"/%C3%A4%20%E2%82%AC"}, "raw_path", b"/%C3%A4%20%E2%82%AC"),
        ({"path": b"/\xff", "raw_path": b"/%FF"}, "path", "/\ufffd"),
        ({"path": b"*"}, "path", "*"),
    ],
)
def test_http_value(run: Runner, call: dict[str, Any], key: str, value: Any) -> None:
    (scope,) = scopes_of(run, call)
    assert scope[key] == value


def test_values_do_not_stick(run: Runner) -> None:
    """What one call has must not show in the next, as scopes are copies of a template."""
    odd = {"method": b"PUT", "query": b"q", "scheme": HTTPS, "version": 10, "client": None, "server": None}
    plain, _, again = scopes_of(run, {}, odd, {})
    assert plain == again


def test_scopes_are_fresh(run: Runner) -> None:
    first, second = scopes_of(run, {}, {}, state={"db": []})
    for key in ("asgi", "extensions", "headers", "state"):
        assert first[key] == second[key]
        assert first[key] is not second[key]
    first["state"]["user"] = 1
    assert "user" not in second["state"]
    assert first["state"]["db"] is second["state"]["db"]  # a shallow copy


def test_no_state_without_lifespan(run: Runner) -> None:
    (scope,) = scopes_of(run, {}, state=None)
    assert "state" not in scope


def test_root_path(run: Runner) -> None:
    (scope,) = scopes_of(run, {"path": b"/x y", "raw_path": b"/x%20y"}, root_path="/api")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/x y", b"/api/x%20y")


def test_pathsend_is_offered_on_demand(run: Runner) -> None:
    (scope,) = scopes_of(run, {}, pathsend=True)
    assert scope["extensions"]["http.response.pathsend"] == {}


def test_many_fields_and_clients(run: Runner) -> None:
    """More than the caches have slots, with colliding and repeated ones."""
    calls = [
        {
            "fields": [(b"x-%d" % (i % 7), b"v" * (i % 300)), (b"cookie", b"c=%d" % i), (b"x-%d" % i, b"%d" % i)],
            "client": (f"10.0.{i // 250}.{i % 250}", 1024 + i),
        }
        for i in range(1500)
    ]
    scopes = scopes_of(run, *calls)
    assert [scope["headers"] for scope in scopes] == [call["fields"] for call in calls]
    assert [scope["client"] for scope in scopes] == [call["client"] for call in calls]


def test_websocket(run: Runner) -> None:
    fields = [(b"sec-websocket-protocol", b"chat, superchat"), (b"sec-websocket-protocol", b"\tv2 ,,")]
    call = {"websocket": True, "scheme": WS, "path": b"/ws", "query": b"a", "fields": fields}
    (scope,) = scopes_of(run, call, state={"a": 1})
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "ws",
        "root_path": "",
        "path": "/ws",
        "raw_path": b"/ws",
        "query_string": b"a",
        "headers": fields,
        "subprotocols": ["chat", "superchat", "v2"],
        "state": {"a": 1},
        "extensions": {"websocket.http.response": {}},
    }


def test_websocket_over_tls(run: Runner) -> None:
    (scope,) = scopes_of(run, {"websocket": True, "scheme": WSS, "version": 20})
    assert (scope["scheme"], scope["http_version"], scope["subprotocols"]) == ("wss", "2", [])
