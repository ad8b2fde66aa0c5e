from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from spvn import StartupFailed
from spvn.lifespan import Lifespan


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "spvn.error")
    return caplog


def said(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().splitlines()[0] for record in log.records if record.name == "spvn.error"]


async def whole(app: Any, mode: str = "auto") -> Lifespan:
    lifespan = Lifespan(app, mode)
    await lifespan.startup()
    await lifespan.shutdown()
    return lifespan


async def polite(scope: Any, receive: Any, send: Any) -> None:
    assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    assert await receive() == {"type": "lifespan.startup"}
    scope["state"]["db"] = 1
    await send({"type": "lifespan.startup.complete"})
    assert await receive() == {"type": "lifespan.shutdown"}
    await send({"type": "lifespan.shutdown.complete"})


async def without(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


def test_whole(log: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(whole(polite)).state == {"db": 1}
    assert said(log) == [
        "Waiting for application startup.",
        "Application startup complete.",
        "Waiting for application shutdown.",
        "Application shutdown complete.",
    ]


def test_auto_goes_on_without_it(log: pytest.LogCaptureFixture) -> None:
    asyncio.run(whole(without))
    assert said(log) == [
        "Waiting for application startup.",
        "ASGI 'lifespan' protocol appears unsupported.",
        "What the app said to its lifespan scope:",
        "Application startup complete.",
    ]


def test_on_fails_without_it(log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartupFailed, match="raised an exception") as caught:
        asyncio.run(whole(without, "on"))
    assert caught.value.exit_code == 3
    assert said(log)[1:] == ["Exception in 'lifespan' protocol", "Application startup failed. Exiting."]
    assert log.records[1].exc_info is not None


def test_off_never_calls_the_app(log: pytest.LogCaptureFixture) -> None:
    asyncio.run(whole(None, "off"))
    assert said(log) == []


def test_an_app_that_returns_at_once(log: pytest.LogCaptureFixture) -> None:
    asyncio.run(whole(returns, "on"))
    assert said(log)[1] == "Application startup complete."


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_failed(log: pytest.LogCaptureFixture, mode: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(StartupFailed, match="^no database$"):
        asyncio.run(whole(app, mode))
    assert said(log)[1:] == ["no database", "Application startup failed. Exiting."]


def test_startup_failed_without_a_message_and_then_an_exception(log: pytest.LogCaptureFixture) -> None:
    # Starlette sends the traceback as the message, and raises again.
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed"})
        raise LookupError

    with pytest.raises(StartupFailed):
        asyncio.run(whole(app))
    assert said(log)[1:] == ["Application startup failed. Exiting."]


def test_shutdown_failed(log: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await receive(), await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "stuck"})

    asyncio.run(whole(app))
    assert said(log)[-2:] == ["stuck", "Application shutdown failed. Exiting."]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_exception_at_shutdown_is_logged(log: pytest.LogCaptureFixture, mode: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await receive(), await receive()
        raise LookupError

    asyncio.run(whole(app, mode))
    assert "Exception in 'lifespan' protocol" in said(log)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["lifespan.shutdown.complete"], "the app sent 'lifespan.shutdown.complete' out of turn"),
        (["lifespan.startup.complete", "lifespan.startup.complete"], "'lifespan.startup.complete' out of turn"),
        (["http.response.start"], "the app sent 'http.response.start' to its lifespan; expected lifespan.startup"),
    ],
)
def test_wrong_messages_raise_in_the_app(kinds: list[str], message: str) -> None:
    raised: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            for kind in kinds:
                await send({"type": kind})
        except RuntimeError as exc:
            raised.append(str(exc))

    asyncio.run(whole(app))
    assert message in raised[0]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_waiting_for_it_can_be_given_up(phase: str) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            if phase == "shutdown":
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await receive()
            await asyncio.Event().wait()
        finally:
            ended.append(phase)

    async def main() -> None:
        lifespan = Lifespan(app)
        if phase == "shutdown":
            await lifespan.startup()
        waiting = asyncio.ensure_future(getattr(lifespan, phase)())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert ended == [phase]

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_app_that_exits_does_not_start(log: pytest.LogCaptureFixture, mode: str) -> None:
    async def exits(scope: Any, receive: Any, send: Any) -> None:
        raise SystemExit(7)

    with pytest.raises(StartupFailed, match="the app's lifespan raised SystemExit"):
        asyncio.run(whole(exits, mode))
    assert said(log)[-1] == "Application startup failed. Exiting."
