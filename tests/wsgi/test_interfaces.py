"""--interface: each kind of app, found by itself and named."""

from __future__ import annotations

import functools
from typing import Any

import httpx
import pytest

from spvn import testing
from spvn.importer import interface_of

from .live import OK, TEXT


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["asgi"]["version"].encode()})


def asgi2(scope: Any) -> Any:
    return functools.partial(asgi3, scope)


class Asgi2:
    started = stopped = False

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        if self.scope["type"] == "http":
            await asgi3(self.scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        Asgi2.started = True
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        Asgi2.stopped = True
        await send({"type": "lifespan.shutdown.complete"})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response(OK, TEXT)
    return [b"wsgi"]


class WsgiClass:
    """PEP 3333's own example of a class that is an app."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        self.start = start_response

    def __iter__(self) -> Any:
        self.start(OK, TEXT)
        yield b"wsgi"


class WsgiObject:
    def __call__(self, env: Any, start: Any) -> list[bytes]:
        return wsgi(env, start)


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (asgi3, "asgi3"),
        (asgi2, "asgi2"),
        (Asgi2, "asgi2"),
        (wsgi, "wsgi"),
        (WsgiClass, "wsgi"),
        (WsgiObject(), "wsgi"),
        (functools.partial(wsgi), "wsgi"),
        (WsgiObject().__call__, "wsgi"),
    ],
    ids=str,
)
@pytest.mark.parametrize("named", [False, True])
def test_each_kind_is_served(app: Any, kind: str, named: bool) -> None:
    with testing.serve(app, interface=kind if named else "auto") as server, httpx.Client() as client:
        answer = client.get(server.url)
    assert answer.status_code == 200
    assert answer.text == ("wsgi" if kind == "wsgi" else "3.0")


def test_lifespan_of_an_asgi2_app() -> None:
    with testing.serve(Asgi2):
        assert Asgi2.started
    assert Asgi2.stopped


def pair(receive: Any, send: Any) -> Any: ...


def scoped(scope: Any, extra: Any) -> Any: ...


class AsyncWithAnything:
    async def __call__(self, *args: Any) -> None: ...


class Awaitable:
    def __init__(self, scope: Any, receive: Any) -> None: ...
    def __await__(self) -> Any: ...


def named_as_wsgi(environ: Any, start_response: Any, exc_info: Any = None) -> Any: ...


@pytest.mark.parametrize(
    ("app", "want"),
    [
        (pair, "asgi3"),
        (scoped, "asgi3"),
        (AsyncWithAnything(), "asgi3"),
        (Awaitable, "asgi3"),
        (functools.partial(asgi3), "asgi3"),
        (named_as_wsgi, "wsgi"),
    ],
)
def test_what_only_looks_like_wsgi(app: Any, want: str) -> None:
    assert interface_of(app) == want


@pytest.mark.parametrize("package", ["flask", "django.core.wsgi", "werkzeug.middleware.proxy_fix"])
def test_frameworks(package: str) -> None:
    module = pytest.importorskip(package)
    app = {
        "flask": lambda: module.Flask("x"),
        "django.core.wsgi": lambda: module.WSGIHandler,
        "werkzeug.middleware.proxy_fix": lambda: module.ProxyFix(wsgi),
    }[package]()
    if package == "django.core.wsgi":
        assert interface_of(app.__call__.__get__(object())) == "wsgi"
        return
    assert interface_of(app) == "wsgi"


def test_a_wsgi_app_that_is_called_as_asgi_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """--interface asgi3 for a WSGI app: a 500, and the mistake in the log."""
    with testing.serve(wsgi, interface="asgi3", lifespan="off") as server:
        assert httpx.get(server.url).status_code == 500
    assert "wsgi() takes 2 positional arguments" in str(caplog.records[-1].exc_info[1])  # type: ignore[index]


@pytest.mark.parametrize("value", [0, -1, "many"])
def test_threads_is_a_number_from_1_on(value: Any) -> None:
    import spvn

    with pytest.raises(spvn.ConfigError) as caught:
        spvn.Config("main:app", threads=value)
    assert str(caught.value).startswith("--threads: ")
