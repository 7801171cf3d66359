"""What stands between a model and TensorRT: which node, why, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from convkit.errors import StepError
from convkit.spec.tensor import DType, Interface, TensorSpec
from convkit.targets.finding import Finding
from convkit.targets.trt_api import Flavour, Network, plain
from convkit.targets.trt_types import ITensor, ParserError

_LONGEST_LIST = 5

DTYPES = {
    "FLOAT": DType.FLOAT32,
    "HALF": DType.FLOAT16,
    "BF16": DType.BFLOAT16,
    "INT8": DType.INT8,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "BOOL": DType.BOOL,
    "UINT8": DType.UINT8,
}
"""The types that an engine's inputs and outputs can have, by the name in TensorRT's DataType."""


class _Rule(NamedTuple):
    operator: str
    """A regular expression for the whole operator type."""
    mark: str
    """What TensorRT's message holds."""
    reason: str
    """The reason in plain words; empty: TensorRT's own."""
    fix: str


_RULES = (
    _Rule(
        "DynamicQuantizeLinear|ConvInteger|MatMulInteger",
        "",
        "TensorRT has no dynamic quantization",
        "quantize with calibration data instead: --quantize int8 --calibration-data FILE, or use --quantize fp16",
    ),
    _Rule(
        "QLinear.*|QAttention|QGemm",
        "",
        "TensorRT takes quantization as QuantizeLinear and DequantizeLinear pairs only",
        "quantize in the Q/DQ form: let convkit do it from the floating-point model with --quantize int8",
    ),
    _Rule(
        "QuantizeLinear|DequantizeLinear",
        "zero point",
        "the zero point is not 0: TensorRT takes symmetric quantization only",
        "quantize signed and symmetric: let convkit do it from the floating-point model with --quantize int8",
    ),
    _Rule(
        "DequantizeLinear",
        "type Int32",
        "it holds an int32 bias, which TensorRT does not dequantize",
        "leave biases in floating point: let convkit quantize the floating-point model with --quantize int8",
    ),
    _Rule(
        ".*",
        "must have same input types",
        "",
        "give both inputs one type with a Cast: strongly typed TensorRT converts nothing by itself",
    ),
    _Rule(
        ".*",
        "Plugin not found",
        "TensorRT knows neither an operator nor a plugin of this name",
        "export the model with standard ONNX operators, or replace this layer in the model's code; "
        "--to onnxruntime runs what ONNX Runtime knows",
    ),
    _Rule(
        ".*",
        "ONNX date type",  # its own spelling
        "a tensor has a type that TensorRT does not know, such as strings or complex numbers",
        "keep such tensors outside the model: in the client, or in another model of an ensemble",
    ),
    _Rule(".*", "Failed to parse the ONNX model", "the file is no ONNX model", "convert the model again"),
)
_FALLBACK_FIX = "export this layer another way (another --opset, other shapes or types), or use --to onnxruntime"
UNEXPLAINED = Finding(
    node="the model", operator="model", reason="the parser refused it without a word", fix=_FALLBACK_FIX
)
_SAYS_NOTHING = re.compile(r"|false|Assertion failed: false.*")
_DEBRIS = (
    (re.compile(r"^Invalid Node - .*\n"), ""),
    (re.compile(r"^I[A-Z]\w+::\w+: "), ""),
    (re.compile(r"^Error Code \d+: (?:API Usage Error |Internal Error )?"), ""),
    (re.compile(r"\.? In \S+ at [^)\s]+:\d+"), ""),
    (re.compile(r"\[\w+\.cpp:\d+: \w+\] "), ""),
    (re.compile(r"^\((.*)\)$"), r"\1"),
    (re.compile(r"^Assertion failed: .*?: (?=[A-Z])"), ""),
    (re.compile(r'^.* && "(.*)"$'), r"\1"),
)


def findings_of(errors: Iterable[ParserError]) -> tuple[Finding, ...]:
    """Put a parser's errors into words; what it says twice of a node is said once."""
    return tuple({(found.node, found.reason): found for found in map(finding_of, errors)}.values()) or (UNEXPLAINED,)


def finding_of(error: ParserError) -> Finding:
    """Put a parser's error into words."""
    operator = error.node_operator() or "model"
    said = tidy(error.desc())
    node = error.node_name() or (f"node {error.node()}" if error.node() >= 0 else "the model")
    wants_plugin = "plugin registry" in said or operator.endswith("_TRT")
    for rule in _RULES:
        if re.fullmatch(rule.operator, operator) and rule.mark in said:
            reason, fix = rule.reason or said, rule.fix
            break
    else:
        reason = f"TensorRT does not take {operator}" if _SAYS_NOTHING.fullmatch(said) else said
        fix = _FALLBACK_FIX
    return Finding(node=node, operator=operator, reason=reason, fix=fix, wants_plugin=wants_plugin)


def tidy(text: str) -> str:
    """Return TensorRT's message on one line, without the places in its source that raised it."""
    text = plain(text)
    for pattern, replacement in _DEBRIS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def interface_findings(network: Network, interface: Interface) -> list[Finding]:
    """Compare what the parser made of inputs and outputs with what the server's configuration will say of them."""
    found = []
    for side, tensors, specs in (
        ("input", network.inputs, interface.inputs),
        ("output", network.outputs, interface.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in tensors}
        found += [_tensor_finding(side, spec, by_name.get(spec.name)) for spec in specs]
    return [finding for finding in found if finding is not None]


def _tensor_finding(side: str, spec: TensorSpec, tensor: ITensor | None) -> Finding | None:
    if tensor is None:
        reason, fix = "the parsed network does not have it", "take it out of config.txt, or use it in the model"
    elif DTYPES.get(tensor.dtype.name) is not spec.dtype:
        wanted = spec.dtype.value
        if spec.dtype in DTYPES.values():
            reason = f"it is declared as {wanted}, the parsed network has {tensor.dtype.name}"
            fix = "correct data_type in config.txt, and convert again"
        else:
            reason = f"TensorRT has no {wanted}: its engine would have {tensor.dtype.name} under this name"
            fix = f"cast inside the model, and declare another type than {wanted}"
    else:
        return None
    return Finding(node=spec.name, operator=side, reason=reason, fix=fix)


def refuse(findings: tuple[Finding, ...], flavour: Flavour, *, stage: str | None = None) -> None:
    """Pass when there are no findings. `stage` is named where no step is running that names its own.

    Raises:
        StepError: lists the findings and the first one's fix.
    """
    if not findings:
        return
    shown = [f"  {finding}" for finding in findings[:_LONGEST_LIST]]
    if len(findings) > _LONGEST_LIST:
        shown.append(f"  and {len(findings) - _LONGEST_LIST} more")
    raise StepError(
        f"{flavour.product} does not take this model:\n" + "\n".join(shown),
        hint=findings[0].fix,
        code="tensorrt.unsupported",
        stage=stage,
    )
