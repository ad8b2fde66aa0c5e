"""The core's control plane, typed: JSON in and out of `spvn._core`, nothing else.

The library is loaded by the first call of `load()`, never by importing spvn. Every method
returns at once. Calls are few (start, drain, stop, statistics); nothing per request comes
through here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from spvn.errors import AddressError, ConfigError, SpvnError


class Address(NamedTuple):
    """Where a server listens. `kind` is "tcp" or "unix"; a unix socket has a path instead of host and port."""

    kind: str
    url: str
    host: str = ""
    port: int = 0
    path: str = ""


class Started(NamedTuple):
    """A server that listens. `events_fd` becomes readable when there are events."""

    server: int
    addresses: tuple[Address, ...]
    events_fd: int


class LinkDescriptors(NamedTuple):
    """A worker's end of its link. The descriptors belong to who has this, who closes them."""

    worker: int
    memfd: int
    bell: int
    loop_bells: tuple[int, ...]
    death: int
    address: int = 0
    """Where the core has mapped memfd, for a worker in its own process that asked for it; it has to attach there."""

    def all(self) -> list[int]:
        """Every descriptor that is there."""
        return [fd for fd in (self.memfd, self.bell, *self.loop_bells, self.death) if fd >= 0]


class Functions(Protocol):
    """The functions of `spvn._core`: ints and JSON texts in, a JSON text out."""

    def Version(self) -> str: ...
    def Start(self, config: str) -> str: ...
    def AddWorker(self, server: int, options: str) -> str: ...
    def RemoveWorker(self, server: int, worker: int, options: str) -> str: ...
    def WatchWorker(self, server: int, worker: int, pid: int) -> str: ...
    def WorkerGone(self, server: int, worker: int, options: str) -> str: ...
    def Watch(self, server: int, options: str) -> str: ...
    def Drain(self, server: int, options: str) -> str: ...
    def Stop(self, server: int) -> str: ...
    def Stats(self, server: int) -> str: ...
    def Events(self, server: int) -> str: ...


class Core:
    """The control functions with their JSON read and written."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    def version(self) -> str:
        """The core's own version."""
        return str(json.loads(self._functions.Version())["version"])

    def start(self, config: Mapping[str, Any]) -> Started:
        """Bind and listen. Raises AddressError or ConfigError."""
        try:
            answer = json.loads(self._functions.Start(json.dumps(config)))
        except RuntimeError as exc:
            raise _start_error(str(exc)) from None
        addresses = tuple(
            Address(
                str(item["kind"]),
                str(item["url"]),
                str(item.get("host") or ""),
                int(item.get("port") or 0),
                str(item.get("path") or ""),
            )
            for item in answer["addresses"]
        )
        return Started(int(answer["server"]), addresses, int(answer["events_fd"]))

    def add_worker(self, server: int, options: Mapping[str, Any]) -> LinkDescriptors:
        """Make a link for one more worker; {"shared": True} for one in this process: one mapping for both."""
        answer = json.loads(self._functions.AddWorker(server, json.dumps(options)))
        return LinkDescriptors(
            int(answer["worker"]),
            int(answer["memfd"]),
            int(answer["bell"]),
            tuple(int(fd) for fd in answer["loop_bells"]),
            int(answer.get("death", -1)),
            int(answer.get("address", 0)),
        )

    def watch_worker(self, server: int, worker: int, pid: int) -> None:
        """Say which process has this worker; when it ends the core sees to its calls: the event "worker-exited"."""
        self._functions.WatchWorker(server, worker, pid)

    def remove_worker(self, server: int, worker: int, grace: float) -> None:
        """Drain a worker: no new calls; those it has claimed may go on for `grace` seconds; then it gets a STOP record.

        The event "worker-stopped" says that its shutdown is complete.
        """
        self._functions.RemoveWorker(server, worker, json.dumps({"grace": grace}))

    def condemn_worker(self, server: int, worker: int) -> None:
        """Say that this worker is about to be killed for what its calls do: none of them is run again."""
        self._functions.RemoveWorker(server, worker, json.dumps({"kill": True}))

    def worker_gone(self, server: int, worker: int, returncode: int | None = None) -> None:
        """A worker's process ended, or its loop is closed.

        `returncode`, as subprocess has it, of a process that nobody had told to end: --quarantine hangs on it.
        """
        how: dict[str, int] = {}
        if returncode is not None:
            how = {"signal": -returncode} if returncode < 0 else {"exit": returncode}
        self._functions.WorkerGone(server, worker, json.dumps(how))

    def watch(self, server: int, options: Mapping[str, Any]) -> None:
        """Watch files (spvn.reload has the options); the event "files-changed" has the "paths"."""
        self._functions.Watch(server, json.dumps(options))

    def drain(self, server: int, grace: float, delay: float = 0.0) -> None:
        """Stop accepting and finish calls for `grace` seconds; the event "drained" says when.

        Before that health checks fail for `delay` seconds, while everything goes on.
        """
        options = {"grace": grace}
        if delay > 0:
            options["delay"] = delay
        self._functions.Drain(server, json.dumps(options))

    def stop(self, server: int) -> None:
        """Close everything now; the event "stopped" is the last."""
        self._functions.Stop(server)

    def stats(self, server: int) -> dict[str, Any]:
        """The counters."""
        answer: dict[str, Any] = json.loads(self._functions.Stats(server))
        return answer

    def events(self, server: int) -> list[dict[str, Any]]:
        """What happened since the last call."""
        answer: list[dict[str, Any]] = json.loads(self._functions.Events(server)).get("events") or []
        return answer


def load() -> Core:
    """The core of this process. Raises ImportError that says what to do."""
    from spvn import _core

    try:
        _core.Version  # noqa: B018  the first attribute loads the library
    except ImportError as exc:
        if _is_musl():
            raise ImportError(
                "spvn's core is a Go shared library, and musl cannot load such libraries: use an image with glibc, "
                "such as python:3-slim in place of python:3-alpine"
            ) from exc
        raise
    return Core(_core)


def _is_musl() -> bool:
    import platform  # neither is needed where the library can be loaded
    import sysconfig

    host = str(sysconfig.get_config_var("HOST_GNU_TYPE") or "")
    return "musl" in host or platform.libc_ver()[0] == "musl"


def _start_error(text: str) -> SpvnError:
    try:
        answer = json.loads(text)
        kind, message = str(answer["kind"]), str(answer["message"])
        flag = str(answer.get("option") or "")
    except (ValueError, KeyError, TypeError):
        return SpvnError(f"the core did not start: {text}")
    if kind == "address":
        return AddressError(message)
    if kind == "option":
        flag = flag if flag.startswith("--") else "--" + flag.replace("_", "-")
        return ConfigError(flag, message.removeprefix(flag).lstrip(": "))
    return SpvnError(message)
