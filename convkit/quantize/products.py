"""Weights and biases of convolutions and matrix products, written in 8 bits and in int32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from convkit.errors import StepError
from convkit.graph.quant_profile import Number
from convkit.quantize.constants import Constants
from convkit.quantize.draft import Draft
from convkit.quantize.fitting import Fit
from convkit.quantize.grid import Rounded, mean_error, round_bias, round_weight, scale_for_bias
from convkit.quantize.placement import Weight, attribute

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array
    from convkit.quantize.moments import Moment

_CORRECTABLE = ("Conv", "Gemm")
"""Products whose bias takes back what rounding their weights adds on average; a MatMul's is a constant added to it."""


class Read(NamedTuple):
    """The activation that a product reads."""

    scale: float
    mean: Array | None
    """Of each channel, where calibration saw that."""
    moment: Moment | None = None
    """Of what the weights are multiplied with, where that was looked at."""


class Products:
    """Writes the constants of products into a draft; a weight that several nodes share is written once."""

    def __init__(
        self,
        draft: Draft,
        constants: Constants,
        *,
        quantize_bias: bool,
        number: Number,
        joins: Collection[str] = frozenset(),
    ) -> None:
        """`joins`: names of nodes whose constants are quantized, too."""
        self._draft = draft
        self._constants = constants
        self._quantize_bias = quantize_bias
        self._number = number
        self._readers = Counter(name for node in draft.graph.node for name in node.input)
        sums = (node for node in draft.graph.node if node.op_type in ("Add", "Sum") and node.name not in joins)
        self._sums = {name: node for node in sums for name in node.input}
        self._shared: dict[tuple[str, int | None, float], _Written] = {}

    def write(self, node: onnx.NodeProto, weight: Weight, activation: Read) -> None:
        """Round a node's weight; write its bias in int32, or corrected, or both.

        Raises:
            StepError: a constant holds NaN or infinity.
        """
        alpha, beta = self._take_factors(node)
        name, bias = node.input[weight.input], self._bias(node, beta)
        least = None
        if bias is not None and self._quantize_bias:
            least = self._least_scale(name, weight, bias, activation.scale)
        fit = self._fit(node, weight, activation)
        written = self._weight(name, weight.axis, alpha, least, fit)
        node.input[weight.input] = written.name
        self._draft.replace(name)
        error = None
        if activation.mean is not None and self._is_correctable(node, weight):
            error = mean_error(self._values(name, alpha), written.rounded, weight.axis or 0, activation.mean)
            bias = -error if bias is None else bias - error
        elif activation.mean is not None and node.op_type == "MatMul" and weight.input == 1 and weight.axis == 1:
            self._correct_sum(node, name, written.rounded, activation.mean)
        if bias is not None and (self._quantize_bias or error is not None or beta != 1.0):
            self._write_bias(node, bias, written.rounded.scale * float32(activation.scale))

    def _take_factors(self, node: onnx.NodeProto) -> tuple[float, float]:
        """Take alpha and beta from a Gemm: they go into its constants, so that every kernel and parser takes it."""
        alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
        if node.op_type != "Gemm" or (beta != 1.0 and _has(node, 2) and not self._has_bias(node)):
            return 1.0, 1.0
        rest = [each for each in node.attribute if each.name not in ("alpha", "beta")]
        del node.attribute[:]
        node.attribute.extend(rest)
        return alpha, beta

    # Weights

    def _weight(
        self, name: str, axis: int | None, factor: float, least: Array | None, fit: Fit | None = None
    ) -> _Written:
        """Write a weight and its DequantizeLinear, or find what was written for another node."""
        import numpy as np

        key = (name, axis, factor)
        known = self._shared.get(key)
        if known is not None and (least is None or not (known.rounded.scale < least).any()):
            return known
        try:
            rounded = round_weight(self._values(name, factor), axis, at_least=least, number=self._number)
        except ValueError as error:
            raise not_finite(f"the weight '{name}'", str(error)) from error
        if fit is not None and axis is not None:
            rounded = fit.round(self._values(name, factor), axis, rounded, at_least=least)
        draft = self._draft
        whole = draft.tensor(f"{name}__quantized", rounded.values)
        scale = draft.tensor(f"{name}__scale", rounded.scale)
        zero_point = draft.tensor(f"{name}__zero_point", np.zeros(rounded.scale.shape, rounded.values.dtype))
        target = draft.new(f"{name}__dequantized")
        draft.node("DequantizeLinear", [whole, scale, zero_point], target, f"{name}__dequantize", axis=axis)
        written = _Written(target, rounded)
        if self._readers[name] > 1:
            self._shared.setdefault(key, written)
        return written

    def _fit(self, node: onnx.NodeProto, weight: Weight, activation: Read) -> Fit | None:
        """Return how a weight is rounded for the least error; None where it is rounded to the nearest.

        That error is about the mean, which the bias takes back: there must be one, and no other reader of the weight.
        """
        name, moment = node.input[weight.input], activation.moment
        if moment is None or activation.mean is None or self._number is not Number.INT8:
            return None
        if self._readers[name] > 1 or not self._is_correctable(node, weight):
            return None
        fit = Fit(moment, activation.scale)
        return fit if fit.suits(self._constants.shape(name) or (), weight.axis or 0) else None

    def _values(self, name: str, factor: float) -> Array:
        values = self._constants.value(name)
        return values if factor == 1.0 else values * float32(factor)

    def _least_scale(self, name: str, weight: Weight, bias: Array, activation: float) -> Array:
        """Return the smallest scales of a weight at which the bias fits into int32."""
        import numpy as np

        least = scale_for_bias(bias, activation)
        if weight.axis is None:
            return np.asarray(least.max(), np.float32)
        count = (self._constants.shape(name) or ())[weight.axis]
        if len(least) in (1, count):
            return np.broadcast_to(least, (count,)).astype(np.float32)
        shared: Array = least.reshape(-1, count).max(axis=0)  # the groups of a ConvTranspose share scales
        return shared.astype(np.float32)

    # Biases

    def _is_correctable(self, node: onnx.NodeProto, weight: Weight) -> bool:
        fits = node.op_type in _CORRECTABLE and weight.input == 1 and weight.axis is not None
        return fits and (self._has_bias(node) or not _has(node, 2))

    def _correct_sum(self, node: onnx.NodeProto, name: str, rounded: Rounded, mean: Array) -> None:
        """Take what rounding the weight of a MatMul adds on average from the constant that is added to its result."""
        import numpy as np

        add = self._sums.get(node.output[0])
        if add is None or len(add.input) != 2 or self._readers[node.output[0]] != 1:
            return
        index = int(add.input[0] == node.output[0])
        dims = self._constants.shape(add.input[index]) or ()
        if not self._constants.is_float32(add.input[index]) or np.prod(dims) != rounded.values.shape[1]:
            return
        if dims[-1:] != rounded.values.shape[1:]:
            return
        bias = self._constants.value(add.input[index])
        error = mean_error(self._values(name, 1.0), rounded, 1, mean).reshape(dims)
        self._draft.replace(add.input[index])
        add.input[index] = self._draft.tensor(f"{add.input[index]}__corrected", (bias - error).astype(np.float32))

    def _has_bias(self, node: onnx.NodeProto) -> bool:
        """Tell whether a product has a constant bias of one number for each output channel."""
        if not _has(node, 2) or not self._constants.is_float32(node.input[2]):
            return False
        return all(dim == 1 for dim in (self._constants.shape(node.input[2]) or ())[:-1])

    def _bias(self, node: onnx.NodeProto, factor: float) -> Array | None:
        import numpy as np

        if not self._has_bias(node):
            return None
        values: Array = self._constants.value(node.input[2]).reshape(-1) * np.float32(factor)
        if not np.isfinite(values).all():
            raise not_finite(f"the bias '{node.input[2]}'", "NaN or infinity")
        return values

    def _write_bias(self, node: onnx.NodeProto, bias: Array, scale: Array) -> None:
        """Give a node its bias: in int32 of those scales where the profile wants that, else in float32."""
        import numpy as np

        draft = self._draft
        while len(node.input) < 3:
            node.input.append("")
        name = node.input[2] or f"{node.output[0]}__bias"
        draft.replace(node.input[2])
        if not self._quantize_bias:
            node.input[2] = draft.tensor(f"{name}__corrected", bias.astype(np.float32))
            return
        if scale.ndim and len(bias) == 1:
            bias = np.broadcast_to(bias, scale.shape)
        elif scale.ndim and len(bias) != len(scale):
            scale = np.tile(scale, len(bias) // len(scale))
        whole = draft.tensor(f"{name}__quantized", round_bias(bias, scale))
        scales = draft.tensor(f"{name}__scale", scale.astype(np.float32))
        node.input[2] = draft.new(f"{name}__dequantized")
        axis = 0 if scale.ndim else None
        draft.node("DequantizeLinear", [whole, scales], node.input[2], f"{name}__dequantize", axis=axis)


class _Written(NamedTuple):
    """A weight in the new graph."""

    name: str
    """What its readers read."""
    rounded: Rounded


def _has(node: onnx.NodeProto, index: int) -> bool:
    return len(node.input) > index and bool(node.input[index])


def float32(value: float) -> Array:
    """Return a number in float32, as an array without dimensions."""
    import numpy as np

    return np.asarray(value, np.float32)


def not_finite(what: str, found: str) -> StepError:
    """Return the refusal of numbers that no grid holds."""
    return StepError(
        f"{what} cannot be quantized: {found}",
        hint="the FP32 model gives NaN or infinity there: convert with --quantize none and compare, or mend the data",
        code="quantize.not-finite",
    )
