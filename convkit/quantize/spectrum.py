"""A histogram as the choice of a range sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Spectrum(NamedTuple):
    """How a tensor's values are spread: those with trunc(x / width) = first + i are `counts[i]`.

    Bin 0, from -width to width, is always there where any is.
    """

    low: float
    high: float
    """The smallest and the largest value, exactly."""
    width: float
    first: int
    counts: np.ndarray
    """int64; empty where every value was 0."""

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the counts of the bins 0, -1, -2, … and 0, 1, 2, …; those of bin 0 are in the second only."""
        import numpy as np

        zero = -self.first
        return np.concatenate([np.zeros(1, np.int64), self.counts[:zero][::-1]]), self.counts[zero:]

    def by_magnitude(self) -> np.ndarray:
        """Return the counts of |x|, from bin 0."""
        import numpy as np

        below, above = self.sides()
        folded = np.zeros(max(below.size, above.size), np.int64)
        folded[: above.size] = above
        folded[: below.size] += below
        return folded
