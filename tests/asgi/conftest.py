from __future__ import annotations

import pytest

from .harness import Runner


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Runs a scenario on each of the event loops."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return Runner(request.param)
