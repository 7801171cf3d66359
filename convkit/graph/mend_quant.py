"""Q/DQ pairs made such that they are signed and symmetric, with scales above 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.facts import Placed
from convkit.graph.mend_edit import Edit, drop_unused_weights, set_attribute

if TYPE_CHECKING:
    import numpy as np
    import onnx

_LEVELS = {"uint8": (0, 255), "int8": (-128, 127)}
_SMALL_SCALE = 2.0**-10


def make_symmetric(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Quantize to int8 around 0 what is quantized around another point.

    Stored weights keep their values where these fit into int8 as they are; else they are quantized anew, with the
    smallest scale that holds the largest of each channel. An activation gets the scale that holds what it held before.
    """
    edit = Edit(proto)
    done: set[str] = set()
    for node in edit.named(nodes):
        if node.name in done:
            continue
        if node.operator == "DequantizeLinear" and edit.facts.is_constant(node.input(0)):
            _stored(edit, node)
        else:
            done |= _activation(edit, node)
    drop_unused_weights(edit.proto)
    return edit.proto


def _activation(edit: Edit, node: Placed) -> set[str]:
    """Change a quantizer with all that dequantizes what it gives; returns their names."""
    facts = edit.facts
    quantizer = node if node.operator == "QuantizeLinear" else facts.makers.get(node.input(0))
    if quantizer is None or quantizer.operator != "QuantizeLinear":
        return {node.name}
    readers = facts.readers.get(quantizer.output(0), [])
    scale = facts.value(quantizer.input(1))
    kind = facts.type_name(quantizer.input(2)) or "uint8"
    names = {quantizer.name, *(reader.name for reader in readers)}
    if scale is None or kind not in _LEVELS or any(reader.operator != "DequantizeLinear" for reader in readers):
        return names
    low, high = _LEVELS[kind]
    point = _floats(facts.value(quantizer.input(2)), 0)
    largest = _largest(low - point, high - point)
    new_scale = edit.weight(
        (scale.astype("float32") * largest / 127).astype(scale.dtype), f"{quantizer.input(1)}__symmetric"
    )
    new_point = edit.weight(_zeros(scale), f"{quantizer.input(1)}__zero")
    for each in (quantizer, *readers):
        _feed(edit.current(each), new_scale, new_point)
    for value in edit.proto.graph.value_info:
        if value.name == quantizer.output(0):
            value.type.tensor_type.elem_type = 3  # TensorProto.INT8
    if bool((point == low).all()):
        _cut_below_zero(edit, quantizer)
    return names


_NEVER_BELOW_ZERO = frozenset(("Relu", "Sigmoid", "Softmax", "Abs", "HardSigmoid", "Exp", "Sqrt"))


def _cut_below_zero(edit: Edit, quantizer: Placed) -> None:
    """Put a Relu before a quantizer that held nothing below 0, where what comes in may be."""
    from onnx import helper

    maker = edit.facts.makers.get(quantizer.input(0))
    if maker is not None and maker.operator in _NEVER_BELOW_ZERO:
        return
    now = edit.current(quantizer)
    cut = edit.free(f"{now.input[0]}__not_below_zero")
    relu = helper.make_node("Relu", [now.input[0]], [cut], name=edit.free(f"{quantizer.name}__cut"))
    now.input[0] = cut
    edit.insert(Placed(now, quantizer.name), before=[relu])


def _largest(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    import numpy as np

    largest: np.ndarray = np.maximum(np.abs(low), np.abs(high))
    return largest


def _floats(values: np.ndarray | None, default: float) -> np.ndarray:
    import numpy as np

    return np.asarray(default if values is None else values, np.float32)


def _zeros(scale: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.zeros(scale.shape, np.int8)


def _feed(node: onnx.NodeProto, scale: str, point: str) -> None:
    kept = node.input[0]
    del node.input[:]
    node.input.extend([kept, scale, point])


def _stored(edit: Edit, node: Placed) -> None:
    import numpy as np

    facts = edit.facts
    values, scale = facts.value(node.input(0)), facts.value(node.input(1))
    if values is None or scale is None or str(values.dtype) not in _LEVELS:
        return
    axis = int(node.attribute("axis", 1))
    point = _along(_floats(facts.value(node.input(2)), 0), values.ndim, axis)
    shifted = values.astype(np.float32) - point
    if shifted.min(initial=0) >= -128 and shifted.max(initial=0) <= 127:
        new, new_scale = shifted, scale.astype(np.float32)
    else:
        real = shifted * _along(scale.astype(np.float32), values.ndim, axis)
        others = tuple(index for index in range(values.ndim) if scale.ndim == 0 or index != axis % values.ndim)
        new_scale = np.abs(real).max(axis=others) / 127 if scale.ndim else np.abs(real).max() / np.float32(127)
        new_scale = np.where(new_scale > 0, new_scale, np.float32(_SMALL_SCALE)).astype(np.float32)
        new = np.clip(np.rint(real / _along(new_scale, values.ndim, axis)), -127, 127)
    name = edit.weight(new.astype(np.int8), f"{node.input(0)}__symmetric")
    now = edit.current(node)
    _feed(
        now,
        edit.weight(np.asarray(new_scale, scale.dtype), f"{node.input(1)}__symmetric"),
        edit.weight(np.zeros(scale.shape, np.int8), f"{node.input(1)}__zero"),
    )
    now.input[0] = name


def _along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Give numbers for the channels of an axis the shape that broadcasts over a tensor of that rank."""
    if values.ndim != 1 or rank == 0:
        return values
    shape = [1] * rank
    shape[axis % rank] = -1
    return values.reshape(shape) if values.size > 1 else values.reshape(())


def fold_biases(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Store what int32 biases stand for, and take their DequantizeLinear out."""
    import numpy as np
    from onnx import numpy_helper

    edit = Edit(proto)
    for node in edit.named(nodes):
        values, scale = edit.facts.value(node.input(0)), edit.facts.value(node.input(1))
        if values is None or scale is None or node.operator != "DequantizeLinear":
            continue
        axis = int(node.attribute("axis", 1)) if values.ndim > 1 else 0
        point = _along(_floats(edit.facts.value(node.input(2)), 0), values.ndim, axis)
        real = (values.astype(np.float64) - point) * _along(scale.astype(np.float64), values.ndim, axis)
        edit.replace(node)
        edit.proto.graph.initializer.append(numpy_helper.from_array(real.astype(scale.dtype), node.output(0)))
    drop_unused_weights(edit.proto)
    return edit.proto


def raise_scales(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Give scales that are not above 0 a small one, for all that read them."""
    import numpy as np
    from onnx import numpy_helper

    edit = Edit(proto)
    for name in {node.input(1) for node in edit.named(nodes)}:
        tensor, values = edit.facts.weights.get(name), edit.facts.value(name)
        if tensor is None or values is None:
            continue
        good = np.isfinite(values) & (values > 0)
        mended = np.where(good, values, np.float32(_SMALL_SCALE)).astype(values.dtype)
        tensor.CopyFrom(numpy_helper.from_array(mended, tensor.name))
    return edit.proto


def move_axis(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Set the axis to the only dimension that has as many channels as there are scales."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        dims, scales = edit.facts.dims.get(node.input(0), ()), edit.facts.dims.get(node.input(1), ())
        fitting = [axis for axis, size in enumerate(dims) if scales and size == scales[0]]
        if len(fitting) == 1:
            set_attribute(edit.current(node), "axis", fitting[0])
    return edit.proto
