"""The range with the least expected squared error of quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.quantize.spectrum import Spectrum
from convkit.quantize.window import cheapest_window

if TYPE_CHECKING:
    import numpy as np

_STEPS = 8


def least_error_range(spectrum: Spectrum, *, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range whose `levels` values lie nearest to what was seen: the least mean of (x - Q(x))²."""
    below, above = spectrum.sides()
    if symmetric:
        folded = spectrum.by_magnitude()
        moments = Moments(folded[:1] * 0, folded)
        _, end = cheapest_window(
            lambda _, ends: moments.error(ends, ends, levels, symmetric=True), 0.0, len(folded), steps=_STEPS
        )
        return -end * spectrum.width, end * spectrum.width
    moments = Moments(below, above)
    most_below = below.size if spectrum.low < 0 else 0
    most_above = above.size if spectrum.high > 0 else 0
    low, high = cheapest_window(
        lambda lows, highs: moments.error(lows, highs, levels, symmetric=False), most_below, most_above, steps=_STEPS
    )
    return -low * spectrum.width, high * spectrum.width


class Moments:
    """The integrals of p(x), x·p(x) and x²·p(x) from below up to any x, p being even within each bin.

    x is counted in bins. What lies in bin 0 is taken for 0, which every grid holds without an error, and left out.

    Args:
        below: counts of the bins 0, -1, -2, …
        above: counts of the bins 0, 1, 2, …
    """

    def __init__(self, below: np.ndarray, above: np.ndarray) -> None:
        import numpy as np

        self._start = -below.size
        mass = np.concatenate([below[:0:-1], [0], [0], above[1:], [0]]) / max(below.sum() + above.sum(), 1)
        edges = self._start + np.arange(mass.size + 1.0)
        self._mass, self._edges = mass, edges[:-1]
        parts = (mass, mass * np.diff(edges**2) / 2, mass * np.diff(edges**3) / 3)
        self._sums = [np.concatenate([[0.0], np.cumsum(part)[:-1]]) for part in parts]
        self._totals = [part.sum() for part in parts]

    def error(self, lows: np.ndarray, highs: np.ndarray, levels: int, *, symmetric: bool) -> np.ndarray:
        """Return the mean squared error of each range from -low to high, in squared bins."""
        import numpy as np

        scale = (lows + highs) / (levels - 1)
        zero = np.full(scale.shape, levels // 2) if symmetric else np.rint(lows / scale)
        values = (np.arange(levels) - zero[:, None]) * scale[:, None]
        limits = (values[:, 1:] + values[:, :-1]) / 2
        mass, first, second = (np.diff(sums, axis=1) for sums in self._until(limits))
        squares = second - 2 * values * first + values**2 * mass
        total: np.ndarray = squares.sum(axis=1)
        return total

    def _until(self, limits: np.ndarray) -> list[np.ndarray]:
        """Return the three integrals up to each limit, with one of nothing before and of everything behind."""
        import numpy as np

        inside = np.clip(limits, self._edges[0], self._edges[-1])
        cell = np.minimum((inside - self._start).astype(np.intp), self._mass.size - 1)
        edge, mass = self._edges[cell], self._mass[cell]
        partial = (inside - edge, (inside**2 - edge**2) / 2, (inside**3 - edge**3) / 3)
        found = []
        for sums, part, total in zip(self._sums, partial, self._totals, strict=True):
            ends = np.zeros((len(limits), 1))
            found.append(np.concatenate([ends, sums[cell] + mass * part, ends + total], axis=1))
        return found
