"""The app's lifespan (ASGI lifespan protocol), with uvicorn's semantics and messages.

`auto` goes on without the protocol when the app raises at its scope, as the specification
asks; `on` treats that as a failed start-up; `off` never calls the app.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

from spvn._types import ASGIApp, Message
from spvn.errors import StartupFailed

logger = logging.getLogger("spvn.error")

_TRANSITION = "the app sent {!r} out of turn: start-up is answered once, then shutdown once"


class Lifespan:
    """One run of the app's lifespan. Made and used inside a running loop.

    `state` is the dict that the app fills at start-up; every call gets a shallow copy of it.
    """

    def __init__(self, app: ASGIApp, mode: str = "auto", asgi_version: str = "3.0") -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._version = asgi_version
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._raised = self._abandoned = False
        self._failed: str | None = None

    async def startup(self) -> None:
        """Run the app's start-up. Raises StartupFailed with the app's own message."""
        if self._mode == "off":
            return
        logger.info("Waiting for application startup.")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="spvn-lifespan")
        self._inbox.put_nowait({"type": "lifespan.startup"})
        try:
            await self._started.wait()
        except asyncio.CancelledError:
            self.abandon()
            raise
        if self._failed is not None or (self._raised and self._mode == "on"):
            logger.error("Application startup failed. Exiting.")
            raise StartupFailed(self._failed or "the app's start-up raised an exception")
        logger.info("Application startup complete.")

    async def shutdown(self) -> None:
        """Run the app's shutdown; a failure is logged."""
        if self._task is None or self._raised:
            return
        logger.info("Waiting for application shutdown.")
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        try:
            await self._stopped.wait()
        except asyncio.CancelledError:
            self.abandon()
            raise
        if self._failed is not None or (self._raised and self._mode == "on"):
            logger.error("Application shutdown failed. Exiting.")
        else:
            logger.info("Application shutdown complete.")

    def abandon(self) -> None:
        """Cancel the app's lifespan, so that its `finally` blocks run, and wait for nothing."""
        if self._task is not None and not self._abandoned:
            self._abandoned = True  # a second time would end those blocks
            self._task.cancel()

    async def abandoned(self, seconds: float) -> None:
        """Wait for those blocks, but not for longer than this."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": self._version, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._inbox.get, self._send)
        except asyncio.CancelledError:
            self._raised = True
            raise
        except (SystemExit, KeyboardInterrupt) as exc:
            self._raised = True
            logger.error("Exception in 'lifespan' protocol\n", exc_info=exc)
            if self._failed is None:
                self._failed = f"the app's lifespan raised {type(exc).__name__}"
        except BaseException as exc:
            self._raised = True
            if self._failed is None:
                self._explain(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self._started.set()
            self._stopped.set()

    def _explain(self, exc: BaseException) -> None:
        if self._mode == "on" or self._started.is_set():
            logger.error("Exception in 'lifespan' protocol\n", exc_info=exc)
        else:
            logger.info("ASGI 'lifespan' protocol appears unsupported.")
            logger.debug("What the app said to its lifespan scope:\n%s", _text(exc))

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed"):
            if self._started.is_set():
                raise RuntimeError(_TRANSITION.format(kind))
            done = self._started
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            if not self._started.is_set() or self._stopped.is_set():
                raise RuntimeError(_TRANSITION.format(kind))
            done = self._stopped
        else:
            raise RuntimeError(
                f"the app sent {kind!r} to its lifespan; expected lifespan.startup.complete, lifespan.startup.failed, "
                "lifespan.shutdown.complete or lifespan.shutdown.failed"
            )
        if kind.endswith(".failed"):
            self._failed = message.get("message") or ""
            if self._failed:
                logger.error(self._failed)
        done.set()


def _text(exc: BaseException) -> str:
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__)).rstrip()
