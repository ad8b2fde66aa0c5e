"""Builds spvn's two native parts; everything else is in pyproject.toml.

- spvn._core._core: the Go core, a c-shared library with its Python bindings (gosrc/core);
- spvn._asgi: the C extension (python/_asgi).

SPVN_ASAN=1 builds the C extension with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_build"))

import toolchain  # noqa: E402

CORE = "spvn._core._core"
C_FLAGS = ["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-missing-field-initializers"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g", "-O1"]


class BuildExtensions(build_ext):
    """build_ext, with Go for the core."""

    def run(self) -> None:
        try:
            toolchain.check()
            use_compiler(toolchain.c_compiler())
            super().run()
        except toolchain.BuildProblem as problem:
            raise SystemExit(f"error: {problem}") from None

    def build_extension(self, ext: Extension) -> None:
        if ext.name == CORE:
            self.build_core(Path(self.get_ext_fullpath(ext.name)))
        else:
            super().build_extension(ext)

    def build_core(self, target: Path) -> None:
        """Runs `go build`. Go's own cache knows what has changed, so it is run every time."""
        command = [toolchain.go(), "build", "-buildmode=c-shared", "-tags=python", "-trimpath", "-buildvcs=false"]
        # Without a mode of our own a GOFLAGS=-mod=mod of the person's would win over vendor/.
        command.append("-mod=vendor" if (HERE / "vendor").is_dir() else "-mod=readonly")
        env = toolchain.go_environment()
        env["CC"] = toolchain.c_compiler()
        env["CGO_CFLAGS"] = join(["-O2", f"-I{toolchain.check_headers()}", *split(env.get("CGO_CFLAGS", ""))])
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            # Built beside the target and moved over it: a running server keeps the file that it has mapped.
            built = Path(scratch, target.name)
            exports = Path(scratch, "exports.map")
            exports.write_bytes((HERE / "gosrc/core/exports.map").read_bytes())
            version = f"-X spvn/gosrc/control.version={self.distribution.get_version()}"
            hidden = f"'-extldflags=-Wl,--version-script={exports} -Wl,--build-id=none'"
            command.append(f"-ldflags=-s -w -buildid= {version} {hidden}")
            command += ["-o", str(built), "./gosrc/core"]
            if self.distribution.verbose:
                print(join(command), flush=True)
            done = subprocess.run(command, cwd=HERE, env=env)
            if done.returncode:
                raise toolchain.BuildProblem(f"go build of spvn's core failed with exit code {done.returncode}")
            self.move_over(built, target)

    def move_over(self, built: Path, target: Path) -> None:
        aside = target.with_name(f".{target.name}.new")
        self.copy_file(str(built), str(aside), preserve_times=False)
        os.replace(aside, target)


class SourceDistribution(sdist):
    """sdist, with the core's dependencies in vendor/, so that it installs without a Go module proxy."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if os.path.isdir(os.path.join(base_dir, "vendor")):
            return  # made from an sdist, whose files are all there
        command = [toolchain.go(), "mod", "vendor", "-o", os.path.abspath(os.path.join(base_dir, "vendor"))]
        print(join(command), flush=True)
        subprocess.run(command, cwd=HERE, env=toolchain.go_environment(), check=True)


def use_compiler(compiler: str) -> None:
    """Has setuptools take this compiler where the one that Python was built with is not there."""
    own = split(sysconfig.get_config_var("CC") or "")
    if "CC" not in os.environ and not (own and shutil.which(own[0])):
        os.environ.update(CC=compiler, LDSHARED=f"{compiler} -shared")


def split(flags: str) -> list[str]:
    return shlex.split(flags)


def join(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def asgi() -> Extension:
    flags = C_FLAGS + (SANITIZERS if os.environ.get("SPVN_ASAN") else [])
    return Extension(
        "spvn._asgi",
        sources=sorted(str(f.relative_to(HERE)) for f in (HERE / "python/_asgi").glob("*.c")),
        depends=sorted(str(f.relative_to(HERE)) for f in (HERE / "python/_asgi").glob("*.h")),
        extra_compile_args=flags,
        extra_link_args=SANITIZERS[:1] if os.environ.get("SPVN_ASAN") else [],
    )


# The sources of the core are go's business: see build_core.
setup(
    ext_modules=[asgi(), Extension(CORE, sources=[])],
    cmdclass={"build_ext": BuildExtensions, "sdist": SourceDistribution},
)
