"""Element types that TensorRT does not have, or not for an operator; names and types of inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.facts import Facts, Placed, dims_of
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_operators import operator_table
from convkit.targets.trt_rules import CONVKIT, Rule, all_constant, is_onnx

if TYPE_CHECKING:
    import onnx

_ABSENT = frozenset(
    (
        *("int16", "uint16", "uint32", "uint64", "string", "complex64", "complex128"),
        *("float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "int2", "uint2", "uint4"),
    )
)
"""Types that no tensor of TensorRT's has, be it an input, an output or in between."""
_INTEGERS = frozenset(("int8", "uint8", "int32", "int64"))
_ONE_TYPE = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "MatMul", "Equal", "Less", "Greater"), (0, 1)),
    **dict.fromkeys(("LessOrEqual", "GreaterOrEqual", "Mod", "Gemm", "Conv", "ConvTranspose"), (0, 1, 2)),
    "Where": (1, 2),
    "Concat": tuple(range(64)),
    "Sum": tuple(range(64)),
}
"""Operators whose inputs must be of one type, and which inputs."""
_FLOATS_ONLY = (
    "MatMul|Gemm|Conv|ConvTranspose|Softmax|LogSoftmax|Sigmoid|Tanh|Exp|Log|Sqrt|Floor|Ceil|Round|Erf|Reciprocal|"
    "Sin|Cos|Tan|Elu|Selu|Softplus|HardSigmoid|LeakyRelu|AveragePool|MaxPool|GlobalAveragePool|IsNaN|Resize"
)
"""Operators that were refused with int32 and int64."""


def _types_that_differ(node: Placed, facts: Facts) -> str | None:
    names = [node.input(index) for index in _ONE_TYPE[node.operator] if node.input(index)]
    kinds = {name: facts.type_name(name) for name in names}
    if len({kind for kind in kinds.values() if kind}) < 2:
        return None
    listed = ", ".join(f"'{name}' is {kind}" for name, kind in list(kinds.items())[:3] if kind)
    return f"its inputs must be of one type: {listed}"


def _absent_type(node: Placed, facts: Facts) -> str | None:
    if node.operator in ("QuantizeLinear", "DequantizeLinear") or all_constant(node, facts):
        return None
    for name in (*node.proto.input, *node.proto.output):
        if (kind := facts.type_name(name)) in _ABSENT:
            return f"'{name}' is {kind}, which TensorRT does not have"
    return None


def _refused_type(node: Placed, facts: Facts) -> str | None:
    entry = operator_table().operators.get(node.operator) if is_onnx(node) else None
    kind = facts.type_name(node.input(0))
    if entry is None or kind.upper() not in entry.refused_types or all_constant(node, facts):
        return None
    return f"TensorRT has no {node.operator} of {kind}"


def _integers(node: Placed, facts: Facts) -> str | None:
    kind = facts.type_name(node.input(0))
    if kind not in _INTEGERS or all_constant(node, facts) or not is_onnx(node):
        return None
    if (node.operator, kind) in (("MaxPool", "int8"), ("AveragePool", "int8"), ("Resize", "int8")):
        return None
    return f"TensorRT has no {node.operator} of {kind}"


def _in_double(node: Placed, facts: Facts) -> str | None:
    kinds = {facts.type_name(name) for name in (*node.proto.input, *node.proto.output) if name}
    if "double" not in kinds or all_constant(node, facts):
        return None
    return "it is computed in float64 by the model, and in float32 by TensorRT"


TYPES = (
    Rule(
        "mixed-types",
        "|".join(_ONE_TYPE),
        _types_that_differ,
        "give both inputs one type with a Cast: strongly typed TensorRT converts nothing by itself",
        mend="one-type",
    ),
    Rule(
        "absent-type",
        ".*",
        _absent_type,
        "use int32, int64 or float32 in the model's code, and export again; keep strings outside the model",
        mend="wider-integers",
    ),
    Rule(
        "integer-operator",
        _FLOATS_ONLY,
        _integers,
        "cast to float32 before it, and back behind it",
        mend="through-float",
    ),
    Rule(
        "refused-type",
        ".*",
        _refused_type,
        "cast to int32 or float32 before it, and back behind it",
        mend="through-wider",
    ),
    Rule(
        "double",
        "(?!Cast$).*",
        _in_double,
        "write the model in float32",
        mend="float32",
        severity=Weight.WARNING,
        beyond_parser=True,
    ),
)
"""One row for each way in which a type is wrong."""


def interface_types(facts: Facts) -> Iterator[Finding]:
    """Find inputs and outputs of types, or kinds, that an engine does not have."""
    for side, values in (("input", facts.inputs), ("output", facts.graph.output)):
        for value in values:
            if (found := _of_value(value, side)) is not None:
                yield found


def _of_value(value: onnx.ValueInfoProto, side: str) -> Finding | None:
    import onnx

    kind = value.type.WhichOneof("value")
    if kind not in (None, "tensor_type"):
        reason = f"it is a {kind.removesuffix('_type')}, and TensorRT knows tensors only"
        return _finding(value.name, side, "not-a-tensor", reason, "give its tensors one by one: export without it")
    elements = str(onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()
    if elements == "double":
        reason = "TensorRT has no float64: its engine would have float32 under this name"
        return _finding(value.name, side, "interface-type", reason, "declare float32", mend="float32")
    if elements in _ABSENT:
        mend = "wider-integers" if elements in ("int16", "uint16", "uint32", "uint64") else ""
        fix = (
            "declare int32 or int64"
            if mend
            else "cast inside the model, and declare another type; keep strings outside"
        )
        return _finding(value.name, side, "interface-type", f"TensorRT has no {elements}", fix, mend=mend)
    if any(dim == 0 for dim in dims_of(value)):
        empty = _finding(value.name, side, "empty", "it has a dimension of 0", "declare it free, or with its real size")
        return msgspec.structs.replace(empty, severity=Weight.WARNING)
    return None


def _finding(name: str, side: str, code: str, reason: str, fix: str, *, mend: str = "") -> Finding:
    return Finding(
        code=code, node=name, operator=side, reason=reason, fix=fix, mend=mend, found_by=(CONVKIT,), beyond_parser=True
    )
