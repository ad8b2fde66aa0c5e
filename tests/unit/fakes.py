"""The core and the link, played by Python: for tests of everything around them."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Callable


class FakeFunctions:
    """spvn._core's functions for one server. `log` has what was called, in order."""

    def __init__(self, *, port: int = 49152, start_error: str | None = None) -> None:
        self.log: list[str] = []
        self.config: dict[str, Any] = {}
        self.drain_options: dict[str, Any] = {}
        self.arrived = 0
        self.hold_drain = False
        self.on_drain: Callable[[], None] = lambda: None
        self.links: list[FakeLink] = []
        self._port = port
        self._start_error = start_error
        self._events: list[dict[str, Any]] = []
        self._write = -1

    def Version(self) -> str:
        return '{"version": "0.2.0"}'

    def Start(self, config: str) -> str:
        self.log.append("start")
        self.config = json.loads(config)
        if self._start_error is not None:
            raise RuntimeError(self._start_error)
        read, self._write = os.pipe()
        os.set_blocking(read, False)
        host, port = self.config["host"], self.config["port"] or self._port
        address = {"kind": "tcp", "host": host, "port": port, "url": f"http://{host}:{port}"}
        return json.dumps({"server": 1, "addresses": [address], "events_fd": read})

    def AddWorker(self, server: int, options: str) -> str:
        self.log.append("add-worker")
        bell, self._rings = os.pipe()
        return json.dumps({"worker": 1, "memfd": self._rings, "bell": bell, "loop_bells": [os.dup(bell)]})

    def ring(self) -> None:
        """Wake the worker."""
        os.write(self._rings, b"\1")

    def RemoveWorker(self, server: int, worker: int, options: str) -> str:
        self.log.append("remove-worker")
        return "{}"

    def WorkerGone(self, server: int, worker: int, options: str) -> str:
        self.log.append("worker-gone")
        return "{}"

    def Drain(self, server: int, options: str) -> str:
        self.log.append("drain")
        self.drain_options = json.loads(options)
        self.on_drain()
        if not self.hold_drain:
            self.emit("drained")
        return "{}"

    def Stop(self, server: int) -> str:
        self.log.append("stop")
        self.emit("stopped")
        return "{}"

    def Stats(self, server: int) -> str:
        ends = {"answered": self.arrived, "refused": 0, "failed": 0, "left": 0, "in_flight": 0}
        return json.dumps({"calls": {"arrived": self.arrived, **ends}})

    def Events(self, server: int) -> str:
        events, self._events = self._events, []
        if any(event["event"] == "stopped" for event in events):
            os.close(self._write)
        return json.dumps({"events": events})

    def emit(self, name: str, **more: Any) -> None:
        self._events.append({"event": name, **more})
        os.write(self._write, b"\1\0\0\0\0\0\0\0")


class FakeLink:
    """spvn._asgi.Link without a ring: says what it was told, and can hold calls."""

    functions: FakeFunctions

    def __init__(
        self,
        memfd: int,
        bell: int,
        loop_bells: Any,
        app: Any,
        loop: asyncio.AbstractEventLoop,
        *,
        root_path: str = "",
        state: dict[str, Any] | None = None,
        on_error: Callable[[str, BaseException | None, str], None],
        on_control: Callable[[str], None],
        on_timer: Callable[[int, int, float, bytes, bytes], None] | None = None,
        alone: bool = False,
        address: int = 0,
    ) -> None:
        self.app, self.root_path, self.state = app, root_path, state
        self.on_error, self.on_control = on_error, on_control
        self.calls, self.bell = 0, bell
        self.log = self.functions.log
        self.functions.links.append(self)

    def drain(self) -> None:
        self.log.append("link.drain")

    def ready(self) -> None:
        self.log.append("link.ready")
        self.functions.emit("ready", worker=1)

    def start_failed(self, message: str) -> None:
        self.log.append(f"link.start-failed {message}")
        self.functions.emit("start-failed", worker=1, message=message)

    def stopped(self) -> None:
        self.log.append("link.stopped")

    def raised(self, exception: BaseException) -> bool:
        return False

    def cancel(self) -> int:
        self.log.append("link.cancel")
        cancelled, self.calls = self.calls, 0
        return cancelled

    def detach(self) -> None:
        self.log.append("link.detach")
