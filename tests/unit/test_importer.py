from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spvn.errors import AppError, AppImportError
from spvn.importer import interface_of, load_app

MODULE = """
class Deep:
    class inner:
        @staticmethod
        async def app(scope, receive, send): ...

settings = {"a": 1}

async def application(scope, receive, send): ...

def create_app():
    return application

def create_with(name):
    return application

def create_nothing():
    return None

def create_broken():
    raise LookupError("no database")

class Lazy:
    @property
    def app(self):
        raise LookupError("not yet")

lazy = Lazy()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "web.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "needs.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "wrong.py").write_text("x = = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_found() -> None:
    assert load_app("shop:application").__name__ == "application"
    assert load_app("shop:Deep.inner.app").__name__ == "app"
    assert load_app("pack.web:app").__name__ == "app"
    assert load_app(folder) is folder  # an app is taken as it is


def test_factories() -> None:
    warnings: list[str] = []
    assert load_app("shop:create_app", factory=True, warn=warnings.append).__name__ == "application"
    assert warnings == []
    assert load_app("shop:create_app", warn=warnings.append).__name__ == "application"
    assert warnings == [
        "ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly."
    ]


@pytest.mark.parametrize(
    ("text", "factory", "parts"),
    [
        ("shop", False, ['"shop" names no attribute; the form is MODULE:ATTRIBUTE; did you mean shop:application?']),
        ("shop:", False, ["did you mean shop:application?"]),
        (":app", False, ['":app" names no module']),
        ("shop.py:app", False, ['"shop.py:app" is a file; name the module instead: spvn shop:app']),
        ("src/shop.py", False, ["spvn shop:app --app-dir src"]),
        ("shp:app", False, ["there is no module 'shp'", "Did you mean shop?"]),
        ("pack.wob:app", False, ["there is no module 'pack.wob'", "Did you mean pack.web?"]),
        ("nix.da:app", False, ["there is no module 'nix.da' (nor 'nix')"]),
        ("shop:aplication", False, ["has no attribute 'aplication'.", "Did you mean 'application'?"]),
        ("shop:qqq", False, ["shop.py) has no attribute 'qqq'. Looks like an app there: application."]),
        ("shop:Deep.outer", False, ["shop:Deep has no attribute 'outer'.", "It has: inner."]),
        ("shop:settings", False, ["shop:settings is a dict, which cannot be called; an ASGI app is a callable"]),
        ("shop:settings", True, ["shop:settings is a dict"]),
        ("shop:create_with", True, ["--factory: shop:create_with needs arguments (name)"]),
        ("shop:create_nothing", True, ["shop:create_nothing() returned a NoneType, which cannot be called"]),
        ("shop:create_nothing", False, ["is a function without parameters that returned a NoneType"]),
    ],
)
def test_sentences(text: str, factory: bool, parts: list[str]) -> None:
    with pytest.raises(AppError) as caught:
        load_app(text, factory=factory)
    assert not isinstance(caught.value, AppImportError)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message", "last"),
    [
        ("needs:app", "needs the module 'not_installed_anywhere'", "ModuleNotFoundError"),
        ("wrong:app", "wrong cannot be imported: SyntaxError", "SyntaxError"),
        ("shop:create_broken", "the factory shop:create_broken raised LookupError", "LookupError: no database"),
        ("shop:lazy.app", "shop:lazy.app raised LookupError", "LookupError: not yet"),
    ],
)
def test_errors_of_the_users_code(text: str, message: str, last: str) -> None:
    with pytest.raises(AppImportError) as caught:
        load_app(text)
    assert message in str(caught.value)
    assert caught.value.report.splitlines()[-1].startswith(last)
    assert "importer.py" not in caught.value.report


async def asgi3(scope: Any, receive: Any, send: Any) -> None: ...


def asgi3_behind_a_decorator(*args: Any, **kwargs: Any) -> Any: ...


def asgi2(scope: Any) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


class Asgi3Object:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Asgi3Class:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...
    def __await__(self) -> Any: ...


class Asgi2Class:
    def __init__(self, scope: Any) -> None: ...
    async def __call__(self, receive: Any, send: Any) -> None: ...


class Flask:
    wsgi_app = None

    def __call__(self, *args: Any) -> Any: ...


@pytest.mark.parametrize(
    ("app", "want"),
    [
        (asgi3, "asgi3"),
        (asgi3_behind_a_decorator, "asgi3"),
        (Asgi3Object(), "asgi3"),
        (Asgi3Class, "asgi3"),
        (asgi2, "asgi2"),
        (Asgi2Class, "asgi2"),
        (wsgi, "wsgi"),
        (Flask(), "wsgi"),
    ],
)
def test_interface(app: Any, want: str) -> None:
    assert interface_of(app) == want
