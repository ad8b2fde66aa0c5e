from __future__ import annotations

from pathlib import Path

import pytest

from spvn import ConfigError, __version__, cli
from spvn._parser import parser

from .conftest import Spvn

RAW = "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n"


@pytest.mark.parametrize("start", [["main:app"], ["serve", "main:app"], ["--port", "1", "main:app"]])
def test_the_app(start: list[str]) -> None:
    assert cli.parse(start).app == "main:app"


def test_flags() -> None:
    config = cli.parse(
        ["main:app", "--port=0", "--no-access-log", "--use-colors", "--header", "A:b", "--header=C: d", "--factory"]
        + ["--bind", "a:1", "--bind", "b:2", "--limit-body", "1K", "--ws-per-message-deflate", "true"]
    )
    assert (config.port, config.access_log, config.use_colors, config.factory) == (0, False, True, True)
    assert config.headers == [("A", "b"), ("C", "d")]
    assert (config.bind, config.limit_body) == (["a:1", "b:2"], 1024)
    assert config.app_dir == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["a:b"],
        ["--port", "1", "a:b", "--host=", "--factory", "--no-date-header", "--date-header", "--no-access-log"],
        ["a:b", "--header", "A:b", "--header=C:d", "--bind", "x:1", "--limit-body=1K", "--app-dir", "a b"],
        [],
        [""],
    ],
)
def test_what_is_read_without_argparse_is_what_argparse_reads(arguments: list[str]) -> None:
    assert cli._read(arguments) == vars(parser().parse_args(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["a:b", "c:d"],
        ["--no-factory"],
        ["--factory=1"],
        ["--port"],
        ["--port", "-1"],
        ["--"],
        ["-h"],
        ["--help"],
        ["--version"],
        ["--ssl-keyfile", "k"],
        ["--no-port"],
        ["--por", "1"],
    ],
)
def test_what_takes_argparse_is_left_to_it(arguments: list[str]) -> None:
    assert cli._read(arguments) is None


def test_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SPVN_APP=from:file\nSPVN_PORT=1\nSPVN_HOST=a\nUVICORN_ROOT_PATH=/r\n")
    for name in ("SPVN_APP", "SPVN_PORT", "UVICORN_ROOT_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # so that what the file sets is taken back
    monkeypatch.setenv("SPVN_HOST", "b")
    monkeypatch.setenv("SPVN_ENV_FILE", str(file))
    config = cli.parse(["--port", "2"])
    assert (config.app, config.port, config.host, config.root_path) == ("from:file", 2, "b", "/r")


def test_bad_env_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--env-file: .*nothing: No such file or directory$"):
        cli.parse(["main:app", "--env-file", str(tmp_path / "nothing")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "APP: what is to be served? give it as MODULE:ATTRIBUTE, such as: spvn main:app"),
        (["a:b", "--prot", "1"], "there is no option --prot. Did you mean --port? `spvn --help` has the list."),
        (["a:b", "--zzz"], "there is no option --zzz. `spvn --help` has the list."),
        (["a:b", "c:d"], "'c:d' is too much: one APP is served."),
        (["a:b", "--port"], "--port: expected one argument"),
        (["a:b", "--port", "x"], "--port: 'x' is not a whole number"),
        (["a:b", "--workers", "0"], "--workers: 0 is too small: 1 or more"),
        (["a:b", "--ssl-keyfile", "k"], "--ssl-keyfile: TLS is not available in this version; "
         "let a proxy in front of spvn do it"),
        (["a:b", "--log-config", "no.json"], "--log-config: no.json: [Errno 2] No such file or directory: 'no.json'"),
        (["a:b", "--log-config", "no.ini"], "--log-config: no.ini: no such file"),
        (["a:b", "--loop", "trio"], "--loop: 'trio' is not auto, asyncio, uvloop, none or MODULE:FACTORY"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line_and_exit_2(spvn: Spvn, arguments: list[str], message: str) -> None:
    done = spvn(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"spvn: error: {message}\n")


def test_version(spvn: Spvn) -> None:
    done = spvn("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Running spvn {__version__} with CPython 3.")


def test_help_fits_a_screen(spvn: Spvn) -> None:
    done = spvn("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for text in ("Application:", "Timeouts:", "--[no-]access-log", "--port PORT", "[8000]"):
        assert any(text in line for line in lines), text


@pytest.mark.parametrize(
    ("arguments", "files", "message"),
    [
        (["nothing:app"], {}, "there is no module 'nothing'"),
        (["main:nothing"], {"main.py": RAW}, "has no attribute 'nothing'. Did you mean 'app'?"),
    ],
)
def test_an_app_that_is_not_there_exits_1(
    spvn: Spvn, arguments: list[str], files: dict[str, str], message: str
) -> None:
    done = spvn(*arguments, files=files)
    assert done.returncode == 1
    assert (
        message in done.stderr or message.replace("Did you mean 'app'?", "Looks like an app there: app") in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


def test_an_error_in_the_app_shows_its_own_traceback(spvn: Spvn) -> None:
    done = spvn("main:app", files={"main.py": "import other\n", "other.py": "def f():\n    1 / 0\nf()\n"})
    assert done.returncode == 1
    assert "main cannot be imported: ZeroDivisionError" in done.stderr
    assert 'main.py", line 1' in done.stderr
    assert 'other.py", line 2' in done.stderr
    assert "importer.py" not in done.stderr
    assert "importlib" not in done.stderr


def test_app_dir(spvn: Spvn) -> None:
    files = {"src/main.py": "raise SystemExit(7)\n"}
    assert "There is src/main.py: try --app-dir src" in spvn("main:app", files=files).stderr
    assert "main ended the process while it was imported (sys.exit(7))" in spvn("main:app", "--app-dir", "src").stderr
