"""How a range is chosen from a histogram: min-max, percentile, entropy, least squared error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convkit.quantize.divergence import least_divergent_range
from convkit.quantize.spectrum import Spectrum
from convkit.quantize.squared_error import least_error_range
from convkit.spec.options import CalibrationMethod

if TYPE_CHECKING:
    import numpy as np

PERCENTILE = 0.9999
"""The share of a tensor's values that `percentile` keeps in range.

Wu et al., "Integer Quantization for Deep Learning Inference" (2020), compare 99.9 to 99.9999 %. A larger share is one
that a few hundred samples cannot tell: 10^-4 of a late layer's output is a handful of values for each image.
"""


def choose_range(spectrum: Spectrum, method: CalibrationMethod, *, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return (low, high) with low ≤ 0 ≤ high, low = -high where `symmetric`; see `RangeTable.choose`."""
    if not spectrum.counts.size:
        return 0.0, 0.0
    match method:
        case CalibrationMethod.MINMAX:
            low, high = spectrum.low, spectrum.high
        case CalibrationMethod.PERCENTILE:
            low, high = percentile_range(spectrum, PERCENTILE, symmetric=symmetric)
        case CalibrationMethod.ENTROPY:
            low, high = least_divergent_range(spectrum, levels=levels, symmetric=symmetric)
        case CalibrationMethod.MSE:
            low, high = least_error_range(spectrum, levels=levels, symmetric=symmetric)
    low, high = max(min(low, 0.0), min(spectrum.low, 0.0)), min(max(high, 0.0), max(spectrum.high, 0.0))
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    return low, high


def percentile_range(spectrum: Spectrum, share: float, *, symmetric: bool) -> tuple[float, float]:
    """Return the narrowest bins' edges between which at least `share` of the values lie.

    Where `symmetric`, and where all values have one sign, what is cut off is cut off on one side; else half of it on
    each side.
    """
    total = int(spectrum.counts.sum())
    below, above = spectrum.sides()
    cut = math.floor(total * (1.0 - share))
    if symmetric:
        edge = _edge(spectrum.by_magnitude(), cut) * spectrum.width
        return -edge, edge
    if spectrum.low < 0 < spectrum.high:
        cut //= 2
    return -_edge(below, cut) * spectrum.width, _edge(above, cut) * spectrum.width


def _edge(counts: np.ndarray, cut: int) -> int:
    """Return the outer edge of the last bin that stays when up to `cut` values are taken away from the outside."""
    import numpy as np

    gone = np.cumsum(counts[::-1])
    return int(len(counts) - np.searchsorted(gone, cut, side="right"))
