# ruff: noqa: E501  tables of cases
from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import pytest

from spvn import Config, ConfigError
from spvn.config import GROUPS, NOT_YET, options


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def test_every_field_but_the_app_is_an_option() -> None:
    names = [field.name for field in dataclasses.fields(Config)]
    assert names[0] == "app"
    assert names[1:] == [field.name for field in options()]
    assert {field.option.group for field in options()} == set(GROUPS)
    assert all(field.option.help.endswith(".") for field in options())
    assert len({field.flag for field in options()}) == len(options())
    assert NOT_YET.keys() <= set(names)


def test_defaults() -> None:
    config = Config(app)
    assert (config.host, config.port, config.bind) == ("127.0.0.1", 8000, [])
    assert (config.limit_request_line, config.limit_header_bytes, config.limit_header_count) == (16384, 65536, 128)
    assert (config.timeout_header, config.timeout_body, config.timeout_keep_alive) == (10, 30, 75)
    assert config.timeout_graceful_shutdown == 30
    assert config.forwarded_allow_ips == "127.0.0.1,::1"


def test_what_the_core_gets() -> None:
    values = Config(app, headers=[("X-A", "b")], forwarded_allow_ips="10.0.0.0/8, ::1", root_path="/x").core_options()
    assert json.loads(json.dumps(values)) == values
    assert values["headers"] == [["X-A", "b"]]
    assert values["forwarded_allow_ips"] == ["10.0.0.0/8", "::1"]
    assert values["version"]
    assert {"bind", "uds", "fd", "host", "port", "backlog", "io_threads", "limit_request_line", "limit_header_bytes",
            "limit_header_count", "limit_body", "limit_concurrency", "limit_connections", "timeout_header", "timeout_body",
            "timeout_keep_alive", "timeout_write", "timeout_graceful_shutdown", "timeout_queue", "server_header",
            "date_header", "headers", "proxy_headers", "forwarded_allow_ips", "access_log", "control_socket", "profile_core", "root_path",
            "ws", "ws_max_size", "ws_max_queue", "ws_ping_interval", "ws_ping_timeout", "ws_per_message_deflate",
            "timeout_ws_send", "timeout_worker_start", "stall_warning", "retry_safe", "quarantine", "version", "priority_paths",
            "health_check_path", "liveness_path", "timeout_request", "timeout_first_byte", "deadline_header",
            "limit_buffered_bodies", "limit_buffered_output", "limit_connection_requests", "limit_connections_per_address",
            "limit_connection_rate", "min_body_rate"} == values.keys()  # fmt: skip


def test_no_keep_alive() -> None:
    assert Config(app, timeout_keep_alive=0).core_options()["timeout_keep_alive"] == 0.001


def test_no_host_is_every_address() -> None:
    assert Config(app, host=None).core_options()["host"] == ""


