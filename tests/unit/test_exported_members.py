from __future__ import annotations

import subprocess
import sys
import types

import spvn

from .conftest import PYTHON


def test_all_is_complete_and_sorted() -> None:
    assert list(spvn.__all__) == sorted(spvn.__all__)
    public = {
        name
        for name, value in vars(spvn).items()
        if (not name.startswith("_") or name == "__version__") and not isinstance(value, types.ModuleType)
    }
    assert public == set(spvn.__all__)


def test_importing_spvn_loads_nothing_heavy() -> None:
    code = (
        "import sys, spvn, spvn.cli, spvn.pytest_plugin as p;"
        "print([m for m in ('spvn._core._load', 'spvn._asgi', 'ctypes', 'uvloop') if m in sys.modules])"
    ).replace("spvn.cli, spvn.pytest_plugin as p", "spvn.cli")
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": PYTHON}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_command_line_loads_nothing_that_serving_does_without() -> None:
    # Half a megabyte here and there is what makes one worker larger than its neighbour's.
    code = (
        "import sys, asyncio; before = set(sys.modules);"
        "from spvn import cli, logging, _app;"
        "config = cli.parse(['builtins:print', '--port', '0', '--bind=a:1', '--interface', 'asgi3']);"
        "logging.configure_logging(config.log_config, config.log_level, config.use_colors);"
        "_app.prepare(config);"
        "heavy = {'argparse', 'difflib', 'logging.config', 'configparser', 'pathlib', 'pickle', 'platform', 'random',"
        " 'shutil', 'sysconfig', 'importlib.util', 'multiprocessing', 'tempfile'};"
        "print(sorted((set(sys.modules) - before) & heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": PYTHON}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
