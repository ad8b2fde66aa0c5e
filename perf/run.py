#!/usr/bin/env python3
"""Measures spvn beside its rivals: `python perf/run.py --help`. The harness is the package spvnperf."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from spvnperf.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
