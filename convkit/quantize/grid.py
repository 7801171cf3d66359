"""Grids of 8 bits: the scale and zero point that a range gives, and tensors rounded to them.

Quantization is that of ONNX's QuantizeLinear: q = clip(round_half_even(x / scale) + zero_point), in FP8 without a zero
point. Notation and
choices (zero exactly representable, weights symmetric per channel, biases in int32) as in Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.graph.quant_profile import Number

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEVELS = 256
WEIGHT_STEPS = 127
"""Weights take the integers from -127 to 127: as many on either side of zero."""
LARGEST_FP8 = 448
"""Of E4M3 (Micikevicius et al., "FP8 Formats for Deep Learning" (2022), table 1); a largest magnitude comes to it."""
BIAS_STEPS = 1 << 30
"""Biases stay within ±2^30, so that 2^30 are left for the sum of products in an int32 accumulator."""
SMALLEST = 1e-30
"""Ranges and scales below this are taken for zero: their reciprocal, and products of two, would leave float32."""
_SLAB = 1 << 18
"""Elements that are worked on at a time: they stay in a processor's cache."""


class Grid(NamedTuple):
    """Where the numbers of an 8 bit type lie among the real numbers."""

    scale: float
    zero_point: int
    signed: bool
    number: Number = Number.INT8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return numpy's type of what is stored: int8, uint8 or float8_e4m3fn."""
        import numpy as np

        return dtype_of(self.number) if self.signed else np.dtype(np.uint8)


class Rounded(NamedTuple):
    """A weight on its grids."""

    values: Array
    """int8 or float8_e4m3fn, in the weight's shape."""
    scale: Array
    """float32: a scalar, or one for each channel."""


def dtype_of(number: Number) -> np.dtype[Any]:
    """Return numpy's type of weights; FP8's comes from ml_dtypes."""
    import numpy as np

    if number is Number.INT8:
        return np.dtype(np.int8)
    import ml_dtypes

    float8: np.dtype[Any] = np.dtype(ml_dtypes.float8_e4m3fn)
    return float8


def grid_of(low: float, high: float, *, signed: bool, symmetric: bool, number: Number = Number.INT8) -> Grid:
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
    if number is Number.FP8:
        return Grid(float(np.float32(max(high, -low) / LARGEST_FP8)), 0, True, number)
    lowest = -LEVELS // 2 if signed else 0
    if symmetric:
        middle = 0 if signed else LEVELS // 2
        return Grid(float(np.float32(max(high, -low) / (LEVELS // 2 - 1))), middle, signed)
    scale = np.float32((high - low) / (LEVELS - 1))
    zero_point = lowest + round(-low / float(scale))
    return Grid(float(scale), min(max(zero_point, lowest), lowest + LEVELS - 1), signed)


def round_to(array: Array, grid: Grid) -> Array:
    """Return a tensor (float32) as numbers of the grid's type: int8, uint8 or float8_e4m3fn."""
    import numpy as np

    if grid.number is Number.FP8:
        low: Array = np.clip(array / np.float32(grid.scale), -LARGEST_FP8, LARGEST_FP8).astype(grid.dtype)
        return low
    limits = np.iinfo(grid.dtype)
    whole = np.rint(array / np.float32(grid.scale)) + grid.zero_point
    rounded: Array = np.clip(whole, limits.min, limits.max).astype(grid.dtype)
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


def round_weight(
    weight: Array, axis: int | None, *, at_least: Array | None = None, number: Number = Number.INT8
) -> Rounded:
    """Round a weight (float32) to 8 bits, with one scale for each channel along `axis`.

    Its largest magnitude becomes 127 in int8, 448 in FP8.

    Works slab by slab: needs little memory beyond the result.

    Args:
        weight: any shape, without NaN or infinities.
        axis: of the channels; None: one scale for all.
        at_least: the smallest scale of each channel (see `scale_for_bias`).
        number: what it is rounded to.

    Raises:
        ValueError: the weight is not finite.
    """
    import numpy as np

    peak = largest(weight, axis)
    if not np.isfinite(peak).all():
        raise ValueError("NaN or infinity")
    largest_of_type = np.float32(WEIGHT_STEPS if number is Number.INT8 else LARGEST_FP8)
    scale = peak / largest_of_type
    if at_least is not None:
        scale = np.maximum(scale, at_least)
    scale = np.where(scale < SMALLEST, 1 / largest_of_type, scale).astype(np.float32)
    values = np.empty(weight.shape, dtype_of(number))
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    spread = scale.reshape(shape)
    for place in _slabs(weight):
        steps = weight[place] / (spread[place] if axis == 0 else spread)
        # None is beyond the type's largest number, to which the largest magnitude was scaled.
        values[place] = np.rint(steps, out=steps) if number is Number.INT8 else steps
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
