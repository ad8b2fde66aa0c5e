"""An sdist that installs by itself, and a wheel with what it needs and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The project's files as a clone has them, in a directory with a space in its name."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a clone: git does not list its files")
    copy = tmp_path_factory.mktemp("a clone")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def sdist(tree):
    if shutil.which("go") is None:
        pytest.skip("there is no go on PATH: type `make test`, which brings one")
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)])
    (path,) = (tree / "dist").glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the sdist, with no Go module to be had from anywhere else."""
    directory = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = directory.iterdir()
    env = dict(os.environ, GOPROXY="off", GOMODCACHE=str(directory / "modules"), GOFLAGS="-mod=mod")
    run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(source)],
        env=env,
    )
    (path,) = directory.glob("*.whl")
    return path


def test_sdist_holds_what_a_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    for name in ("go.mod", "_build/backend.py", "gosrc/core/core.c", "python/_asgi/schema.h", "vendor/modules.txt"):
        assert name in names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_wheel_is_for_this_python_and_platform(wheel):
    version = "".join(map(str, sys.version_info[:2]))
    assert f"-cp{version}-cp{version}" in wheel.name
    assert "-linux_" in wheel.name


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in ("py.typed", f"_asgi{SUFFIX}", f"_core/_core{SUFFIX}", "_core/_core.pyi", "_core/control.py"):
        assert f"spvn/{name}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"spvn"}
    assert not [name for name in names if name.endswith((".c", ".h", ".go", ".pyc"))]


def test_wheel_needs_no_other_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required == []


def test_libraries_show_only_their_way_in(wheel, tmp_path):
    """And need only the C library: Go's runtime stays to itself, libpython is the interpreter's business."""
    for tool in ("nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not there: install binutils")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    for name, symbol in ((f"_core/_core{SUFFIX}", "PyInit__core"), (f"_asgi{SUFFIX}", "PyInit__asgi")):
        library = str(tmp_path / "spvn" / name)
        shown = subprocess.run(["nm", "-D", "--defined-only", library], stdout=subprocess.PIPE, text=True, check=True)
        assert [line.split()[-1] for line in shown.stdout.splitlines()] == [symbol], name
        dynamic = subprocess.run(["readelf", "-d", library], stdout=subprocess.PIPE, text=True, check=True).stdout
        needed = {line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line}
        assert needed <= {"libc.so.6", "libpthread.so.0"}, name
        if name.startswith("_core"):  # the C extension is linked with this Python's own flags
            assert "RUNPATH" not in dynamic and "RPATH" not in dynamic
