"""Medians and spread over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


def spread(values: Sequence[float]) -> float | None:
    """(max - min) / median: 0.05 means that the rounds lie within 5 % of each other.

    None for fewer than two values or a median of 0.
    """
    middle = median(values)
    if len(values) < 2 or not middle:
        return None
    return (max(values) - min(values)) / middle
