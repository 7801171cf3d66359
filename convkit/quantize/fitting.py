"""Weights rounded together, so that the errors of one take back those of the others.

Rounded one by one, weights add (Q - W) C (Q - W)ᵀ to the variance of what they sum, C being the covariance of what they
are multiplied with. Neighbouring points of an image are nearly alike, so that what one weight is rounded up by another
can be rounded down by. In order, each weight is rounded, and its error is taken back by those that are still to come,
as the inverse of C says (Frantar and Alistarh, "Optimal Brain Compression" (2022), section 4; "GPTQ" (2023), section
3), for several scales of the same channel; the best is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convkit.quantize.grid import SMALLEST, WEIGHT_STEPS, Rounded

if TYPE_CHECKING:
    from convkit.quantize.constants import Array
    from convkit.quantize.moments import Moment

TRIES = 512
"""Products in a sum times scales that are tried: of few weights some scale happens to fit all."""
MOST_SCALES = 24
SMALLEST_SCALE, LARGEST_SCALE = 0.88, 1.06
"""Scales that are tried, as parts of the one at which the largest weight becomes 127."""
FEW = 2.0
"""Points for each product in a sum at which covariances are half believed."""
PASSES = 2
"""At most so many rounds in which single weights are moved by a step, where that is better."""


class Fit:
    """How one product's weights are rounded: for the least error on what they are multiplied with."""

    def __init__(self, moment: Moment, step: float) -> None:
        """`step`: of the grid of the activation."""
        self._moment = moment
        self._step = step

    def suits(self, shape: tuple[int, ...], axis: int) -> bool:
        """Tell whether a weight of that shape, its output's channels along `axis`, is what the moments belong to."""
        groups, sums, _ = self._moment.covariance.shape
        return 0 not in shape and shape[axis] % groups == 0 and math.prod(shape) == shape[axis] * sums

    def round(self, weight: Array, axis: int, rounded: Rounded, *, at_least: Array | None) -> Rounded:
        """Round a weight again, whose nearest numbers are `rounded`; scales stay at least `at_least`."""
        import numpy as np

        metric = metric_of(self._moment.covariance, self._moment.points, self._step)
        groups = len(self._moment.covariance)
        limits = None if at_least is None else np.asarray(at_least, np.float32).reshape(groups, -1)
        nearest = Rounded(self._rows(rounded.values, axis), rounded.scale.reshape(groups, -1))
        found = fit_rounding(self._rows(weight, axis), metric, nearest, limits)
        flat = found.values.reshape(weight.shape[axis], -1)
        values = flat.reshape(weight.shape) if axis == 0 else np.ascontiguousarray(flat.T)
        return Rounded(values, found.scale.reshape(-1))

    def _rows(self, array: Array, axis: int) -> Array:
        """Return [groups, channels of a group, sums]."""
        groups, sums, _ = self._moment.covariance.shape
        rows: Array = (array if axis == 0 else array.T).reshape(groups, -1, sums)
        return rows


def metric_of(covariance: Array, points: int, step: float) -> Array:
    """Return the matrix by which errors of weights are weighed: what is multiplied with them, rounded itself.

    Args:
        covariance: [groups, sums, sums], float64.
        points: how many it was taken from; of few, what numbers have in common may be chance, and counts for less.
        step: of the grid that the activation is rounded to: its error is even within a step, step² / 12.
    """
    import numpy as np

    sums = covariance.shape[1]
    own = covariance * np.eye(sums)
    believed = points / (points + FEW * sums)
    metric: Array = believed * covariance + (1 - believed) * own + np.eye(sums) * step**2 / 12
    return metric


def fit_rounding(weight: Array, metric: Array, rounded: Rounded, at_least: Array | None = None) -> Rounded:
    """Round a weight again so that `error_of` is least, channel by channel; where nothing is better it stays.

    Args:
        weight: float32 [groups, channels of a group, sums].
        metric: float64 [groups, sums, sums], symmetric and positive definite.
        rounded: the same weight rounded to the nearest: values of that shape, scales [groups, channels of a group].
        at_least: the smallest scales, in that shape.
    """
    import numpy as np

    wanted = weight.astype(np.float64)
    best, scale = rounded.values.astype(np.float64), rounded.scale.astype(np.float64)
    least = error_of(wanted, best * scale[..., None], metric)
    inverse = np.linalg.inv(metric)
    count = min(max(TRIES // weight.shape[2], 1), MOST_SCALES)
    parts = np.linspace(SMALLEST_SCALE, LARGEST_SCALE, count) if count > 2 else np.ones(1)
    for part in (1.0, *parts):
        tried = (rounded.scale * np.float32(part)).astype(np.float32)
        tried = np.maximum(tried, np.float32(SMALLEST) if at_least is None else at_least)
        steps = wanted / tried[..., None].astype(np.float64)
        values = _polished(_in_order(steps, inverse), steps, metric)
        error = error_of(wanted, values * tried[..., None].astype(np.float64), metric)
        better = error < least
        least = np.where(better, error, least)
        scale = np.where(better, tried, scale)
        best = np.where(better[..., None], values, best)
    return Rounded(best.astype(rounded.values.dtype), scale.astype(np.float32))


def error_of(weight: Array, found: Array, metric: Array) -> Array:
    """Return what an error of the weights adds to the variance of each channel: [groups, channels], float64."""
    wrong = found - weight
    error: Array = ((wrong @ metric) * wrong).sum(axis=2)
    return error


def _in_order(steps: Array, inverse: Array) -> Array:
    """Round weights, counted in steps, from the first to the last; each error is taken back by those behind it."""
    import numpy as np

    open_, inverse = steps.copy(), inverse.copy()
    values = np.empty_like(open_)
    for at in range(steps.shape[2]):
        values[:, :, at] = np.clip(np.rint(open_[:, :, at]), -WEIGHT_STEPS, WEIGHT_STEPS)
        line = inverse[:, at, at + 1 :] / inverse[:, at, at, None]
        error = open_[:, :, at] - values[:, :, at]
        open_[:, :, at + 1 :] -= error[:, :, None] * line[:, None, :]
        inverse[:, at + 1 :, at + 1 :] -= inverse[:, at + 1 :, at, None] * line[:, None, :]
    return values


def _polished(values: Array, steps: Array, metric: Array) -> Array:
    """Move weights by a step, one after the other, where the error becomes less by it."""
    import numpy as np

    slope = (values - steps) @ metric  # half of the error's
    for _ in range(PASSES):
        moved = False
        for at in range(steps.shape[2]):
            own = metric[:, at, at, None]
            move = -np.rint(slope[:, :, at] / own)
            move = np.clip(values[:, :, at] + move, -WEIGHT_STEPS, WEIGHT_STEPS) - values[:, :, at]
            if move.any():
                moved = True
                values[:, :, at] += move
                slope += move[:, :, None] * metric[:, None, at, :]
        if not moved:
            break
    return values