@pytest.mark.parametrize(
    ("name", "given", "want"),
    [
        ("port", "9000", 9000),
        ("port", 0, 0),
        ("limit_body", "10M", 10 << 20),
        ("limit_body", "64 KiB", 64 << 10),
        ("limit_body", "off", None),
        ("limit_body", None, None),
        ("limit_body", 5, 5),
        ("timeout_header", "2.5", 2.5),
        ("timeout_graceful_shutdown", "off", None),
        ("timeout_graceful_shutdown", 0, 0),
        ("access_log", "off", False),
        ("access_log", "1", True),
        ("use_colors", None, None),
        ("headers", ["X-A: b:c ", ("Y", "z"), (b"q", b"r")], [("X-A", "b:c"), ("Y", "z"), ("q", "r")]),
        ("headers", None, []),
        ("bind", "[::1]:80", ["[::1]:80"]),
        ("timeout_keep_alive", 2147483647, 2147483647),
        ("limit_concurrency", sys.maxsize, sys.maxsize),
        ("priority_paths", [""], [""]),
        ("health_check_path", "", ""),
        ("bind", [":80", "unix:/x", "fd://3", "a-b.c:1"], [":80", "unix:/x", "fd://3", "a-b.c:1"]),
        ("log_level", "10", 10),
        ("log_level", "Debug", "Debug"),
        ("uds", "off", "off"),
        ("loop", "asyncio", "asyncio"),
    ],
)
def test_values(name: str, given: Any, want: Any) -> None:
    assert getattr(Config(app, **{name: given}), name) == want


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("port", "http", "--port: 'http' is not a whole number"),
        ("port", 65536, "--port: 65536 is too large: 65535 or less"),
        ("port", -1, "--port: -1 is too small: 0 or more"),
        ("port", True, "--port: True is not a whole number"),
        ("port", None, "--port: a value is needed"),
        ("timeout_header", 0, "--timeout-header: 0 is too small: 0.001 or more"),
        ("timeout_header", "soon", "--timeout-header: 'soon' is not a number of seconds"),
        ("timeout_header", "nan", "--timeout-header: nan is not a number of seconds"),
        ("limit_body", "1X", "--limit-body: '1X' is not a size: give bytes, or a number with K, M or G, such as 64K"),
        ("access_log", "maybe", "--access-log: 'maybe' is neither true nor false"),
        ("lifespan", "maybe", "--lifespan: 'maybe' is not one of auto, on, off"),
        ("headers", ["X-A"], "--header: 'X-A' is not of the form Name:Value"),
        ("headers", ["X A: b"], "--header: 'X A' is not a field name (RFC 9110 5.1)"),
        ("headers", [("X", "a\nb")], "--header: the value 'a\\nb' of X has a character that no field may have (RFC 9110 5.5)"),
        ("log_level", "loud", "--log-level: 'loud' is not one of critical, error, warning, info, debug, trace"),
        ("workers", 0, "--workers: 0 is too small: 1 or more"),
        ("io_threads", 100_000, "--io-threads: 100000 is too large: 256 or less"),
        ("backlog", 1 << 40, "--backlog: 1099511627776 is too large: 2147483647 or less"),
        ("ws_max_size", "99999999999999999999", f"--ws-max-size: 99999999999999999999 is too large: {sys.maxsize} or less"),
        ("bind", ["nope"], "--bind: 'nope' is not HOST:PORT, [V6]:PORT, unix:PATH or fd://N"),
        ("bind", ["a:99999"], "--bind: 'a:99999' is not HOST:PORT, [V6]:PORT, unix:PATH or fd://N"),
        ("bind", ["::1:80"], "--bind: '::1:80' is not HOST:PORT, [V6]:PORT, unix:PATH or fd://N"),
        ("bind", ["unix:"], "--bind: 'unix:' is not HOST:PORT, [V6]:PORT, unix:PATH or fd://N"),
        ("bind", ["fd://x"], "--bind: 'fd://x' is not HOST:PORT, [V6]:PORT, unix:PATH or fd://N"),
        ("health_check_path", "health", "--health-check-path: 'health' is not a path: it begins with /"),
        ("liveness_path", "/live?x", "--liveness-path: '/live?x' is more than a path, which ends before ? and #"),
        ("priority_paths", ["/a", "b"], "--priority-path: 'b' is not a path: it begins with /"),
        ("deadline_header", "bad name", "--deadline-header: 'bad name' is not a field name (RFC 9110 5.1)"),
        ("app_dir", "/nonexistent", "--app-dir: there is no directory '/nonexistent'"),
        ("http", "h11", "--http: 'h11': spvn has one HTTP implementation, its own; leave the option out"),
        ("ws", "wsproto", "--ws: 'wsproto': spvn has one WebSocket implementation, its own; use auto or none"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used(name: str, given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(app, **{name: given})
    assert str(caught.value) == message
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)


def test_options_that_change_nothing() -> None:
    def odd(**options: Any) -> list[tuple[str, str]]:
        return Config("main:app", **options).without_effect()

    assert odd() == odd(drain_delay=3, limit_max_requests=5) == []
    assert odd(worker_lifetime=60, retry_safe=False) == [
        ("--worker-lifetime", "--workers"),
        ("--no-retry-safe", "--workers"),
    ]
    assert odd(workers=1, worker_lifetime=60, reload_dirs=["x"]) == [("--reload-dir", "--reload")]
    assert odd(limit_max_requests_jitter=5) == [("--limit-max-requests-jitter", "--limit-max-requests")]


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="prot"):
        Config(app, prot=1)  # type: ignore[call-arg]


def test_uvicorns_name_for_the_header_limit() -> None:
    assert Config(app, h11_max_incomplete_event_size=1000).limit_header_bytes == 1000
    assert Config(app, h11_max_incomplete_event_size=1000, limit_header_bytes=2000).limit_header_bytes == 2000


def test_a_flag_beats_spvn_which_beats_uvicorn() -> None:
    environ = {"SPVN_PORT": "2", "UVICORN_PORT": "3"}
    assert Config.from_sources(app, {"port": "1"}, environ).port == 1
    assert Config.from_sources(app, {}, environ).port == 2
    assert Config.from_sources(app, {}, {"UVICORN_PORT": "3"}).port == 3
    assert Config.from_sources(app, {}, {}).port == 8000
    assert Config.from_sources(app, {}, {"SPVN_PORT": "", "UVICORN_PORT": "3"}).port == 3


def test_lists_in_the_environment() -> None:
    def read(name: str, **environ: str) -> Any:
        return getattr(Config.from_sources(app, {}, environ), name)

    assert read("bind", SPVN_BIND="a:1, unix:/x fd://3") == ["a:1", "unix:/x", "fd://3"]
    assert read("headers", SPVN_HEADERS="A: b, c\nD: e\n") == [("A", "b, c"), ("D", "e")]
    assert read("headers", UVICORN_HEADERS="A:b D:e") == [("A", "b"), ("D", "e")]


def test_a_list_may_end_with_a_comma() -> None:
    assert Config.from_sources(app, {}, {"SPVN_PRIORITY_PATHS": "/a, /b,"}).priority_paths == ["/a", "/b"]
    assert Config.from_sources(app, {}, {"SPVN_PRIORITY_PATHS": ","}).priority_paths == []


def test_an_error_in_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="^SPVN_PORT: 'x' is not a whole number$"):
        Config.from_sources(app, {}, {"SPVN_PORT": "x"})


def test_variables_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    config = Config(app)
    assert (config.workers, config.forwarded_allow_ips) == (1, "*")
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY: 'many' is not a whole number"):
        Config(app)
    assert Config(app, workers=1).workers == 1
