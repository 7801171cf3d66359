"""Writing a graph in 16 bits, and keeping in fp32 what 16 bits cannot hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.graph.lower import Lowered, low_name, lower
from convkit.graph.magnitudes import magnitudes
from convkit.graph.model import Model, Tensors, load_model
from convkit.graph.names import strip_origins
from convkit.graph.weights import ModelWriter, Weights
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.spec.options import Precision

if TYPE_CHECKING:
    import numpy as np
    import onnx

LARGEST_SAFE = 32_752.0
"""Half of the largest FP16 number: the data that were looked at are a sample of what will come."""


class SixteenBits(msgspec.Struct, frozen=True, kw_only=True):
    """A model in FP16 or BF16."""

    model: Model
    emulation: Model | None = None
    """The same numbers for a runtime without BF16: every tensor in fp32, rounded wherever the model stores 16 bits."""
    overflowing: tuple[str, ...] = ()
    """Nodes that are kept in fp32 because their numbers, or those they read, would not fit."""
    unsupported: tuple[str, ...] = ()
    """Nodes that are kept in fp32 because their operator takes nothing else."""


@step(version=1, stage="precision", title="Write 16 bits", needs="onnx")
def to_sixteen_bits(model: Model, *, precision: Precision, samples: Tensors) -> SixteenBits:
    """Rewrite the graph in FP16 or BF16; its inputs and outputs keep their types.

    For FP16 the model is run on `samples` first: where a number exceeds `LARGEST_SAFE`, the nodes that give and read it
    stay in fp32. BF16 has the range of fp32.

    Raises:
        StepError: the model cannot be run.
    """
    keep: tuple[str, ...] = ()
    proto = load_model(model, weights=False)
    if precision is Precision.FP16:
        keep = (*_overflowing(proto, magnitudes(model, samples)), *_heavy(proto, Weights(model)))
    if keep:
        events.warn(
            "precision.kept-in-fp32",
            f"{len(keep)} nodes stay in fp32, their numbers come near or above the largest of FP16 (65504): "
            + ", ".join(keep[:5])
            + (", ..." if len(keep) > 5 else ""),
        )
    lowered = lower(proto, precision, keep=keep)
    written = _write(model, lowered, precision)
    emulation = None
    if precision is Precision.BF16:
        again = load_model(model, weights=False)
        emulation = _write(model, lower(again, precision, keep=keep, emulate=True), precision, emulate=True)
    return SixteenBits(model=written, emulation=emulation, overflowing=keep, unsupported=lowered.kept)


def _overflowing(proto: onnx.ModelProto, largest: dict[str, float]) -> tuple[str, ...]:
    """Name the nodes that give or read a tensor whose numbers do not fit."""
    large = {name for name, value in largest.items() if value > LARGEST_SAFE}
    return tuple(node.name for node in proto.graph.node if large & {*node.input, *node.output})


def _heavy(proto: onnx.ModelProto, weights: Weights) -> tuple[str, ...]:
    """Name the nodes that read a weight that does not fit."""
    from onnx import TensorProto

    floats = [tensor.name for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    large = {name for name in floats if _largest(weights.array(name)) > LARGEST_SAFE}
    return tuple(node.name for node in proto.graph.node if large & set(node.input))


def _largest(array: np.ndarray[Any, Any]) -> float:
    return float(max(array.max(initial=0), -array.min(initial=0)))


def _write(model: Model, lowered: Lowered, precision: Precision, *, emulate: bool = False) -> Model:
    """Write the graph with its weights, one by one."""
    proto = lowered.proto
    strip_origins(proto)
    proto.graph.ClearField("value_info")
    weights = Weights(model)
    pairs = (node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear"))
    scales = {node.input[1] for node in pairs}
    expected = model.files.bytes if emulate else model.files.bytes // 2
    writer = ModelWriter(expected_bytes=expected)
    for name in weights.names:
        for tensor in _forms(weights.tensor(name), lowered, precision, scales, emulate=emulate):
            writer.add(tensor)
    return writer.finish(proto, model.interface)


def _forms(
    tensor: onnx.TensorProto, lowered: Lowered, precision: Precision, scales: set[str], *, emulate: bool
) -> Iterable[onnx.TensorProto]:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if tensor.name not in lowered.low:
        yield tensor
        return
    low = TensorProto.FLOAT16 if precision is Precision.FP16 else TensorProto.BFLOAT16
    if tensor.name in lowered.full:
        yield tensor
    values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(low))
    if low == TensorProto.FLOAT16 and low_name(tensor.name) in scales:
        # Runtimes refuse a scale of 0. The least above it makes at most 127 * 6e-8 of what was below 4e-6.
        values = np.maximum(values, np.finfo(np.float16).smallest_subnormal)
    yield numpy_helper.from_array(values.astype(np.float32) if emulate else values, low_name(tensor.name))
