"""Histograms that do not care in which order, or in how many portions, their values come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np

BINS = 8192
"""Bins for each sign. The largest magnitude lies in the upper half of them, so that at least 4096 are in use."""
_FINEST = -126
"""The finest grid is 2^-126 wide: the inverse is still a float32."""
_PORTION = 1 << 16
"""Values that are sorted into bins at a time: with their indices they stay in a core's second-level cache."""


class Histogram:
    """How often each magnitude was seen, for each sign, on a grid that widens as larger ones come.

    Bins are 2^k wide, and bin i counts the values x with trunc(x / 2^k) = i: those of bin 0 lie on both sides of zero.
    k depends only on the largest magnitude seen. Where that grows past the last bin, bins 2i and 2i + 1 become bin i;
    because trunc(trunc(x / 2^k) / 2) = trunc(x / 2^(k + 1)), this is what the wider grid would have counted from the
    start. So the same values give the same histogram, bit for bit, in any order and in any portions.
    """

    def __init__(self) -> None:
        self.count = 0
        """Values seen."""
        self.low = math.inf
        self.high = -math.inf
        """The smallest and the largest of them, exactly."""
        self.exponent: int | None = None
        """k; None as long as every value was 0."""
        self._first = 0
        self._counts: np.ndarray | None = None
        """int64, of the bins from `_first` (0 or less) to the last in use. None as long as every value was 0."""

    @classmethod
    def of(cls, values: np.ndarray, low: float, high: float) -> Self:
        """Count the values of an array of floats, C-contiguous, of any shape.

        Args:
            values: at least one; all finite.
            low: the smallest value.
            high: the largest value.
        """
        new = cls()
        new.count, new.low, new.high = values.size, low + 0.0, high + 0.0  # -0 becomes 0
        new.exponent = _exponent(max(-low, high))
        if new.exponent is not None:
            new._first, new._counts = _counted(values.reshape(-1), new.exponent, low, high)
        return new

    def merge(self, other: Histogram) -> None:
        """Take in what another histogram has seen. The other one stays as it was."""
        if self._counts is not None or other._counts is not None:
            exponent = max(known for known in (self.exponent, other.exponent) if known is not None)
            self._first, self._counts = _sum(self._widened(exponent), other._widened(exponent))
            self.exponent = exponent
        self.count += other.count
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def bins(self) -> tuple[int, np.ndarray]:
        """Return the index of the first bin in use, or 0 if that is less, and the counts (int64) from there on.

        No bins where every value was 0.
        """
        import numpy as np

        return (0, np.zeros(0, np.int64)) if self._counts is None else (self._first, self._counts)

    def _widened(self, exponent: int) -> tuple[int, np.ndarray]:
        """Return the first bin and the counts on a grid of 2^exponent, at least as wide as the own one."""
        import numpy as np

        if self._counts is None or self.exponent is None:
            return 0, np.array([self.count], np.int64)
        if exponent == self.exponent:
            return self._first, self._counts
        indices = np.arange(self._first, self._first + self._counts.size)
        indices = np.sign(indices) * (np.abs(indices) >> min(exponent - self.exponent, 62))
        counts = np.zeros(indices[-1] - indices[0] + 1, np.int64)
        np.add.at(counts, indices - indices[0], self._counts)
        return int(indices[0]), counts


def _sum(one: tuple[int, np.ndarray], other: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
    """Add the counts of the same grid; the first ones are overwritten where they have all the bins."""
    import numpy as np

    (first, counts), (others_first, more) = one, other
    start = min(first, others_first)
    end = max(first + counts.size, others_first + more.size)
    if (start, end) != (first, first + counts.size):
        wider = np.zeros(end - start, np.int64)
        wider[first - start : first - start + counts.size] = counts
        counts = wider
    counts[others_first - start : others_first - start + more.size] += more
    return start, counts


def _exponent(magnitude: float) -> int | None:
    """Return the k of the finest grid whose bins reach a magnitude; None for 0."""
    if not magnitude:
        return None
    _, exponent = math.frexp(magnitude)  # magnitude < 2^exponent
    return max(exponent - BINS.bit_length() + 1, _FINEST)


def _counted(values: np.ndarray, exponent: int, low: float, high: float) -> tuple[int, np.ndarray]:
    """Count flat values on a grid of 2^exponent: a product with a power of two keeps every digit that counts."""
    import numpy as np

    dtype = np.float64 if values.dtype == np.float64 else np.float32
    factor = dtype(2.0**-exponent)
    offset = int(max(-low, 0.0) * 2.0**-exponent)
    bins = offset + int(max(high, 0.0) * 2.0**-exponent) + 1
    counts: np.ndarray | None = None
    scaled = np.empty(min(_PORTION, values.size), dtype)
    indices = np.empty(scaled.size, np.int32)  # processors make 32 bits of a float faster than 64
    for start in range(0, values.size, _PORTION):
        portion = values[start : start + _PORTION]
        part, index = scaled[: portion.size], indices[: portion.size]
        np.multiply(portion, factor, out=part, dtype=dtype)
        np.copyto(index, part, casting="unsafe")  # truncates
        if offset:
            index += offset
        found = np.bincount(index, minlength=bins)
        counts = found if counts is None else np.add(counts, found, out=counts)
    return -offset, np.zeros(bins, np.int64) if counts is None else counts
