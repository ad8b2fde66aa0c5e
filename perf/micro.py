#!/usr/bin/env python3
"""Times each stage of a call on its own: `python perf/micro.py --help`. See spvnperf/micro.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from spvnperf.micro import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
