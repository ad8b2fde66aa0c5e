from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

from spvn import ConfigError
from spvn.loops import loop_factory, run


@pytest.mark.parametrize("name", ["auto", "asyncio", "none", "asyncio:new_event_loop"])
def test_factories(name: str) -> None:
    loop = loop_factory(name)()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()


def test_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("uvloop")
    fake.new_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", fake)
    assert loop_factory("uvloop") is asyncio.new_event_loop
    assert loop_factory("auto") is asyncio.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory("auto") is asyncio.SelectorEventLoop
    with pytest.raises(ConfigError, match="--loop: uvloop is not installed"):
        loop_factory("uvloop")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trio", "--loop: 'trio' is not auto, asyncio, uvloop, none or MODULE:FACTORY"),
        ("asyncio:nothing", "--loop: module 'asyncio' .* has no attribute 'nothing'"),
        ("nothing_there:f", "--loop: there is no module 'nothing_there'"),
        ("sys:argv", "--loop: sys:argv is a list, which cannot be called"),
    ],
)
def test_mistakes(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loop_factory(name)


def test_run_cleans_up() -> None:
    ended: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    kept: list[Any] = []

    async def main() -> int:
        kept.append(asyncio.ensure_future(forgotten()))
        kept.append(generator())
        await kept[1].__anext__()
        await asyncio.sleep(0)
        return 7

    assert run(main, asyncio.new_event_loop) == 7
    assert ended == ["task", "generator"]


def test_run_reports_what_breaks_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError("late") from None

    kept = []

    async def main() -> None:
        kept.append(asyncio.ensure_future(stubborn()))
        await asyncio.sleep(0)

    run(main, asyncio.new_event_loop)
    assert "unhandled exception while the server stopped" in caplog.text
