"""setuptools' build backend, plus two things (PEP 517):

- Go is a build requirement only where the machine has none that is new enough;
- what makes a build impossible is said before anything is downloaded, in one line.
"""

from __future__ import annotations

from typing import Any, Optional

import toolchain
from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Optional[dict[str, Any]]


def _checked() -> None:
    try:
        toolchain.check()
    except toolchain.BuildProblem as problem:
        raise SystemExit(f"error: {problem}") from None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    _checked()
    return build_meta.get_requires_for_build_wheel(config_settings) + toolchain.go_package_requirement()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    _checked()
    return build_meta.get_requires_for_build_editable(config_settings) + toolchain.go_package_requirement()


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    # `go mod vendor` puts the core's dependencies into the sdist, so that it builds without a module proxy.
    return build_meta.get_requires_for_build_sdist(config_settings) + toolchain.go_package_requirement()
