"""What is kept of a tensor as it passes by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convkit.quantize.histogram import Histogram

if TYPE_CHECKING:
    import numpy as np

COUNTED = 1 << 15
"""Values of one row of a tensor that a histogram needs at least.

At an odd distance they come from all channels and places of an image alike. 32 rows are then a million values, of which
10^-4, what a percentile cuts off, are a hundred. Counting is the most expensive part of calibration.
"""

_SHORT = 1 << 14
"""Values whose plain sum in float32, made in several lanes, is right to about 1e-6 of their magnitudes' sum."""


class NotFiniteError(ValueError):
    """A tensor holds NaN or infinity."""


class Channels:
    """The largest magnitude and the sum of each channel."""

    def __init__(self, low: np.ndarray, high: np.ndarray, total: np.ndarray, count: int) -> None:
        import numpy as np

        self.max_abs = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
        self.total = total
        """float64"""
        self.count = count
        """Values of each channel."""

    def merge(self, other: Channels) -> None:
        """Take in what was seen of the same channels elsewhere."""
        import numpy as np

        np.maximum(self.max_abs, other.max_abs, out=self.max_abs)
        self.total += other.total
        self.count += other.count


class Statistics:
    """A histogram, and where an axis of channels is given, their extremes and means."""

    def __init__(self, histogram: Histogram, channels: Channels | None) -> None:
        self.histogram = histogram
        self.channels = channels

    @classmethod
    def of(cls, array: np.ndarray, axis: int | None, *, rows: int = 1, rectified: bool = False) -> Statistics:
        """Look at one array of floats. Its extremes and means are exact; of a large one a part goes into the histogram.

        Args:
            array: float16, float32 or float64, C-contiguous.
            axis: 1 or the last one (-1) where channels are wanted; an array of too few dimensions has none.
            rows: of the data; where they are the first dimension, each is counted in the same way.
            rectified: no value is below 0. Once a 0 is found, the smallest value need not be looked for.

        Raises:
            NotFiniteError: the array holds NaN or infinity.
        """
        import numpy as np

        if array.dtype == np.float16:
            array = array.astype(np.float32)
        if not array.size:
            return cls(Histogram(), None)
        part = _spread(array, rows)
        from_zero = rectified and float(part.min()) == 0.0
        if axis is None or array.ndim < 2:
            low, high, channels = 0.0 if from_zero else float(array.min()), float(array.max()), None
        else:
            low, high, channels = _by_channel(array, axis, from_zero)
        _require_finite(low, high)
        return cls(Histogram.of(part, low, high), channels)

    def merge(self, other: Statistics) -> None:
        """Take in what was seen of the same tensor in another portion of the data."""
        self.histogram.merge(other.histogram)
        if self.channels is not None and other.channels is not None:
            if self.channels.max_abs.shape == other.channels.max_abs.shape:
                self.channels.merge(other.channels)
            else:  # a dimension that is not fixed is none of channels
                self.channels = None


def _spread(array: np.ndarray, rows: int) -> np.ndarray:
    """Return every k-th value of each row, k odd, where a row has twice `COUNTED` values or more; else all of them."""
    import numpy as np

    if array.ndim == 0 or array.shape[0] != rows:
        return array
    step = array.size // rows // COUNTED
    return array if step < 2 else np.ascontiguousarray(array.reshape(rows, -1)[:, :: step - 1 + step % 2])


def _by_channel(array: np.ndarray, axis: int, from_zero: bool) -> tuple[float, float, Channels]:
    """Return the smallest value, 0 if that is known, and the largest; and what there is to say of each channel."""
    import numpy as np

    if axis == -1:
        rows = array.reshape(-1, array.shape[-1])
        highs = rows.max(axis=0)
        lows = np.zeros_like(highs) if from_zero else rows.min(axis=0)
        total = rows.sum(axis=0, dtype=np.float64)
    else:
        planes = array.reshape(*array.shape[:2], -1)
        highs = _of_planes(np.maximum, planes).max(axis=0)
        lows = np.zeros_like(highs) if from_zero else _of_planes(np.minimum, planes).min(axis=0)
        total = _sums(planes).sum(axis=0, dtype=np.float64)
    channels = Channels(lows, highs, total, array.size // array.shape[axis])
    return float(lows.min()), float(highs.max()), channels


def _of_planes(extreme: np.ufunc, planes: np.ndarray) -> np.ndarray:
    """Return `extreme.reduce(planes, axis=2)`, which `reduceat` finds in half the time where planes are small."""
    import numpy as np

    length = planes.shape[2]
    if length == 1:
        return planes[:, :, 0]
    found: np.ndarray = extreme.reduceat(planes.reshape(-1), np.arange(0, planes.size, length))
    return found.reshape(planes.shape[:2])


def _sums(planes: np.ndarray) -> np.ndarray:
    """Return the sums along the last axis; those of short ones without the pairs that long ones need to be exact."""
    import numpy as np

    found: np.ndarray = np.einsum("ijk->ij", planes) if planes.shape[2] <= _SHORT else planes.sum(axis=2)
    return found


def _require_finite(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotFiniteError
