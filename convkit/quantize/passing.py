"""Operators that let a channel's scale pass: f(s·x) = s·f(x) for s > 0, channel by channel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.quantize.constants import Constants

if TYPE_CHECKING:
    import onnx

_SAME = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity", "Dropout", "Clip"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2"})


class Place(NamedTuple):
    """The channels of a tensor: index // inner along an axis, counted from 0."""

    axis: int
    inner: int = 1


class Passing:
    """Tells where a tensor's channels are behind an operator, and before it."""

    def __init__(self, proto: onnx.ModelProto, constants: Constants) -> None:
        import onnx

        self._constants = constants
        inferred = onnx.shape_inference.infer_shapes(proto).graph
        self._dims: dict[str, tuple[int | None, ...]] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape"):
                dims = (dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
                self._dims[value.name] = tuple(dims)

    def rank(self, name: str) -> int | None:
        """Return how many dims a tensor has, where that is known."""
        return len(self._dims[name]) if name in self._dims else None

    def count(self, name: str, place: Place) -> int | None:
        """Return how many channels a tensor has, where that is known."""
        dims = self._dims.get(name, ())
        size = dims[place.axis] if 0 <= place.axis < len(dims) else None
        return None if size is None or size % place.inner else size // place.inner

    def alike(self, name: str, other: str, place: Place) -> bool:
        """Tell whether two tensors have as many dims, and as many channels: none is stretched over the other's."""
        count = self.count(name, place)
        return self.rank(name) == self.rank(other) and count is not None and count == self.count(other, place)

    def forward(self, node: onnx.NodeProto, place: Place) -> Place | None:
        """Return where the channels of the first input are in the first output; None where they do not pass."""
        kind = node.op_type
        if kind in _SAME:
            return place
        if kind in _POOLS:
            return place if place == Place(1) else None
        if kind in _REDUCTIONS:
            return self._reduced(node, place)
        match kind:
            case "Pad" | "Resize":
                kept = place.inner == 1 and self.alike(node.input[0], node.output[0], place)
                return place if kept and (self._pads_zeros(node) if kind == "Pad" else _interpolates(node)) else None
            case "Transpose":
                rank = self.rank(node.input[0])
                if rank is None:
                    return None
                order = list(_attributes(node).get("perm", range(rank - 1, -1, -1)))
                return Place(order.index(place.axis), place.inner)
            case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze":
                return self._reshaped(node, place)
        return None

    def backward(self, node: onnx.NodeProto, place: Place) -> Place | None:
        """Return where the channels of the first output are in the first input; None where they do not pass."""
        if not node.input or node.input[0] in self._constants:
            return None
        for axis in range(self.rank(node.input[0]) or 0):
            for inner in dict.fromkeys((1, place.inner)):
                if self.forward(node, Place(axis, inner)) == place:
                    return Place(axis, inner)
        return None

    def bound(self, node: onnx.NodeProto) -> float | None:
        """Return where a Clip from 0 ends; None for another Clip."""
        bounds = [self._scalar(node, index) for index in (1, 2)]
        if bounds[0] != 0.0 or (bounds[1] is None and len(node.input) > 2 and node.input[2]):
            return None
        return math.inf if bounds[1] is None else bounds[1]

    def _scalar(self, node: onnx.NodeProto, index: int) -> float | None:
        name = node.input[index] if len(node.input) > index else ""
        if not name or self._constants.shape(name) not in ((), (1,)):
            return None
        return float(self._constants.value(name).item())

    def _axes(self, node: onnx.NodeProto, rank: int) -> list[int] | None:
        """Return the axes of a reduction, Pad, Squeeze or Unsqueeze, an attribute once and an input today."""
        given = _attributes(node).get("axes")
        if given is None and len(node.input) > 1 and node.input[1]:
            if node.input[1] not in self._constants:
                return None
            given = self._constants.value(node.input[1]).reshape(-1).tolist()
        return None if given is None else [int(axis) % rank for axis in given]

    def _reduced(self, node: onnx.NodeProto, place: Place) -> Place | None:
        rank = self.rank(node.input[0])
        axes = self._axes(node, rank) if rank else None
        if axes is None or place.axis in axes:
            return None
        if _attributes(node).get("keepdims", 1):
            return place
        return Place(place.axis - sum(axis < place.axis for axis in axes), place.inner)

    def _pads_zeros(self, node: onnx.NodeProto) -> bool:
        """Tell whether a Pad adds zeros, or numbers of the same channel."""
        given = _attributes(node)
        if given.get("mode", b"constant") != b"constant":
            return True
        if len(node.input) > 2 and node.input[2]:
            return self._scalar(node, 2) == 0.0
        return float(given.get("value", 0.0)) == 0.0

    def _reshaped(self, node: onnx.NodeProto, place: Place) -> Place | None:
        """Follow an axis through a change of dims: what lies before it, and behind it, must hold as many elements."""
        before, after = self._dims.get(node.input[0]), self._dims.get(node.output[0])
        if before is None or after is None or place.axis >= len(before):
            return None
        count, behind = before[place.axis], _product(before[place.axis + 1 :])
        if count is None or behind is None:
            return None
        for axis, dim in enumerate(after):  # the same axis, or one that took in those behind it
            rest = _product(after[axis + 1 :])
            if dim is None or rest is None or dim * rest != count * behind:
                continue
            if dim == count and (count > 1 or axis == place.axis):
                return Place(axis, place.inner)
            if dim % count == 0 and dim > count:
                return Place(axis, place.inner * (dim // count))
        return None


def _product(dims: tuple[int | None, ...]) -> int | None:
    return None if None in dims else math.prod(dim for dim in dims if dim is not None)


def _interpolates(node: onnx.NodeProto) -> bool:
    return bool(_attributes(node).get("coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
