"""Convolutions of one point: the same constant matrix for every point of an image, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.quantize.constants import Constants

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array

_PLAIN: dict[str, tuple[int | str, ...]] = {"group": (1,), "pads": (0,), "auto_pad": ("NOTSET", "VALID")}


def is_pointwise(node: onnx.NodeProto, constants: Constants, *, strides: bool = False) -> bool:
    """Tell whether a node is a Conv of one point with constant weights, without groups, padding and strides.

    `strides`: it may leave points out.
    """
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return False
    plain = _PLAIN if strides else {**_PLAIN, "strides": (1,)}
    for attribute in node.attribute:
        values = attribute.ints or ((attribute.s.decode(),) if attribute.s else (attribute.i,))
        if any(value not in plain.get(attribute.name, (value,)) for value in values):
            return False
    shape = constants.shape(node.input[1]) or (0, 0, 0)
    return set(shape[2:]) == {1} and all(constants.is_float32(name) for name in node.input[1:] if name)


def matrix(node: onnx.NodeProto, constants: Constants) -> Array:
    """Return the weights of such a convolution, float64 [channels written, channels read]."""
    import numpy as np

    values = constants.value(node.input[1])
    return values.reshape(values.shape[:2]).astype(np.float64)


def bias(node: onnx.NodeProto, constants: Constants) -> Array:
    """Return the bias of a convolution, float64, one for each channel written; zeros where it has none."""
    import numpy as np

    if len(node.input) > 2 and node.input[2]:
        return constants.value(node.input[2]).astype(np.float64)
    return np.zeros((constants.shape(node.input[1]) or (0,))[0])
