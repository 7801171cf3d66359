"""The opset of an ONNX file: brought to one that the server reads and quantizers can use, where onnx can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.errors import StepError
from convkit.graph.external import without_large_weights
from convkit.pipeline import events
from convkit.sources.onnx_slopes import BROADCAST_FROM, slopes_by_channel

if TYPE_CHECKING:
    import onnx

_OLDEST = 13
"""Per-channel QuantizeLinear came with it; below it quantizers and TensorRT lose features."""
CONVERTED_OPSET = 18


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the opset of ONNX's own domain; 0 where the file names none."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)


def within_opsets(proto: onnx.ModelProto, asked: int | None, highest: int) -> onnx.ModelProto:
    """Convert the graph to the opset asked for, else to one that the server reads.

    Raises:
        StepError: onnx cannot; but a graph below opset 13 that need not be converted is kept as it is, with a warning.
    """
    has = opset_of(proto)
    wanted = asked or (highest if has > highest else CONVERTED_OPSET if 0 < has < _OLDEST else has)
    if has in (0, wanted):
        return proto
    try:
        converted = without_large_weights(proto, lambda light: _converted(light, has, wanted))
        if _face(converted) != _face(proto):  # the converter has lost a dimension of Scan's
            raise ValueError("the converter gives it other inputs or outputs")  # noqa: TRY301 - told as any failure
    except Exception as error:
        if not asked and has < _OLDEST:
            events.warn("source.old-opset", f"opset {has} could not be converted to {wanted}; it is kept")
            return proto
        text = " ".join(str(error).split())
        reason = text.rpartition("` failed: ")[2]  # behind the place in onnx's own source
        raise StepError(
            f"opset {has} cannot be converted to {wanted}: {reason}",
            hint="export again with an opset that the server reads, or name a newer server with --triton",
            code="source.opset",
        ) from error
    events.warn("source.opset-converted", f"opset {has} was converted to {wanted}")
    return converted


def _converted(proto: onnx.ModelProto, has: int, wanted: int) -> onnx.ModelProto:
    import onnx
    import onnx.inliner
    from onnx import version_converter

    if proto.functions:  # the converter loses them
        proto = onnx.inliner.inline_local_functions(proto)
    converted: onnx.ModelProto = version_converter.convert_version(proto, wanted)
    if has < BROADCAST_FROM:
        slopes_by_channel(converted, proto)
    onnx.checker.check_model(converted)
    return converted


def _face(proto: onnx.ModelProto) -> list[tuple[str, int, int]]:
    """Return name, element type and rank of every input that has no default, and of every output."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [
        (value.name, value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim))
        for value in (*proto.graph.input, *proto.graph.output)
        if value.name not in weights
    ]
