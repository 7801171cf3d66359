"""How a range is chosen from a histogram: min-max, percentile, entropy, least squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from convkit.spec.options import CalibrationMethod

if TYPE_CHECKING:
    import numpy as np


class Spectrum(NamedTuple):
    """How a tensor's values are spread. Bin i counts those from (first + i)·width to (first + i + 1)·width."""

    low: float
    high: float
    """The smallest and the largest value, exactly."""
    width: float
    first: int
    counts: np.ndarray
    """int64; empty where every value was 0."""


def choose_range(spectrum: Spectrum, method: CalibrationMethod, *, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return (low, high) with low ≤ 0 ≤ high, low = -high where `symmetric`; see `RangeTable.choose`."""
    low, high = min(spectrum.low, 0.0), max(spectrum.high, 0.0)
    if method is not CalibrationMethod.MINMAX or levels < 2:
        raise NotImplementedError(method)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    return low, high
