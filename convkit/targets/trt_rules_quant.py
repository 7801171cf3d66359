"""What TensorRT takes of Q/DQ pairs: signed, symmetric, with scales that are known and above 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.facts import Facts, Placed
from convkit.targets.trt_rules import Rule

if TYPE_CHECKING:
    import numpy as np

_TAKEN = frozenset(("int8", "int4", "float8e4m3fn", "float4e2m1"))


def _quantized_type(node: Placed, facts: Facts) -> str:
    """Return the element type of what is quantized: empty where that is not known."""
    if node.operator == "DequantizeLinear":
        return facts.type_name(node.input(0)) or facts.type_name(node.input(2))
    return facts.type_name(node.input(2)) or facts.type_name(node.output(0)) or "uint8"  # as ONNX has it


def _int32_bias(node: Placed, facts: Facts) -> str | None:
    if _quantized_type(node, facts) != "int32":
        return None
    return "it holds an int32 bias, which TensorRT does not dequantize"


def _asymmetric(node: Placed, facts: Facts) -> str | None:
    kind = _quantized_type(node, facts)
    point = facts.value(node.input(2))
    shifted = point is not None and bool((point.astype("float32") != 0).any())
    if shifted and kind in ("int8", "uint8"):
        return f"the zero point is not 0 ({_shown(point)}): TensorRT takes symmetric quantization only"
    return None


def _unsigned(node: Placed, facts: Facts) -> str | None:
    if _quantized_type(node, facts) != "uint8":
        return None
    return "it is uint8, which TensorRT reads as int8: values above 127 come out as others"


def _shown(point: np.ndarray | None) -> str:
    numbers = sorted({int(value) for value in point.reshape(-1)}) if point is not None else []
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _other_type(node: Placed, facts: Facts) -> str | None:
    kind = _quantized_type(node, facts)
    if kind in _TAKEN or kind in ("uint8", "int32", ""):
        return None
    return f"it is quantized to {kind}; TensorRT takes int8, int4, FP8 (E4M3) and FP4"


def _bad_scale(node: Placed, facts: Facts) -> str | None:
    scale = facts.value(node.input(1))
    if scale is None or not scale.size:
        return None
    values = scale.astype("float32")
    if bool((values > 0).all()) and bool((values < float("inf")).all()):
        return None
    wrong = float(values[~((values > 0) & (values < float("inf")))].reshape(-1)[0])
    return f"its scale is {wrong:g}; scales must be above 0"


def _scales_beside_the_axis(node: Placed, facts: Facts) -> str | None:
    dims = facts.dims.get(node.input(0))
    scales = facts.dims.get(node.input(1))
    if not dims or not scales or len(scales) != 1 or scales[0] == 1:
        return None
    axis = int(node.attribute("axis", 1))
    if not -len(dims) <= axis < len(dims):
        return f"its axis is {axis}, and the tensor has {len(dims)} dimensions"
    channels = dims[axis]
    if not isinstance(channels, int) or channels == scales[0] or node.attribute("block_size", 0):
        return None
    return f"it has {scales[0]} scales for the {channels} channels of axis {axis}"


_CONVKIT = "let convkit quantize the floating-point model with --quantize int8"

QUANTIZATION = (
    Rule(
        "scale-not-positive",
        "(Dequantize|Quantize)Linear",
        _bad_scale,
        "give it a small scale above 0, or leave the pair out: nothing passed there in calibration",
        mend="scale",
    ),
    Rule(
        "int32-bias",
        "DequantizeLinear",
        _int32_bias,
        f"leave biases in floating point; or {_CONVKIT}",
        mend="float-bias",
    ),
    Rule(
        "asymmetric",
        "(Dequantize|Quantize)Linear",
        _asymmetric,
        f"quantize signed and symmetric; or {_CONVKIT}",
        mend="symmetric",
    ),
    Rule(
        "unsigned",
        "(Dequantize|Quantize)Linear",
        _unsigned,
        f"quantize signed and symmetric; or {_CONVKIT}",
        mend="symmetric",
        beyond_parser=True,
    ),
    Rule("quantized-type", "(Dequantize|Quantize)Linear", _other_type, _CONVKIT),
    Rule(
        "scales-and-axis",
        "(Dequantize|Quantize)Linear",
        _scales_beside_the_axis,
        "give axis the dimension that has as many channels as there are scales",
        mend="scale-axis",
    ),
)
"""One row for each way in which a pair is wrong."""
