# ruff: noqa: E501  tables of cases
from __future__ import annotations

import json
import os

import pytest

from spvn import AddressError, ConfigError, SpvnError, core

from . import fakes


def test_addresses_and_descriptors() -> None:
    functions = fakes.FakeFunctions()
    made = core.Core(functions)
    started = made.start({"host": "127.0.0.1", "port": 0})
    assert started.addresses == (core.Address("tcp", "http://127.0.0.1:49152", "127.0.0.1", 49152),)
    descriptors = made.add_worker(started.server, {})
    assert descriptors.death == -1
    assert descriptors.all() == [descriptors.memfd, descriptors.bell, *descriptors.loop_bells]
    for fd in [*descriptors.all(), started.events_fd]:
        os.close(fd)
    assert made.version() == "0.2.0"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ({"kind": "address", "option": "--port", "value": "80", "message": "--port 80: in use"}, AddressError, "--port 80: in use"),
        ({"kind": "option", "option": "backlog", "value": "x", "message": "too many"}, ConfigError, "--backlog: too many"),
        ({"kind": "option", "option": "--fd", "value": "x", "message": "--fd: bad"}, ConfigError, "--fd: bad"),
        ({"kind": "start", "option": "", "value": "", "message": "no memory"}, SpvnError, "no memory"),
        ("broken", SpvnError, 'the core did not start: "broken"'),
    ],
)  # fmt: skip
def test_errors_of_start(text: object, kind: type[SpvnError], message: str) -> None:
    with pytest.raises(SpvnError) as caught:
        core.Core(fakes.FakeFunctions(start_error=json.dumps(text))).start({"host": "", "port": 1})
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_on_musl_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise ImportError("initial-exec TLS")

    import spvn

    monkeypatch.setattr(spvn, "_core", Broken(), raising=False)
    monkeypatch.setitem(core.__dict__, "_is_musl", lambda: True)
    with pytest.raises(ImportError, match="musl cannot load such libraries"):
        core.load()
    monkeypatch.setitem(core.__dict__, "_is_musl", lambda: False)
    with pytest.raises(ImportError, match="initial-exec"):
        core.load()
