"""How the channels of an activation lie in the constants that make it and in those that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from convkit.quantize.constants import Constants
from convkit.quantize.passing import Place

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Side(NamedTuple):
    """One constant input of one node, and how channels lie in it."""

    node: int
    input: int
    shape: tuple[int, ...]
    """What the constant is broadcast to first; mostly its own."""
    view: tuple[int, ...]
    """Then it is seen in these dims."""
    axes: tuple[int, ...]
    """Together these axes of the view count the channels."""

    def spread(self, factors: Array) -> Array:
        """Return one number for each channel in a form that broadcasts over the view."""
        return factors.reshape([dim if axis in self.axes else 1 for axis, dim in enumerate(self.view)])

    def largest(self, values: Array) -> Array:
        """Return the largest magnitude of each channel of the constant's values (any shape of as many elements)."""
        import numpy as np

        others = tuple(axis for axis in range(len(self.view)) if axis not in self.axes)
        seen = values.reshape(self.view)
        largest: Array = np.maximum(seen.max(axis=others, initial=0), -seen.min(axis=others, initial=0)).reshape(-1)
        return largest


def is_product(node: onnx.NodeProto, constants: Constants) -> bool:
    """Tell whether a node is a convolution or a matrix product with constant weights on its right."""
    return (
        node.op_type in PRODUCTS
        and node.domain in ("", "ai.onnx")
        and len(node.input) > 1
        and node.input[0] not in constants
        and constants.is_float32(node.input[1])
        and not _integer(node, "transA", 0)
    )


def product_side(
    nodes: Sequence[onnx.NodeProto], number: int, constants: Constants, *, reads: bool, inner: int = 1
) -> Side | None:
    """Return how the channels lie in a product's weights: those that it reads, or those that it writes.

    `inner`: so many neighbouring rows of a matrix belong to one channel that is read.
    """
    node = nodes[number]
    dims = constants.shape(node.input[1]) or ()
    groups = _integer(node, "group", 1)
    match node.op_type:
        case "Conv" if len(dims) > 2 and reads:
            return Side(number, 1, dims, (groups, dims[0] // groups, *dims[1:]), (0, 2))
        case "Conv" if len(dims) > 2:
            return Side(number, 1, dims, dims, (0,))
        case "ConvTranspose" if len(dims) > 2 and reads:
            return Side(number, 1, dims, dims, (0,))
        case "ConvTranspose" if len(dims) > 2:
            return Side(number, 1, dims, (groups, dims[0] // groups, *dims[1:]), (0, 2))
        case "Gemm" | "MatMul" if len(dims) == 2:
            axis = int(bool(_integer(node, "transB", 0)) == reads)
            if not reads:
                return Side(number, 1, dims, dims, (axis,))
            view = [*dims[:axis], dims[axis] // inner, inner, *dims[axis + 1 :]]
            return Side(number, 1, dims, tuple(view), (axis,))
    return None


def bias_sides(
    nodes: Sequence[onnx.NodeProto], number: int, constants: Constants, *, index: int, channels: int
) -> list[Side] | None:
    """Return how channels lie in a bias or a norm's vector; none where there is none, None where it does not fit."""
    node = nodes[number]
    if len(node.input) <= index or not node.input[index]:
        return []
    name = node.input[index]
    dims = constants.shape(name)
    if not dims or dims[-1] != channels or not constants.is_float32(name):
        return None
    return [Side(number, index, dims, dims, (len(dims) - 1,))]


def shift_side(
    nodes: Sequence[onnx.NodeProto],
    number: int,
    index: int,
    constants: Constants,
    place: Place,
    rank: int,
    channels: int,
) -> Side | None:
    """Return how channels lie in a constant that is added to an activation, or multiplied with it."""
    name = nodes[number].input[index]
    dims = constants.shape(name)
    if dims is None or len(dims) > rank or place.inner != 1 or not constants.is_float32(name):
        return None
    from_end = rank - place.axis
    padded = [1] * (from_end - len(dims)) + list(dims)
    at = len(padded) - from_end
    if padded[at] not in (1, channels):
        return None
    padded[at] = channels
    return Side(number, index, tuple(padded), tuple(padded), (at,))


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
