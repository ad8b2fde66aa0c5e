"""What of worker processes needs no process; tests/workers has the rest."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import spvn
from spvn import Config, ConfigError, testing
from spvn._process import WorkerProcess, _app_stacks, _launch_file
from spvn._recycle import Limits, anonymous_memory, calls_of, limited
from spvn.reload import error_page, watch_options
from spvn.supervisor import Supervisor


async def app(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(("options", "flag"), [({"workers": 2}, "--workers"), ({"reload": True}, "--reload")])
def test_an_app_without_a_name(options: dict[str, Any], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}: worker processes import the app by its name"):
        Supervisor(Config(app, **options))
    with pytest.raises(SystemExit) as caught:
        spvn.run(app, **options)
    assert caught.value.code == 2
    assert f"spvn: error: {flag}: worker processes" in capsys.readouterr().err


def test_a_test_server_is_one_process_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert Config("main:app").supervised
    kinds: list[type] = []
    monkeypatch.setattr(testing.LiveServer, "start", lambda live: kinds.append(type(live.server)))
    testing.start(app)
    testing.start("main:app", workers=1)
    assert kinds == [spvn.Server, Supervisor]


def test_what_pickle_refuses_is_an_option_that_is_named() -> None:
    config = Config("main:app", log_config={"version": 1, "x": lambda: None})
    with pytest.raises(ConfigError, match=r"^--log-config: it cannot be handed to worker processes"):
        _launch_file(SimpleNamespace(config=config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "killed", "text"),
    [
        (3, None, "exit code 3"),
        (-signal.SIGSEGV, None, "SIGSEGV"),
        (-signal.SIGKILL, None, "SIGKILL (not by spvn; perhaps the system was out of memory)"),
        (-signal.SIGKILL, "because it is Monday", "SIGKILL by spvn, because it is Monday"),
        (-63, None, "signal 63"),
    ],
)
def test_how_it_ended(code: int, killed: str | None, text: str) -> None:
    process: Any = SimpleNamespace(_popen=SimpleNamespace(returncode=code), killed=killed)
    assert WorkerProcess.how_it_ended(process) == text


def test_stacks_of_the_app() -> None:
    other = 'Thread 0x02 (most recent call first):\n  File "pool.py", line 1 in work'
    current = 'Current thread 0x03 (most recent call first):\n  File "main.py", line 1 in app'
    assert _app_stacks(f"{other}\n\n{current}\n") == f"{current}\n\n{other}"
    assert _app_stacks("") == ""


def test_limits() -> None:
    assert not limited(Config(app))
    pid = os.getpid()
    calls = Limits(Config(app, limit_max_requests=10, limit_max_requests_jitter=5))
    assert calls.reached(pid, 9, 1e9) is None
    assert calls.reached(pid, 15, 0) == "15 calls"
    lifetime = Limits(Config(app, worker_lifetime=100))
    assert lifetime.reached(pid, 0, 89) is None
    assert lifetime.reached(pid, 0, 100) == "100 s of life"
    assert 1 << 20 < anonymous_memory(pid) < 1 << 40
    assert anonymous_memory(2**22 + 1) == 0
    assert "MiB of memory" in str(Limits(Config(app, limit_max_rss=1 << 20)).reached(pid, 0, 0))
    assert Limits(Config(app, limit_max_rss=1 << 40)).reached(pid, 0, 0) is None
    assert calls_of({"worker_list": [{"worker": 2, "claimed_total": 7}]}, 2) == 7
    assert calls_of({}, 2) == 0


def test_what_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("src", "assets", "data"):
        (tmp_path / name).mkdir()
    assert watch_options(Config("a:b", reload=True)) == {
        "dirs": [str(tmp_path)],
        "includes": ["*.py"],
        "excludes": [".*", ".py[cod]", ".sw.*", "~*"],
        "exclude_dirs": [],
        "delay": 0.25,
    }
    config = Config(
        "a:b", reload_dirs=["src"], reload_includes=["assets", "*.toml", ".*"], reload_excludes=["data", "*.py"]
    )
    assert watch_options(config) == {
        "dirs": [str(tmp_path / "src"), str(tmp_path / "assets")],
        "includes": ["*.toml", ".*"],
        "excludes": [".py[cod]", ".sw.*", "~*", "*.py"],
        "exclude_dirs": [str(tmp_path / "data")],
        "delay": 0.25,
    }


def test_the_error_page_closes_websockets() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(error_page("no")({"type": "websocket"}, send, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1011, "reason": "the app cannot be loaded"}]
