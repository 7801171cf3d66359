"""Latencies in figures: percentiles, bootstrap intervals whose resampling unit is the round, and what is faster.

Calls of one round share what the machine did meanwhile (frequency, neighbours, caches) and are no independent
draws; rounds, measured in alternation and some time apart, nearly are. So rounds are drawn with replacement, each
with all its calls (the cluster bootstrap: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993,
chapters 8 and 13).

The percentile interval of n rounds is too narrow by about sqrt((n - 1) / n), and by the normal's tails against
Student's t. Both are mended by its levels: instead of a/2 and 1 - a/2, Phi(-c) and Phi(c) of the bootstrap
distribution are taken, c = sqrt(n / (n - 1)) * t(1 - a/2, n - 1) (the expanded percentile interval: T. Hesterberg,
What Teachers Should Know About the Bootstrap, The American Statistician 69(4), 2015).

The same timings always give the same figures: the generator's seed is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from convkit.measure.latency import SMALLEST
from convkit.measure.ratio import LEVEL, MIN_ROUNDS, Ratio, ratio
from convkit.measure.waiting import waited, widened
from convkit.pipeline.stopwatch import Timing
from convkit.report.latency import Comparison, Finding, Latency

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

RESAMPLES = 5000

_SEED = 20260101
_GRID = 4096  # candidates for a resampled median: more are thinned, to a resolution far below the interval's width
_NS_PER_MS = 1e6


def latency(rounds: Sequence[Timing], *, batch: int) -> Latency:
    """Summarize the latencies of all calls of all rounds, in ms.

    A percentile q is the smallest latency that at least q % of the calls did not exceed.

    Args:
        rounds: at least one, each with at least one call.
        batch: samples in one call.
    """
    import numpy as np

    calls = _all_calls(rounds)
    p50, p90, p99 = np.percentile(calls, (50, 90, 99), method="inverted_cdf") / _NS_PER_MS
    low, high = median_interval(rounds)
    return Latency(
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        mean_ms=float(calls.mean()) / _NS_PER_MS,
        low_ms=low,
        high_ms=high,
        calls=len(calls),
        rounds=len(rounds),
        batch=batch,
        waited=waited(rounds),
    )


def throughput(rounds: Sequence[Timing], *, batch: int) -> float:
    """Return samples per second of one caller, call after call: batch * calls / time spent in calls."""
    calls = _all_calls(rounds)
    return batch * len(calls) / (float(calls.sum()) / 1e9)


def median_interval(rounds: Sequence[Timing], *, level: float = LEVEL) -> tuple[float, float]:
    """Return the bootstrap interval of the median over all calls, in ms. One round gives no width."""
    medians = _resampled_medians(rounds, _draw(len(rounds))) / _NS_PER_MS
    return _expanded_interval(medians, len(rounds), level)


def compare(
    before: Sequence[Timing], after: Sequence[Timing], *, labels: tuple[str, str], smallest: float = SMALLEST
) -> Comparison:
    """Compare two contenders that were measured in alternation, round i of one beside round i of the other.

    A difference is found where the whole interval of `ratio` lies beyond `smallest`, and none where the whole of it
    lies within. It is judged as wide as waiting for processors that others had makes it (`convkit.measure.waiting`),
    and told as it was measured.

    Args:
        before, after: the same number of rounds, each with at least one call.
        labels: of `before` and of `after`, as the report's subjects are called.
        smallest: the share from which on a difference counts.
    """
    found, before_waited, after_waited = ratio(before, after), waited(before), waited(after)
    return Comparison(
        before=labels[0],
        after=labels[1],
        speedup=found.value,
        low=found.low,
        high=found.high,
        rounds=found.rounds,
        finding=_finding(widened(found, before_waited, after_waited), smallest),
        smallest=smallest,
        before_waited=before_waited,
        after_waited=after_waited,
    )


def _finding(found: Ratio, smallest: float) -> Finding:
    if found.rounds < MIN_ROUNDS:
        return Finding.INCONCLUSIVE
    if found.low > 1 + smallest:
        return Finding.FASTER
    if found.high < 1 / (1 + smallest):
        return Finding.SLOWER
    within = 1 / (1 + smallest) <= found.low and found.high <= 1 + smallest
    return Finding.SAME if within else Finding.INCONCLUSIVE


def smallest_difference(itself: Comparison | None) -> float:
    """Return the share from which on a difference counts: more than what a model differs by from itself.

    Args:
        itself: a model against itself, measured as if it were two; None where that was not done.
    """
    if itself is None or itself.rounds < MIN_ROUNDS or itself.low <= 1 <= itself.high:
        return SMALLEST
    return max(SMALLEST, math.exp(abs(math.log(itself.speedup))) - 1)


def _all_calls(rounds: Sequence[Timing]) -> Floats:
    import numpy as np

    return np.concatenate([np.asarray(timing.latencies_ns, dtype=np.float64) for timing in rounds])


def _draw(rounds: int) -> Integers:
    """Draw rounds with replacement: how often each one comes, as an array [RESAMPLES, rounds]."""
    import numpy as np

    return np.random.default_rng(_SEED).multinomial(rounds, [1 / rounds] * rounds, size=RESAMPLES)


def _resampled_medians(rounds: Sequence[Timing], times: Integers) -> Floats:
    """Return the median over all calls of each resample, in ns: where half of its calls are no longer.

    A median of pooled rounds lies between the least and the greatest median of a round, and is one of the calls
    there; it is found by bisection, for all resamples at once.
    """
    import numpy as np

    ordered = [np.sort(np.asarray(timing.latencies_ns, dtype=np.float64)) for timing in rounds]
    middles = [calls[(len(calls) - 1) // 2] for calls in ordered]
    pooled = np.unique(np.concatenate(ordered))
    candidates = pooled[(pooled >= min(middles)) & (pooled <= max(middles))]
    if len(candidates) > _GRID:
        candidates = candidates[np.linspace(0, len(candidates) - 1, _GRID).astype(int)]
    not_longer = np.stack([np.searchsorted(calls, candidates, side="right") for calls in ordered])
    half = times @ np.array([len(calls) for calls in ordered]) / 2
    low = np.zeros(len(times), dtype=np.int64)
    high = np.full(len(times), len(candidates) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = (times * not_longer[:, middle].T).sum(axis=1) >= half
        high = np.where(enough, middle, high)
        low = np.where(enough, low, middle + 1)
    medians: Floats = candidates[low]
    return medians


def _expanded_interval(resampled: Floats, rounds: int, level: float) -> tuple[float, float]:
    import numpy as np

    if rounds < 2:
        return float(resampled[0]), float(resampled[0])
    reach = math.sqrt(rounds / (rounds - 1)) * _student(1 - (1 - level) / 2, rounds - 1)
    tail = NormalDist().cdf(-reach)
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return float(low), float(high)


def _student(probability: float, freedom: int) -> float:
    """Return Student's quantile for a probability above one half, by bisection on its distribution function."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < probability else (low, middle)
    return high


def _student_cdf(t: float, freedom: int) -> float:
    """Return Student's distribution function for a whole number of degrees of freedom.

    M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (1.0, 0.0) if freedom % 2 == 0 else (cosine, 0.0)
    for step in range(1 + freedom % 2, freedom, 2):
        total += term
        term *= cosine * cosine * step / (step + 1)
    if freedom % 2 == 0:
        return 0.5 + sine * total / 2
    return 0.5 + (angle + sine * total) / math.pi
