"""A WSGI app behind the whole server, asked over a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from support.wire import Answer, Wire

from spvn import core, testing

pytest.importorskip("spvn._asgi")
try:
    core.load()
except ImportError as exc:
    pytest.skip(str(exc), allow_module_level=True)

OK = "200 OK"
TEXT = [("Content-Type", "text/plain")]


@contextlib.contextmanager
def serving(app: Any, *, valid: bool = True, **options: Any) -> Iterator[testing.LiveServer]:
    """The app behind wsgiref.validate, which raises where the server or the app breaks PEP 3333."""
    options.setdefault("interface", "wsgi")
    with testing.serve(validator(app) if valid else app, **options) as server:
        yield server


def connect(server: testing.LiveServer) -> Wire:
    return Wire(("127.0.0.1", server.port))


def ask(app: Any, request: bytes, *, valid: bool = True, method: str = "", **options: Any) -> Answer:
    """One request to a server of its own."""
    with serving(app, valid=valid, **options) as server, connect(server) as wire:
        return wire.send(request).answer(method or request.split(b" ", 1)[0].decode())
