"""--reload: the next call after a change is answered by the new code, and none is refused."""

from __future__ import annotations

import re
from pathlib import Path

from .load import Load
from .served import Served, served
from .test_faults import after, under_load

OPTIONS = ("--reload", "--reload-delay", "0.05")


def save(server: Served, text: str) -> None:
    """Change main.py and wait until the change was noticed."""
    noticed = server.log().count("Detected changes")
    server.main.write_text(text)
    server.wait(lambda: server.log().count("Detected changes") > noticed, "a change that is noticed")


def test_a_change_is_served_next(tmp_path: Path) -> None:
    with served(tmp_path, *OPTIONS) as server:
        assert server.call("/version") == (200, "1")
        text = server.main.read_text()
        load = Load(server.port, connections=10, rate=100)

        def change() -> None:
            after(server, 20)
            for version in ("2", "3"):
                save(server, text.replace('VERSION = "1"', f'VERSION = "{version}"'))
                assert server.call("/version") == (200, version)

        under_load(server, load, change)
        load.assert_nothing_lost()
        assert "Detected changes in main.py. Reloading..." in server.log()
        assert "died" not in server.log()


def test_code_that_does_not_import_is_shown_until_it_does(tmp_path: Path) -> None:
    with served(tmp_path, *OPTIONS) as server:
        assert server.call("/version") == (200, "1")
        text = server.main.read_text()
        save(server, "import asyncio\n1 / 0\n")
        status, body = server.call("/version")
        assert status == 500
        assert body.startswith("The app cannot be loaded.\n\nmain cannot be imported: ZeroDivisionError\nTraceback")
        assert 'main.py", line 2, in <module>' in body
        status, body = server.call("/version", Accept="text/html,*/*")
        assert (status, body[:15]) == (500, "<!doctype html>")
        assert "&lt;module&gt;" in body
        save(server, text.replace('"1"', '"2"'))
        assert server.call("/version") == (200, "2")
        save(server, text.replace('"lifespan.startup.complete"', '"lifespan.startup.failed", "message": "no database"'))
        status, body = server.call("/version")
        assert (status, "no database" in body) == (500, True)
        save(server, text)
        assert server.call("/version") == (200, "1")
        assert len(re.findall("Error loading ASGI app: main cannot be imported: ZeroDivisionError", server.log())) == 1


def test_it_may_be_broken_from_the_start(tmp_path: Path) -> None:
    with served(tmp_path, *OPTIONS, app="syntax error\n") as server:
        status, body = server.call()
        assert (status, "SyntaxError" in body) == (500, True)
        save(server, Path(__file__).with_name("app.py").read_text())
        assert server.call("/version") == (200, "1")


def test_an_old_call_does_not_hold_up_the_new_code(tmp_path: Path) -> None:
    with served(tmp_path, *OPTIONS) as server:
        text = server.main.read_text()
        load = Load(server.port, connections=1, rate=1, request=b"GET /sleep/3 HTTP/1.1\r\nHost: a\r\n\r\n")

        def change() -> None:
            server.wait(lambda: server.stats()["calls"]["in_flight"] == 1)
            load.stop()
            save(server, text.replace('"1"', '"2"'))
            assert server.call("/version") == (200, "2")
            server.wait(lambda: server.stats()["calls"]["in_flight"] == 1)

        under_load(server, load, change)
        load.assert_nothing_lost()


def test_what_is_watched(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "old").mkdir()
    options = ["--reload-dir", "src", "--reload-include", "*.toml", "--reload-exclude", "src/old"]
    with served(tmp_path, *OPTIONS, *options) as server:
        assert server.call()[0] == 200
        for name in ("notes.txt", "src/notes.txt", "other.py", "src/old/a.py", "src/.hidden.py"):
            (tmp_path / name).write_text("")
        (tmp_path / "src" / "settings.toml").write_text("")
        server.wait_log(r"Detected changes in src/settings.toml\. Reloading")
        (tmp_path / "src" / "new").mkdir()
        (tmp_path / "src" / "new" / "a.py").write_text("")
        server.wait_log(r"Detected changes in src/new/a.py\. Reloading")
        assert server.call()[0] == 200
        assert server.log().count("Detected changes") == 2


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with served(tmp_path, *OPTIONS, "--reload-dir", "nowhere") as server:
        assert server.ended() == 2
        assert re.search(r"spvn: error: --reload-dir: cannot watch files: .*nowhere", server.log())
