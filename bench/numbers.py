"""What is made of the numbers of several rounds."""

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["median", "percentile", "rounded"]

DIGITS = 4


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is no less than this share (0 to 1) of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rounded(value: float) -> float:
    """Return the value with as many digits as a measurement has."""
    if value == 0 or not math.isfinite(value):
        return value
    places = DIGITS - 1 - math.floor(math.log10(abs(value)))
    return round(value, max(0, places))
