"""Integer grids: the scale and zero point that a range gives, and tensors rounded to them.

Quantization is that of ONNX's QuantizeLinear: q = clip(round_half_even(x / scale) + zero_point). Notation and
choices (zero exactly representable, weights symmetric per channel, biases in int32) as in Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEVELS = 256
WEIGHT_STEPS = 127
"""Weights take the integers from -127 to 127: as many on either side of zero."""
BIAS_STEPS = 1 << 30
"""Biases stay within ±2^30, so that 2^30 are left for the sum of products in an int32 accumulator."""
SMALLEST = 1e-30
"""Ranges and scales below this are taken for zero: their reciprocal, and products of two, would leave float32."""
_SLAB = 1 << 18
"""Elements that are worked on at a time: they stay in a processor's cache."""


class Grid(NamedTuple):
    """Where the integers of an 8 bit type lie among the real numbers."""

    scale: float
    zero_point: int
    signed: bool


class Rounded(NamedTuple):
    """A weight on its grids."""

    values: Array
    """int8, in the weight's shape."""
    scale: Array
    """float32: a scalar, or one for each channel."""


def grid_of(low: float, high: float, *, signed: bool, symmetric: bool) -> Grid:
    """Return the grid of an activation that spans `low` to `high`.

    The range is widened to hold zero, which lies on the grid exactly. A tensor that was always zero is given the range
    to 1: whatever else comes in service is then at least seen.

    Raises:
        ValueError: an end of the range is not finite.
    """
    import math

    import numpy as np

    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"the range from {low} to {high}")
    low, high = min(low, 0.0), max(high, 0.0)
    if max(high, -low) < SMALLEST:
        high = 1.0
    lowest = -LEVELS // 2 if signed else 0
    if symmetric:
        middle = 0 if signed else LEVELS // 2
        return Grid(float(np.float32(max(high, -low) / (LEVELS // 2 - 1))), middle, signed)
    scale = np.float32((high - low) / (LEVELS - 1))
    zero_point = lowest + round(-low / float(scale))
    return Grid(float(scale), min(max(zero_point, lowest), lowest + LEVELS - 1), signed)


def round_to(array: Array, grid: Grid) -> Array:
    """Return a tensor as integers of the grid's type, int8 or uint8."""
    import numpy as np

    dtype = np.int8 if grid.signed else np.uint8
    limits = np.iinfo(dtype)
    whole = np.rint(array / np.float32(grid.scale)) + grid.zero_point
    rounded: Array = np.clip(whole, limits.min, limits.max).astype(dtype)
    return rounded


def largest(weight: Array, axis: int | None) -> Array:
    """Return the largest magnitude of each channel along `axis` (float32), of the whole tensor where that is None."""
    import numpy as np

    found = np.zeros(() if axis is None else weight.shape[axis], np.float32)
    for place in _slabs(weight):
        slab = np.abs(weight[place])
        if axis is None:
            found = np.maximum(found, slab.max())
        elif axis == 0:
            found[place] = slab.reshape(len(slab), -1).max(axis=1)
        else:
            found = np.maximum(found, slab.max(axis=tuple(each for each in range(weight.ndim) if each != axis)))
    return np.asarray(found, np.float32)


def round_weight(weight: Array, axis: int | None, *, at_least: Array | None = None) -> Rounded:
    """Round a weight (float32) to int8, its largest magnitude to 127, with one scale for each channel along `axis`.

    Works slab by slab: needs little memory beyond the result.

    Args:
        weight: any shape, without NaN or infinities.
        axis: of the channels; None: one scale for all.
        at_least: the smallest scale of each channel (see `scale_for_bias`).

    Raises:
        ValueError: the weight is not finite.
    """
    import numpy as np

    peak = largest(weight, axis)
    if not np.isfinite(peak).all():
        raise ValueError("NaN or infinity")
    scale = peak / np.float32(WEIGHT_STEPS)
    if at_least is not None:
        scale = np.maximum(scale, at_least)
    scale = np.where(scale < SMALLEST, np.float32(1 / WEIGHT_STEPS), scale).astype(np.float32)
    values = np.empty(weight.shape, np.int8)
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    spread = scale.reshape(shape)
    for place in _slabs(weight):
        steps = weight[place] / (spread[place] if axis == 0 else spread)
        values[place] = np.rint(steps, out=steps)  # none is beyond ±127: the largest magnitude is 127 at most
    return Rounded(values, scale)


def mean_error(weight: Array, rounded: Rounded, axis: int, mean: Array) -> Array:
    """Return what rounding a weight adds to each output channel on average (float64), for inputs of that mean.

    It is (W_rounded - W) · E[x], which a bias can take back (Nagel et al., "Data-Free Quantization Through Weight
    Equalization and Bias Correction" (2019), section 4.2). At a convolution's borders the mean counts for too much.

    Args:
        weight: of a convolution or product.
        rounded: the same, rounded with one scale for each channel.
        axis: of the output channels, 0 or 1; the other of the two is that of the input's.
        mean: of each input channel; where there are more than `weight` has, its first axis is cut into groups.
    """
    import numpy as np

    spread = rounded.scale.reshape([-1 if each == axis else 1 for each in range(weight.ndim)])
    errors = np.zeros(weight.shape[axis])
    for place in _slabs(weight):
        scale = spread[place] if axis == 0 else spread
        wrong = rounded.values[place] * scale - weight[place]
        if wrong.ndim > 2:
            wrong = wrong.reshape(*wrong.shape[:2], -1).sum(axis=2, dtype=np.float64)
        if axis == 1:
            errors += mean[place] @ wrong
        else:
            groups = mean.reshape(-1, weight.shape[1])
            rows = np.arange(len(weight))[place] * len(groups) // len(weight)
            errors[place] = (wrong * groups[rows]).sum(axis=1)
    return errors


def scale_for_bias(bias: Array, activation: float) -> Array:
    """Return the smallest weight scales (float64) at which a bias fits into int32, for an activation of that scale.

    A channel of tiny weights and an ordinary bias would overflow otherwise; its weights round coarser then.
    """
    import numpy as np

    limits: Array = np.abs(bias.astype(np.float64)) / (activation * BIAS_STEPS)
    return limits


def round_bias(bias: Array, scale: Array) -> Array:
    """Return a bias as int32 of the given scales, those of activation and weight multiplied (float32)."""
    import numpy as np

    whole = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    rounded: Array = np.clip(whole, -(2**31) + 1, 2**31 - 1).astype(np.int32)
    return rounded


def _slabs(array: Array) -> Iterator[slice]:
    """Cut the first axis into pieces."""
    if array.ndim == 0 or array.size == 0:
        raise ValueError("no elements along an axis")
    rows = max(1, _SLAB // max(array[0].size, 1))
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)
