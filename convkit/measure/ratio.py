"""How many times as fast one contender is as another, with an interval that takes no distribution for granted.

Both are measured in alternation. Of every round the logarithm of r(i) = median(before(i)) / median(after(i)) is taken:
what both sides of a round suffered cancels. The estimate is the median of all pairwise means of these logarithms, the
pairs of a round with itself included (J. L. Hodges, E. L. Lehmann, Estimates of Location Based on Rank Tests, The
Annals of Mathematical Statistics 34(2), 1963); the interval runs between two of these means, chosen by the exact
distribution of the signed-rank statistic (F. Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin
1(6), 1945).

Nothing but symmetry of the logarithms about the true one is assumed, which the alternation brings about; one round in
which a neighbour took the machine moves the result by a rank, and not by its size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.pipeline.stopwatch import Timing

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
"""Confidence of every interval."""
MIN_ROUNDS = 6
"""Fewer rounds are never conclusive: with five no interval of this kind holds the truth 95 times in 100."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast `after` is as `before`, and the interval of it."""

    value: float
    low: float
    high: float
    rounds: int

    @property
    def reach(self) -> float:
        """Return how far the interval reaches about its middle, as a share: 0.01 for plus or minus 1 %."""
        return math.sqrt(self.high / self.low) - 1


def ratio(before: Sequence[Timing], after: Sequence[Timing]) -> Ratio:
    """Compare two contenders, round i of one beside round i of the other.

    Args:
        before, after: the same number of rounds, at least one, each with at least one call.
    """
    import numpy as np

    pairs = zip(before, after, strict=True)
    logs = np.array([math.log(_median(one) / _median(other)) for one, other in pairs])
    first, second = np.triu_indices(len(logs))
    means = np.sort((logs[first] + logs[second]) / 2)
    below, share = _ends(len(logs))
    low, high = _between(means, below, share)
    return Ratio(value=math.exp(float(np.median(means))), low=math.exp(low), high=math.exp(high), rounds=len(logs))


def _median(timing: Timing) -> float:
    import numpy as np

    return float(np.median(timing.latencies_ns))


def _between(means: np.ndarray[Any, Any], below: int, share: float) -> tuple[float, float]:
    """Return the interval's ends: from the mean with `below` smaller ones, `share` of the way to the next one."""
    inner = min(below + 1, (len(means) - 1) // 2)
    low = means[below] + share * (means[inner] - means[below])
    high = means[-1 - below] + share * (means[-1 - inner] - means[-1 - below])
    return float(low), float(high)


@functools.cache
def _ends(rounds: int) -> tuple[int, float]:
    """Return how many pairwise means lie outside the interval at either side, and how far to go on to the next one.

    The interval that leaves k means out at either side holds the truth with the odds 1 - 2 P(W <= k), W the signed-rank
    statistic of so many rounds. Between the two that LEVEL lies between, the ends are interpolated
    (T. P. Hettmansperger, S. J. Sheather, Confidence Intervals Based on Interpolated Order Statistics, Statistics &
    Probability Letters 4(2), 1986, there for the sign test).
    """
    chances = _signed_rank(rounds)
    tail, outside, below = (1 - LEVEL) / 2, chances[0], 0
    if outside >= tail:
        return 0, 0.0
    while outside + chances[below + 1] < tail:
        below += 1
        outside += chances[below]
    return below, (tail - outside) / chances[below + 1]


def _signed_rank(rounds: int) -> list[float]:
    """Return the distribution of the sum of those of the ranks 1 to `rounds` that have a plus, each with even odds."""
    chances = [1.0]
    for rank in range(1, rounds + 1):
        longer = [0.0] * (len(chances) + rank)
        for total, chance in enumerate(chances):
            longer[total] += chance / 2
            longer[total + rank] += chance / 2
        chances = longer
    return chances
