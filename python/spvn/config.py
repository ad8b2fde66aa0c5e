# ruff: noqa: RUF009  the helpers return dataclasses.field()
"""Every option of spvn, once.

Strategy: the fields of `Config` are the options. Their metadata (`spvn._options.Option`)
says how each is called, read, checked and explained; the command line (cli.py), the
environment, the table in docs/options.md (_docs.py) and the JSON that the core gets are
derived from it. To add an option, add a field. The names and defaults are uvicorn's
wherever it has the option, unless a better default is worth the difference.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Union

from spvn._options import (
    Option,
    option,
    read_address,
    read_any,
    read_bool,
    read_header,
    read_int,
    read_name,
    read_path,
    read_seconds,
    read_size,
    read_text,
)
from spvn._types import ASGIApp
from spvn._version import __version__
from spvn.errors import ConfigError
from spvn.logging import LOG_LEVELS, default_logging

if TYPE_CHECKING:
    from configparser import RawConfigParser

APP = "Application"
ADDRESS = "Address"
PROCESS = "Processes and reloading"
HTTP = "HTTP"
PROXY = "Behind a proxy"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
LOGGING = "Logging and watching"
WEBSOCKET = "WebSocket"

# Where most orchestrators and balancers look.
HEALTH_PATHS = ("/health", "/healthz", "/livez", "/readyz")

GROUPS = (APP, ADDRESS, HTTP, PROXY, LIMITS, TIMEOUTS, LOGGING, PROCESS, WEBSOCKET)

LogConfig = Union[dict[str, Any], str, "os.PathLike[str]", "RawConfigParser", IO[Any], None]


def _flag(default: bool, group: str, help: str, **description: Any) -> Any:
    return option(default, group, help, read_bool, switch=True, **description)


def _pair(default: bool | None, group: str, help: str, **description: Any) -> Any:
    return option(default, group, help, read_bool, switch=True, paired=True, **description)


def _seconds(default: float | None, group: str, help: str, **description: Any) -> Any:
    description.setdefault("minimum", 0)
    return option(default, group, help, read_seconds, metavar="SECONDS", unit="s", **description)


def _size(default: int | None, group: str, help: str, **description: Any) -> Any:
    description.setdefault("minimum", 1)
    description.setdefault("maximum", (1 << 63) - 1)
    return option(default, group, help, read_size, metavar="BYTES", unit="bytes", **description)


def _count(default: int | None, group: str, help: str, **description: Any) -> Any:
    description.setdefault("minimum", 1)
    description.setdefault("maximum", (1 << 63) - 1)
    return option(default, group, help, read_int, metavar="N", **description)


def _list(group: str, help: str, read: Any = read_text, factory: Any = list, **description: Any) -> Any:
    return option(None, group, help, read, factory=factory, many=True, **description)


@dataclasses.dataclass
class Config:
    """How to serve an app. Each option is checked at once; one that cannot be used raises ConfigError.

    `app` is the app itself or where it is, as "module:attribute". The options are those of
    the command line, with underscores: `Config("main:app", port=0, access_log=False)`.
    Times are in seconds and sizes in bytes; docs/options.md has the whole list.
    """

    app: ASGIApp | str

    factory: bool = _flag(False, APP, "APP is a function that returns the app, and is called without arguments.")
    app_dir: str | None = option(
        None, APP, "Look for APP in this directory.", metavar="DIR", none="unset", shown_default="the current directory"
    )
    env_file: str | None = option(
        None,
        APP,
        "Read environment variables from this file of NAME=VALUE lines. What is already set stays.",
        metavar="FILE",
        none="unset",
    )
    interface: str = option(
        "auto",
        APP,
        "What kind of app APP is; auto looks at its parameters.",
        metavar="auto|asgi3|asgi2|wsgi",
        choices=("auto", "asgi3", "asgi2", "wsgi"),
    )
    threads: int | None = _count(
        None,
        APP,
        "Most threads that run a WSGI app, in each worker; each runs one call at a time. ASGI apps have none.",
        none="4 more than there are cores, at most 32",
    )
    lifespan: str = option(
        "auto",
        APP,
        "Start and stop the app through ASGI's lifespan protocol; auto goes on without it if the app has none.",
        metavar="auto|on|off",
        choices=("auto", "on", "off"),
    )
    loop: str = option(
        "auto",
        APP,
        "Event loop; auto is uvloop where it is installed. A function that makes loops can be named too.",
        metavar="auto|asyncio|uvloop|MODULE:FACTORY",
    )
    root_path: str = option(
        "", APP, "The ASGI root_path: the path under which the app is mounted.", metavar="PATH", core=True
    )
    gc_threshold: int = _count(
        10_000,
        APP,
        "New objects after which Python's collector looks at the youngest (gc.set_threshold); what the app has built "
        "by the end of its start-up is left out (gc.freeze). 0 leaves the collector alone, and so does a server inside "
        "another program.",
        minimum=0,
        maximum=(1 << 31) - 1,
    )
    reset_contextvars: bool = _flag(False, APP, "Run each call in a fresh contextvars.Context.")

    host: str | None = option(
        "127.0.0.1",
        ADDRESS,
        "Address or name to listen on; 0.0.0.0 is every IPv4 address, :: every IPv6 one, * both.",
        metavar="HOST",
        core=True,
        none="every address",
    )
    port: int = option(
        8000,
        ADDRESS,
        "Port to listen on; 0 takes a free one, which is printed.",
        read_int,
        metavar="PORT",
        minimum=0,
        maximum=65535,
        core=True,
    )
    bind: list[str] = _list(
        ADDRESS,
        "Listen here, not on --host and --port: HOST:PORT, [V6]:PORT, unix:PATH or fd://N. May be repeated.",
        read_address,
        metavar="ADDRESS",
        core=True,
    )
    uds: str | None = option(None, ADDRESS, "Listen on this unix socket.", metavar="PATH", none="unset", core=True)
    fd: int | None = option(
        None,
        ADDRESS,
        "Listen on the socket that is open as this file descriptor.",
        read_int,
        metavar="N",
        minimum=0,
        none="unset",
        core=True,
    )
    backlog: int | None = _count(
        None,
        ADDRESS,
        "Connections that may wait to be accepted.",
        none="the system's limit (somaxconn)",
        maximum=(1 << 31) - 1,
        core=True,
    )

    io_threads: int | None = _count(
        None,
        HTTP,
        "Threads that move bytes.",
        none="1 on up to 4 cores, then a quarter of them",
        maximum=256,
        core=True,
    )
    server_header: bool = _pair(True, HTTP, "Send a Server field.", core=True)
    date_header: bool = _pair(True, HTTP, "Send a Date field.", core=True)
    headers: list[tuple[str, str]] = _list(
        HTTP,
        "Send this field with every answer. May be repeated.",
        read_header,
        flag="--header",
        metavar="NAME:VALUE",
        separator="\n",
        core=True,
    )
    http: str = option(
        "auto", HTTP, "For compatibility with uvicorn: spvn has one HTTP implementation.", metavar="auto"
    )

    proxy_headers: bool = _pair(
        True, PROXY, "Take scheme and client from X-Forwarded-Proto and X-Forwarded-For.", core=True
    )
    forwarded_allow_ips: str | list[str] | None = option(
        None,
        PROXY,
        "Proxies to believe: addresses, networks, or unix (who has no address), separated by commas; * is all.",
        read_any,
        metavar="LIST",
        none="127.0.0.1,::1",
        variables=("FORWARDED_ALLOW_IPS",),
        core=True,
    )

    limit_request_line: int = _size(16 << 10, LIMITS, "Longest request line; a longer one is answered 414.", core=True)
    limit_header_bytes: int = _size(
        64 << 10, LIMITS, "Most bytes in a request's header section; more is answered 431.", core=True
    )
    limit_header_count: int = _count(
        128, LIMITS, "Most fields in a request's header section; more is answered 431.", core=True
    )
    limit_body: int | None = _size(
        None, LIMITS, "Longest request body; a longer one is answered 413.", none="off", core=True
    )
    limit_concurrency: int | None = _count(
        None, LIMITS, "Most calls at one time; one more is answered 503.", none="off", core=True
    )
    limit_connections: int | None = _count(
        None,
        LIMITS,
        "Most connections at one time; for a new one the longest idle is closed, or it waits until one is idle.",
        none="from the limit on open files",
        core=True,
    )
    limit_max_requests: int | None = _count(
        None, LIMITS, "Replace a worker after this many calls; without --workers, stop after them.", none="off"
    )
    limit_max_requests_jitter: int = _count(
        0, LIMITS, "Add up to this many calls, at random, to --limit-max-requests.", minimum=0
    )
    limit_connections_per_address: int | None = _count(
        None,
        LIMITS,
        "Most connections at one time from one address; behind a proxy all come from one.",
        none="off",
        core=True,
    )
    limit_connection_rate: int | None = _count(
        None,
        LIMITS,
        "Most new connections a second from one address, and most at once; behind a proxy all come from one.",
        none="off",
        core=True,
    )
    limit_connection_requests: int | None = _count(
        None, LIMITS, "Close a connection after this many requests.", none="off", core=True
    )
    min_body_rate: int | None = _size(
        None,
        LIMITS,
        "Fewest bytes a second of a request's body, judged over every 2 s in which spvn was reading; then 408.",
        none="off",
        core=True,
    )
    limit_buffered_bodies: int | None = _size(
        24 << 20,
        LIMITS,
        "Most bytes of all request bodies that the app has not received; above it spvn reads less from each client.",
        none="off",
        core=True,
    )
    limit_buffered_output: int | None = _size(
        256 << 20,
        LIMITS,
        "Most bytes of all answers that clients have not read; above it apps wait for slow clients.",
        none="off",
        core=True,
    )
    priority_paths: list[str] = _list(
        LIMITS,
        "Calls of this path go ahead of all that wait and are never refused. Exact; may be repeated.",
        read_path,
        factory=lambda: list(HEALTH_PATHS),
        flag="--priority-path",
        metavar="PATH",
        shown_default=", ".join(HEALTH_PATHS),
        core=True,
    )
    health_check_path: str | None = option(
        None,
        LIMITS,
        "Answer GET of this path from the workers' state, without the app: 200, or 503 while the server drains, "
        "no worker is ready or all are stalled. Not in the access log.",
        read_path,
        metavar="PATH",
        none="off",
        core=True,
    )
    liveness_path: str | None = option(
        None,
        LIMITS,
        "The same for a check that restarts what fails it: 503 only while all workers are stalled.",
        read_path,
        metavar="PATH",
        none="off",
        core=True,
    )
    limit_max_rss: int | None = _size(
        None,
        LIMITS,
        "Replace a worker whose memory of its own grows beyond this, or beyond up to 10 % less, at random.",
        none="off",
    )
    h11_max_incomplete_event_size: int | None = _size(
        None, LIMITS, "uvicorn's name for --limit-header-bytes.", none="unset"
    )

    timeout_header: float = _seconds(
        10.0,
        TIMEOUTS,
        "For a request's head, in all; also for a connection's first byte. Then 408.",
        minimum=0.001,
        core=True,
    )
    timeout_body: float = _seconds(
        30.0, TIMEOUTS, "Between two parts of a request's body, while spvn is reading.", minimum=0.001, core=True
    )
    timeout_keep_alive: float = _seconds(
        75.0, TIMEOUTS, "An idle connection is kept this long; above the 60 s of most proxies.", core=True
    )
    timeout_write: float = _seconds(
        30.0, TIMEOUTS, "A client that takes nothing of its answer for this long is cut.", minimum=0.001, core=True
    )
    timeout_queue: float = _seconds(
        10.0, TIMEOUTS, "A call waits this long for the app to begin it; then 503.", minimum=0.001, core=True
    )
    timeout_request: float | None = _seconds(
        None,
        TIMEOUTS,
        "A call whose answer is not complete by then is answered 504, or cut; the app gets http.disconnect.",
        minimum=0.001,
        none="off",
        core=True,
    )
    timeout_first_byte: float | None = _seconds(
        None,
        TIMEOUTS,
        "The same for a call whose answer has not begun, so that streams may go on.",
        minimum=0.001,
        none="off",
        core=True,
    )
    deadline_header: str | None = option(
        None,
        TIMEOUTS,
        "Field in which a client says how long it waits (2, 0.5, 250ms); it shortens --timeout-request.",
        read_name,
        metavar="NAME",
        none="off",
        core=True,
    )
    timeout_graceful_shutdown: float | None = _seconds(
        30.0,
        TIMEOUTS,
        "On SIGINT and SIGTERM calls may go on for this long; then they are cancelled.",
        none="without end",
        core=True,
    )
    timeout_worker_start: float = _seconds(
        60.0,
        TIMEOUTS,
        "A call waits this long while no worker is ready, or all are stalled; then 503.",
        minimum=0.001,
        core=True,
    )
    timeout_worker_stall: float | None = _seconds(
        None, TIMEOUTS, "Kill a worker whose loop has been blocked for this long.", minimum=0.001, none="off"
    )
    stall_warning: float = _seconds(
        1.0,
        TIMEOUTS,
        "Log the stack of a worker process whose loop has been blocked for this long.",
        minimum=0.1,
        core=True,
    )
    drain_delay: float = _seconds(
        0.0,
        TIMEOUTS,
        "On SIGTERM go on serving for this long while --health-check-path says 503; then stop.",
    )

    log_level: str | int | None = option(
        None,
        LOGGING,
        "How much to log.",
        read_any,
        metavar="|".join(LOG_LEVELS),
        none="unset",
        shown_default="info",
    )
    log_config: LogConfig = option(
        None,
        LOGGING,
        "Configuration of Python's logging: a .json, .yaml or .ini file.",
        read_any,
        factory=default_logging,
        metavar="FILE",
        none="leave logging alone",
        shown_default="built in",
    )
    access_log: bool = _pair(True, LOGGING, "Log every answer to standard output.", core=True)
    use_colors: bool | None = _pair(None, LOGGING, "Colour the logs.", none="on a terminal")
    profile_core: str | None = option(
        None,
        LOGGING,
        "Write a CPU profile of the core to this file until the end, for `go tool pprof`.",
        metavar="FILE",
        none="off",
        core=True,
    )
    control_socket: str | None = option(
        None, LOGGING, "Answer with the counters, as JSON, on this unix socket.", metavar="PATH", none="off", core=True
    )

    workers: int | None = _count(
        None,
        PROCESS,
        "Run the app in this many worker processes, which are replaced when they die and one by one on SIGHUP.",
        none="unset",
        maximum=1024,
        variables=("WEB_CONCURRENCY",),
        shown_default="in this process",
    )
    worker_lifetime: float | None = _seconds(
        None,
        PROCESS,
        "Replace a worker after this long, or up to 10 % earlier, at random.",
        minimum=1,
        none="off",
    )
    retry_safe: bool = _pair(
        True,
        PROCESS,
        "Run a call with a safe method (GET, ...) again if its worker died before it answered.",
        core=True,
    )
    quarantine: float | None = _seconds(
        None,
        PROCESS,
        "Answer a request (its method and path) with 503 for this long once it has crashed a worker.",
        none="off",
        core=True,
    )
    timeout_worker_healthcheck: float = _seconds(
        5, PROCESS, "For compatibility with uvicorn, without effect: see --timeout-worker-stall."
    )
    reload: bool = _flag(
        False, PROCESS, "Start the app anew when a file changes. For development: tracebacks are shown to clients."
    )
    reload_dirs: list[str] = _list(
        PROCESS,
        "Directory to watch. May be repeated.",
        flag="--reload-dir",
        metavar="DIR",
        shown_default="the current directory",
    )
    reload_includes: list[str] = _list(
        PROCESS, "Files to watch. May be repeated.", flag="--reload-include", metavar="GLOB", shown_default="*.py"
    )
    reload_excludes: list[str] = _list(
        PROCESS,
        "Files not to watch. May be repeated.",
        flag="--reload-exclude",
        metavar="GLOB",
        shown_default=".*, .py[cod], .sw.*, ~*",
    )
    reload_delay: float = _seconds(0.25, PROCESS, "Wait this long after a change.")

    http2: bool = _flag(False, HTTP, "Speak HTTP/2.")
    ws: str = option(
        "auto",
        WEBSOCKET,
        "WebSocket connections; none leaves handshakes to the app, as ordinary requests.",
        metavar="auto|none",
        core=True,
    )
    ws_max_size: int = _size(
        16 << 20, WEBSOCKET, "Largest message, also once decompressed; a larger one is closed with 1009.", core=True
    )
    ws_max_queue: int = _count(
        32,
        WEBSOCKET,
        "Messages of one client that may wait for the app; then spvn reads no more of it.",
        maximum=1 << 20,
        core=True,
    )
    ws_ping_interval: float | None = _seconds(20.0, WEBSOCKET, "Time between pings.", none="off", core=True)
    ws_ping_timeout: float | None = _seconds(
        20.0, WEBSOCKET, "A client that sends nothing for so long after a ping is closed.", none="off", core=True
    )
    ws_per_message_deflate: bool = option(
        True, WEBSOCKET, "Compress messages where the client can.", read_bool, metavar="BOOL", core=True
    )
    timeout_ws_send: float = _seconds(
        20.0,
        WEBSOCKET,
        "A WebSocket client that takes nothing of what is sent for this long is cut.",
        minimum=0.001,
        core=True,
    )

    def __post_init__(self) -> None:
        for field in options():
            setattr(self, field.name, field.option.convert(field.flag, getattr(self, field.name)))
        self._check_log_level()
        _check_compatibility(self)
        _check_available(self)
        if self.app_dir and not os.path.exists(self.app_dir):
            raise ConfigError("--app-dir", f"there is no directory {self.app_dir!r}")
        if self.factory and not isinstance(self.app, str) and not callable(self.app):
            raise ConfigError("--factory", f"{self.app!r} cannot be called")
        if self.h11_max_incomplete_event_size is not None and self.limit_header_bytes == _default("limit_header_bytes"):
            self.limit_header_bytes = self.h11_max_incomplete_event_size
        if self.workers is None and os.environ.get("WEB_CONCURRENCY"):
            self.workers = _OPTIONS["workers"].option.convert("WEB_CONCURRENCY", os.environ["WEB_CONCURRENCY"])
        if self.forwarded_allow_ips is None:
            self.forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")

    def _check_log_level(self) -> None:
        level = self.log_level
        if isinstance(level, str):
            if level.isdigit():
                self.log_level = int(level)
            elif level.lower() not in LOG_LEVELS:
                raise ConfigError("--log-level", f"{level!r} is not one of {', '.join(LOG_LEVELS)}")
        elif isinstance(level, bool) or not (level is None or isinstance(level, int)):
            raise ConfigError("--log-level", f"{level!r} is neither a name nor a number")

    @property
    def supervised(self) -> bool:
        """Whether the app runs in worker processes."""
        return self.workers is not None or self.reload

    def without_effect(self) -> list[tuple[str, str]]:
        """The flags that were given and change nothing, each with the one that is missing."""
        needs = {
            "--workers": not self.supervised,
            "--reload": not self.reload,
            "--limit-max-requests": self.limit_max_requests is None,
        }
        return [
            (_OPTIONS[name].flag if getattr(self, name) is not False else _OPTIONS[name].off_flag, needed)
            for name, needed in _NEEDS.items()
            if needs[needed] and getattr(self, name) != _OPTIONS[name].default
        ]

    def core_options(self) -> dict[str, Any]:
        """What the core is started with, ready to be written as JSON. None means the core's default."""
        values = {field.name: getattr(self, field.name) for field in options() if field.option.core}
        values["host"] = self.host or ""  # every address
        # 0 closes at once, as with uvicorn; to the core it would mean never.
        values["timeout_keep_alive"] = max(self.timeout_keep_alive, 0.001)
        values["headers"] = [list(pair) for pair in self.headers]
        if isinstance(self.forwarded_allow_ips, str):
            values["forwarded_allow_ips"] = [item.strip() for item in self.forwarded_allow_ips.split(",")]
        # None is "off" here.
        values["ws_ping_interval"] = self.ws_ping_interval or 0
        values["ws_ping_timeout"] = self.ws_ping_timeout or 0
        values["version"] = __version__
        return values

    @classmethod
    def from_sources(cls, app: ASGIApp | str, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
        """A Config from flags (by field name) and the environment; a flag beats SPVN_..., which beats UVICORN_... ."""
        values: dict[str, Any] = {}
        for field in options():
            if field.name in flags:
                values[field.name] = flags[field.name]
                continue
            for variable in field.variables:
                if variable in environ and environ[variable] != "":
                    values[field.name] = field.read_variable(variable, environ[variable])
                    break
        return cls(app, **values)


class _Field:
    """An option together with the name and default of its field."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        self.name = field.name
        self.option: Option = field.metadata["option"]
        self.flag = self.option.flag or "--" + field.name.replace("_", "-")
        self.off_flag = "--no-" + self.flag[len("--") :] if self.option.paired else ""
        self.variables = (f"SPVN_{field.name.upper()}", f"UVICORN_{field.name.upper()}", *self.option.variables)
        made = None if field.default_factory is dataclasses.MISSING else field.default_factory
        self.default = field.default if made is None else made()

    def read_variable(self, variable: str, text: str) -> Any:
        """The field's value from a variable of the environment. Raises ConfigError, which names the variable."""
        prefix = variable[: variable.find("_") + 1]
        return self.option.convert(variable, self.option.split(text, prefix) if self.option.many else text)


_OPTIONS = {field.name: _Field(field) for field in dataclasses.fields(Config) if "option" in field.metadata}


def options() -> list[_Field]:
    """All options, in the order of the fields."""
    return list(_OPTIONS.values())


def _default(name: str) -> Any:
    return _OPTIONS[name].default


# Options that change nothing without another one.
_NEEDS = {
    "limit_max_rss": "--workers",
    "worker_lifetime": "--workers",
    "timeout_worker_stall": "--workers",
    "stall_warning": "--workers",
    "retry_safe": "--workers",
    "quarantine": "--workers",
    "limit_max_requests_jitter": "--limit-max-requests",
    "reload_dirs": "--reload",
    "reload_includes": "--reload",
    "reload_excludes": "--reload",
    "reload_delay": "--reload",
}

# Options whose feature is not there yet, with the values that mean "without it". To
# enable one, take it out.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "http2": (False,),
}

# Flags of uvicorn that spvn knows but has no option for, and why.
REFUSED_FLAGS: dict[str, str] = dict.fromkeys(
    (
        "--ssl-keyfile",
        "--ssl-certfile",
        "--ssl-keyfile-password",
        "--ssl-version",
        "--ssl-cert-reqs",
        "--ssl-ca-certs",
        "--ssl-ciphers",
    ),
    "TLS is not available in this version; let a proxy in front of spvn do it",
)


def _check_available(config: Config) -> None:
    for name, accepted in NOT_YET.items():
        value = getattr(config, name)
        if value not in accepted:
            flag = _OPTIONS[name].flag
            what = "" if _OPTIONS[name].option.switch else f"{value!r} is "
            raise ConfigError(flag, f"{what}not available in this version")


def _check_compatibility(config: Config) -> None:
    if config.http != "auto":
        raise ConfigError("--http", f"{config.http!r}: spvn has one HTTP implementation, its own; leave the option out")
    if config.ws not in ("auto", "none"):
        raise ConfigError("--ws", f"{config.ws!r}: spvn has one WebSocket implementation, its own; use auto or none")
