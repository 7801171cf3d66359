"""Element types brought to what a runtime has: one for all inputs of a node, wider integers, float32 for float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from convkit.graph.facts import Placed
from convkit.graph.mend_edit import Edit, retype

if TYPE_CHECKING:
    import numpy as np
    import onnx

_WIDTH = ("bool", "int8", "uint8", "int32", "int64", "float16", "bfloat16", "float", "double")
"""Types, the narrower first."""
_WIDER = {
    **dict.fromkeys(("bool", "int8", "uint8", "int16", "uint16"), "int32"),
    **dict.fromkeys(("uint32", "uint64"), "int64"),
    **dict.fromkeys(("float16", "bfloat16", "double"), "float"),
}
_OF_DATA = {"MatMul": 2, "Gemm": 3, "Conv": 3, "ConvTranspose": 3}
"""How many inputs are data, where it is not the first alone."""


def number_of(kind: str) -> int:
    """Return ONNX's number of an element type."""
    import onnx

    return int(onnx.TensorProto.DataType.Value(kind.upper()))


def to_one_type(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Give all inputs of a node the widest of their types, or that of what is computed where weights fit into it."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        kinds = {name: edit.facts.type_name(name) for name in node.proto.input if name}
        if node.operator == "Where":
            kinds.pop(node.input(0), None)
        known = {kind for kind in kinds.values() if kind in _WIDTH}
        if len(known) < 2:
            continue
        computed = {kind for name, kind in kinds.items() if name not in edit.facts.weights}
        target = max(known, key=_WIDTH.index)
        if len(computed) == 1 and all(_fits(edit, name, next(iter(computed))) for name in kinds):
            target = next(iter(computed))
        _convert(edit, node, {name for name, kind in kinds.items() if kind != target}, target)
    return edit.proto


def _fits(edit: Edit, name: str, kind: str) -> bool:
    """Tell whether a tensor is of a type, or a weight whose values that type holds: int64 that are small as int32."""
    import numpy as np
    from onnx import helper

    if edit.facts.type_name(name) == kind:
        return True
    values = edit.facts.value(name)
    if values is None:
        return False
    converted = values.astype(helper.tensor_dtype_to_np_dtype(number_of(kind)))
    if values.dtype.kind == "f":
        return bool(np.isfinite(converted.astype(np.float32)).all())
    return bool((converted.astype(np.float64) == values.astype(np.float64)).all())


def _convert(edit: Edit, node: Placed, names: set[str], kind: str, *, back: bool = True) -> None:
    """Feed a node some of its inputs in another type, and give its outputs the type that they were said to have."""
    from onnx import helper

    now = edit.current(node)
    outputs = {name: edit.facts.types.get(name, 0) for name in now.output if name}
    first = edit.facts.types.get(node.input(0), 0)
    before, after = [], []
    for index, name in enumerate(now.input):
        if name not in names:
            continue
        values = edit.facts.value(name)
        if values is not None:
            dtype = helper.tensor_dtype_to_np_dtype(number_of(kind))
            now.input[index] = edit.weight(values.astype(dtype), f"{name}__{kind}")
        else:
            now.input[index], cast = edit.cast(name, number_of(kind))
            before.append(cast)
    for index, (name, said) in enumerate(outputs.items()):
        expected = said or first
        if back and expected not in (0, number_of(kind)) and (index == 0 or expected == first):
            inner = edit.free(f"{name}__{kind}")
            after.append(helper.make_node("Cast", [inner], [name], name=f"{inner}_back", to=expected))
            now.output[index] = inner
    changed = Placed(now, node.name)
    edit.insert(changed, before=before, after=after)


def through_float(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Compute on integers in float32, which holds whole numbers up to 2^24 exactly."""
    return _through(proto, nodes, lambda _: "float")


def through_wider(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Compute in int32, int64 or float32 what has no operator for its own type."""
    return _through(proto, nodes, lambda kind: _WIDER.get(kind, "float"))


def _through(proto: onnx.ModelProto, nodes: frozenset[str], wider: Callable[[str], str]) -> onnx.ModelProto:
    edit = Edit(proto)
    for node in edit.named(nodes):
        kind = edit.facts.type_name(node.input(0))
        alike = [name for name in node.proto.input if edit.facts.type_name(name) == kind]
        data = (
            set(node.proto.input[: _OF_DATA[node.operator]]) if node.operator in _OF_DATA else {node.input(0), *alike}
        )
        if node.operator in ("Resize", "TopK", "ReduceMax", "ReduceMin"):
            data = {node.input(0)}
        _convert(edit, node, {name for name in data if name}, wider(kind), back=_follows(edit, node))
    return edit.proto


def _follows(edit: Edit, node: Placed) -> bool:
    """Tell whether a node's output is of its input's type, or of a wider integer."""
    kinds = [edit.facts.type_name(name) for name in node.proto.output if name]
    return bool(kinds) and kinds[0] in ("", edit.facts.type_name(node.input(0)))


def to_float32(proto: onnx.ModelProto, _: frozenset[str]) -> onnx.ModelProto:
    """Write float64 as float32 everywhere, inputs and outputs too."""
    retype(proto, {number_of("double"): number_of("float")}, _as_type)
    return proto


def to_wider_integers(proto: onnx.ModelProto, _: frozenset[str]) -> onnx.ModelProto:
    """Write integers that few runtimes have as int32 or int64 everywhere; a model quantized to 16 bits is left."""
    kinds = {number_of(kind): number_of(_WIDER[kind]) for kind in ("int16", "uint16", "uint32", "uint64")}
    quantized = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in proto.graph.node)
    if not quantized:
        retype(proto, kinds, _as_type)
    return proto


def _as_type(values: np.ndarray, kind: int) -> np.ndarray:
    from onnx import helper

    converted: np.ndarray = values.astype(helper.tensor_dtype_to_np_dtype(kind))
    return converted
