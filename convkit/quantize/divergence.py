"""The range whose quantized distribution diverges least from the distribution that was seen.

Szymon Migacz, "8-bit Inference with TensorRT" (GPU Technology Conference 2017): a threshold is judged by the
Kullback-Leibler divergence of the clipped histogram, what lies outside counted in the outermost bins, from the same
histogram merged into as many groups as there are levels, each group's count spread over its bins that are not empty.
There it is done for magnitudes; here also for ranges with two ends, and one-sided tensors have all levels to one side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.quantize.spectrum import Spectrum
from convkit.quantize.window import cheapest_window

if TYPE_CHECKING:
    import numpy as np

_BINS = 4096
"""Most bins on a side; at least half as many are in use. More would judge the noise of few samples."""
_STEPS = 16


def least_divergent_range(spectrum: Spectrum, *, levels: int, symmetric: bool) -> tuple[float, float]:
    """Return the range with the least divergence; where `symmetric`, half of the levels are for magnitudes."""
    if symmetric:
        below, above = spectrum.counts[:0], spectrum.by_magnitude()
        levels //= 2
    else:
        below, above = spectrum.sides()
    width = spectrum.width
    while max(below.size, above.size) > _BINS:
        below, above = _paired(below), _paired(above)
        width *= 2
    divergence = Divergence(below if spectrum.low < 0 and not symmetric else below[:0], above, levels)
    low, high = cheapest_window(divergence.of, divergence.below, divergence.above, steps=_STEPS)
    low, high = round(low), round(high)
    return (-high * width, high * width) if symmetric else (-low * width, high * width)


def _paired(counts: np.ndarray) -> np.ndarray:
    """Merge the bins 2i and 2i + 1."""
    import numpy as np

    paired: np.ndarray = np.append(counts, np.zeros(counts.size % 2, counts.dtype)).reshape(-1, 2).sum(axis=1)
    return paired


class Divergence:
    """The divergence of every range, from running sums: each range costs as many operations as there are levels.

    The bins next to zero get the count of their neighbours: a rectifier's zeros, which every scale holds exactly, would
    else weigh more than all other values together.

    Args:
        below: counts of the bins 0, -1, -2, …; empty where there are none.
        above: counts of the bins 0, 1, 2, …
        levels: groups that a range is merged into.
    """

    def __init__(self, below: np.ndarray, above: np.ndarray, levels: int) -> None:
        import numpy as np

        self.below, self.above = below.size, above.size
        sides = [np.concatenate([side[1:2], side[1:]]) if side.size > 1 else side for side in (below, above)]
        self._counts = np.concatenate([sides[0][::-1], sides[1]]).astype(np.float64)
        self._levels = levels
        self._sum = _running(self._counts)
        self._filled = _running(self._counts > 0)
        self._log = _running(_x_log_x(self._counts))

    def of(self, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
        """Return the divergence, in nats, of each range from -low to high, rounded to whole bins.

        A group that holds nothing but what lies outside counts as one value: the divergence would else be infinite, and
        every range that ends where nothing lies worse than any other. Infinite where there are fewer bins than levels.
        """
        import numpy as np

        start = self.below - np.rint(lows).astype(np.intp)
        end = self.below + np.rint(highs).astype(np.intp)
        steps = np.arange(self._levels + 1)
        edges = start[:, None] + (end - start)[:, None] * steps // self._levels
        quantized = np.diff(self._sum[edges], axis=1)
        filled = np.diff(self._filled[edges], axis=1)
        counted = quantized.copy()
        logs = self._log[end] - self._log[start]
        last = np.maximum(end - 1, 0)
        for cell, group, outside in ((start, 0, self._sum[start]), (last, -1, self._sum[-1] - self._sum[end])):
            inside = self._counts[cell]
            counted[:, group] += outside
            filled[:, group] += (inside == 0) & (outside > 0)
            logs += _x_log_x(inside + outside) - _x_log_x(inside)
        quantized = np.where(counted > 0, np.maximum(quantized, 1.0), 0.0)
        spread = (counted * np.log(np.maximum(quantized, 1.0) / np.maximum(filled, 1.0))).sum(axis=1)
        total = self._sum[-1]
        result: np.ndarray = (logs - spread) / total + np.log(quantized.sum(axis=1) / total)
        return np.where(end - start < self._levels, np.inf, result)


def _running(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(values: np.ndarray) -> np.ndarray:
    import numpy as np

    result: np.ndarray = values * np.log(np.maximum(values, 1.0))
    return result
