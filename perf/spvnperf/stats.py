"""Medians and spread over rounds."""

from __future__ import annotations

import statistics
from typing import Optional, Sequence


def median(values: Sequence[float]) -> Optional[float]:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


def spread(values: Sequence[float]) -> Optional[float]:
    """(max - min) / median: 0.05 means that the rounds lie within 5 % of each other. None for fewer than two values or a median of 0."""
    middle = median(values)
    if len(values) < 2 or not middle:
        return None
    return (max(values) - min(values)) / middle
