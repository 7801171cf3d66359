"""INT4 weights: large matrices in blocks of 4 bit integers, activations as they are.

Each run of `BLOCK` weights of one column has a scale of its own; the integers go from -8 to 7. Of the few scales that
are tried for a block the one with the smallest squared error is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convkit.errors import StepError, UsageError
from convkit.graph.model import Model, load_model
from convkit.graph.names import name_nodes, strip_origins
from convkit.graph.quant_profile import FourBits
from convkit.graph.weights import ModelWriter, Weights
from convkit.pipeline.step import step
from convkit.quantize.constants import Constants
from convkit.quantize.result import Quantized

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

BLOCK = 32
LARGE = 1 << 14
"""Elements of a matrix from which on its weights are worth the unpacking."""
_LOWEST, _HIGHEST = -8, 7
_DIVISORS = (-8.0, 7.0)
"""The largest weight of a block becomes one of these: the first uses the whole type, the second clips nothing."""
_SLAB = 1 << 18


@step(version=1, stage="quantize", title="Write weights in INT4", needs="onnx")
def quantize_weights(model: Model, *, form: FourBits) -> Quantized:
    """Write the weights of large matrix products in INT4; they are read, rounded and written one at a time.

    Raises:
        UsageError: the graph has no large matrix product with constant weights.
        StepError: a weight is not finite, or the graph's opset has no INT4.
    """
    weights = Weights(model)
    proto = load_model(model, weights=False)
    name_nodes(proto.graph)
    _require_opset(proto, form)
    writer = ModelWriter(expected_bytes=model.files.bytes // 6)
    constants = Constants(proto.graph, lambda tensor: weights.array(tensor.name))
    kept: list[str] = []
    done = 0
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or not _fits(node, constants):
            nodes.append(node)
            if node.op_type in ("MatMul", "Gemm") and len(constants.shape(node.input[1]) or ()) == 2:
                kept.append(node.name)
            continue
        nodes.extend(_rewritten(node, constants, writer, form))
        done += 1
    if not done:
        raise UsageError(
            f"INT4 is for matrix products with constant weights of {LARGE} elements and more, and the model has none",
            hint="use --quantize int8 with --calibration-data, or --quantize fp16, or leave --quantize out",
            code="quantize.nothing-to-do",
        )
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {value.name for value in proto.graph.output}
    for name in weights.names:
        if name in read:
            writer.add(weights.tensor(name))
    if form == "MatMulNBits" and not any(entry.domain == "com.microsoft" for entry in proto.opset_import):
        proto.opset_import.add(domain="com.microsoft", version=1)
    strip_origins(proto)
    proto.producer_name, proto.producer_version = "", ""
    proto.graph.ClearField("value_info")
    return Quantized(model=writer.finish(proto, model.interface), method="weights alone", samples=0, kept=tuple(kept))


def _require_opset(proto: onnx.ModelProto, form: FourBits) -> None:
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if form == "DequantizeLinear" and opset < 21:
        raise StepError(
            f"INT4 for this target needs a graph of opset 21 or later, and this one is of opset {opset}",
            hint="convert again with --opset 21",
            code="quantize.opset",
        )


def _fits(node: onnx.NodeProto, constants: Constants) -> bool:
    shape = constants.shape(node.input[1])
    if shape is None or len(shape) != 2 or not constants.is_float32(node.input[1]):
        return False
    given = _attributes(node)
    plain = given.get("alpha", 1.0) == 1.0 and given.get("beta", 1.0) == 1.0 and not given.get("transA")
    summed = shape[1] if given.get("transB") else shape[0]
    return plain and shape[0] * shape[1] >= LARGE and summed % BLOCK == 0


def _rewritten(
    node: onnx.NodeProto, constants: Constants, writer: ModelWriter, form: FourBits
) -> Iterator[onnx.NodeProto]:
    """Yield what replaces a product; a Gemm's bias is added after it."""
    from onnx import helper

    weight = node.input[1]
    array = constants.value(weight)
    by_column = array if _attributes(node).get("transB") else array.T  # [N, K]: one row for each column of W
    rows, summed = by_column.shape
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    output = f"{node.output[0]}_product" if bias else node.output[0]
    try:
        integers, scales = rounded_in_blocks(by_column)
    except ValueError as error:
        raise StepError(
            f"the weight '{weight}' holds {error}",
            hint="no scale can hold that: mend the model, or leave --quantize out",
            code="quantize.not-finite",
        ) from error
    stem = f"{node.name}/{weight}"
    if form == "MatMulNBits":
        _write(writer, f"{stem}_int4", _packed(integers).reshape(rows, summed // BLOCK, BLOCK // 2))
        _write(writer, f"{stem}_scales", scales.reshape(-1))
        yield helper.make_node(
            "MatMulNBits",
            [node.input[0], f"{stem}_int4", f"{stem}_scales"],
            [output],
            node.name,
            domain="com.microsoft",
            K=summed,
            N=rows,
            bits=4,
            block_size=BLOCK,
            accuracy_level=4,
        )
    else:
        _write_int4(writer, f"{stem}_int4", integers.T)
        _write(writer, f"{stem}_scales", scales.T)
        yield helper.make_node(
            "DequantizeLinear",
            [f"{stem}_int4", f"{stem}_scales"],
            [f"{stem}_real"],
            f"{node.name}_weights",
            axis=0,
            block_size=BLOCK,
        )
        yield helper.make_node("MatMul", [node.input[0], f"{stem}_real"], [output], node.name)
    if bias:
        yield helper.make_node("Add", [output, bias], [node.output[0]], f"{node.name}_bias")


def rounded_in_blocks(weight: Array) -> tuple[Array, Array]:
    """Round a matrix [N, K] to integers from -8 to 7 in blocks of `BLOCK` along K.

    Returns:
        The integers (int8 [N, K]) and the scales (float32 [N, K / BLOCK]).

    Raises:
        ValueError: the weight is not finite.
    """
    import numpy as np

    rows, summed = weight.shape
    integers = np.empty((rows, summed), np.int8)
    scales = np.empty((rows, summed // BLOCK), np.float32)
    step_of_rows = max(1, _SLAB // summed)
    for start in range(0, rows, step_of_rows):
        place = slice(start, start + step_of_rows)
        slab = np.ascontiguousarray(weight[place]).reshape(-1, summed // BLOCK, BLOCK)
        if not np.isfinite(slab).all():
            raise ValueError("NaN or infinity")
        best, scale = _best(slab)
        integers[place], scales[place] = best.reshape(-1, summed), scale
    return integers, scales


def _best(slab: Array) -> tuple[Array, Array]:
    """Try every divisor on every block [rows, blocks, BLOCK], and keep the one that loses least."""
    import numpy as np

    where = np.abs(slab).argmax(axis=2)[..., None]
    extreme = np.take_along_axis(slab, where, axis=2)[..., 0]  # with its sign
    best = scale = error = None
    for divisor in _DIVISORS:
        candidate = (extreme / np.float32(divisor)).astype(np.float32)
        candidate = np.where(candidate == 0, np.float32(1), candidate)
        integers = np.clip(np.rint(slab / candidate[..., None]), _LOWEST, _HIGHEST)
        lost = np.square(integers * candidate[..., None] - slab).sum(axis=2)
        if best is None or scale is None or error is None:
            best, scale, error = integers, candidate, lost
            continue
        better = lost < error
        best[better], scale[better], error[better] = integers[better], candidate[better], lost[better]
    assert best is not None
    assert scale is not None
    return best.astype(np.int8), scale


def _packed(integers: Array) -> Array:
    """Pack pairs along the last axis into bytes, the first in the low half; 8 stands for zero."""
    import numpy as np

    shifted = (integers.astype(np.int16) + 8).astype(np.uint8)
    packed: Array = shifted[:, 0::2] | (shifted[:, 1::2] << 4)
    return packed


def _write(writer: ModelWriter, name: str, array: Array) -> None:
    import numpy as np
    from onnx import numpy_helper

    writer.add(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _write_int4(writer: ModelWriter, name: str, integers: Array) -> None:
    """Write an ONNX tensor of the type INT4: two elements in a byte, the first in the low half."""
    import numpy as np
    from onnx import TensorProto

    flat = np.ascontiguousarray(integers).reshape(-1).view(np.uint8) & 0xF
    packed = flat[0::2] | (flat[1::2] << 4)
    writer.add(TensorProto(name=name, data_type=TensorProto.INT4, dims=integers.shape, raw_data=packed.tobytes()))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
