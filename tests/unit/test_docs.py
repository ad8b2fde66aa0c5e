from __future__ import annotations

from pathlib import Path

from spvn._docs import render


def test_the_page_of_options_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "options.md"
    assert page.read_text() == render(), "python -m spvn._docs > docs/options.md"
