from __future__ import annotations

import os
from pathlib import Path

import pytest

from spvn.envfile import load_env_file, parse


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", {}),
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("# c\n\n  A = 1  # c\nB=x#y\n", {"A": "1", "B": "x#y"}),
        ("export A=1\nexport B\n", {"A": "1"}),
        ("A=\nB=''\n", {"A": "", "B": ""}),
        ("A= # nothing\n", {"A": ""}),
        ("A='x # y ${H}' # c\n", {"A": "x # y ${H}"}),
        ('A="x\\ny\\t\\"z\\" ${H}"\n', {"A": 'x\ny\t"z" /srv'}),
        ("A='it\\'s'\n", {"A": "it's"}),
        ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
        ("A=${H}/x\nB=${A}y\nC=${NO:-d}${NO}\n", {"A": "/srv/x", "B": "/srv/xy", "C": "d"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=a=b c\n", {"A": "a=b c"}),
    ],
)
def test_parse(text: str, want: dict[str, str]) -> None:
    assert parse(text, {"H": "/srv"}) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\n%%\n", "line 2 is not NAME=VALUE"),
        ("A b\n", "line 1 is not NAME=VALUE"),
        ("\nA='x\n", "line 2 opens a quote that nothing closes"),
        ("A='x' y\n", "line 1 goes on after its closing quote"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text, {})


def test_what_is_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPVN_TEST_A", "old")
    monkeypatch.setenv("SPVN_TEST_B", "")
    monkeypatch.delenv("SPVN_TEST_B")
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbfSPVN_TEST_A=new\nSPVN_TEST_B=new\n")
    load_env_file(file)
    assert (os.environ["SPVN_TEST_A"], os.environ["SPVN_TEST_B"]) == ("old", "new")
