"""A graph's floating point numbers in 16 bits: which tensors, where the casts stand, what stays in fp32.

Whether an operator takes 16 bits is read from ONNX's own schemas. A tensor is stored either way; whoever needs the
other finds one cast of it, made before its first reader.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from convkit.spec.options import Precision

if TYPE_CHECKING:
    import onnx

_FILLED = {"Constant": "value", "ConstantOfShape": "value"}
_TYPED = {"Cast": "to", "EyeLike": "dtype", "RandomNormal": "dtype", "RandomUniform": "dtype"}
_LIKE = {"RandomNormalLike": "dtype", "RandomUniformLike": "dtype", "Multinomial": "dtype"}


class Lowered(NamedTuple):
    """What has been decided, with the graph that follows from it."""

    proto: onnx.ModelProto
    """Without the data of its weights, as it came."""
    low: frozenset[str]
    """Initializers to write in 16 bits, under the name that `low_name` gives."""
    full: frozenset[str]
    """Floating point initializers that are still read as they are."""
    kept: tuple[str, ...]
    """Nodes that stay in fp32 without having been asked to: their operator takes nothing else."""


def low_name(tensor: str) -> str:
    """Return what a tensor is called in 16 bits, where its own name stands for fp32."""
    return f"{tensor}_in_16_bits"


class _Lowering:
    def __init__(self, proto: onnx.ModelProto, precision: Precision, keep: Collection[str], *, emulate: bool) -> None:
        from onnx import TensorProto

        self.low = TensorProto.FLOAT16 if precision is Precision.FP16 else TensorProto.BFLOAT16
        self.spelled = "tensor(float16)" if precision is Precision.FP16 else "tensor(bfloat16)"
        self.newest = precision is not Precision.FP16
        self.emulate = emulate
        self.keep = frozenset(keep)
        self.graph = proto.graph
        self.opsets = {entry.domain: entry.version for entry in proto.opset_import}
        self.types = _types(proto)
        self.constants = {tensor.name for tensor in proto.graph.initializer}
        self.outputs = {value.name for value in proto.graph.output}
        self.stored_low: set[str] = set()
        self.made: dict[tuple[str, bool], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.low_weights: set[str] = set()
        self.full_weights: set[str] = set()
        self.kept: list[str] = []

    def run(self) -> None:
        for node in list(self.graph.node):
            low = self._low_slots(node)
            if low is None:
                self.kept.append(node.name)
            self._rewrite(node, low or set())
        for value in self.graph.output:
            if value.name in self.stored_low:
                self._give_back(value.name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _low_slots(self, node: onnx.NodeProto) -> set[tuple[str, int]] | None:
        """Return the floating point inputs and outputs that this node can have in 16 bits; None: it must stay.

        An operator without a schema, or with graphs of its own, stays in fp32.
        """
        if node.name in self.keep or any(attribute.g.node or attribute.graphs for attribute in node.attribute):
            return set()
        schema = _schema(node, self.opsets, newest=self.newest)
        if schema is None:
            return None
        slots = {
            (side, index)
            for side, names, formal in (("in", node.input, schema.inputs), ("out", node.output, schema.outputs))
            for index, name in enumerate(names)
            if self._is_float(name) and formal and self.spelled in formal[min(index, len(formal) - 1)].types
        }
        floats = {
            (side, index)
            for side, names in (("in", node.input), ("out", node.output))
            for index, name in enumerate(names)
            if self._is_float(name)
        }
        return None if floats and not slots else slots

    def _is_float(self, name: str) -> bool:
        from onnx import TensorProto

        return bool(name) and self.types.get(name) == TensorProto.FLOAT

    def _rewrite(self, node: onnx.NodeProto, low: set[tuple[str, int]]) -> None:
        from onnx import TensorProto

        for index, name in enumerate(node.input):
            if self._is_float(name):
                node.input[index] = self._as(name, low=("in", index) in low)
        self._rename_captured(node)
        lowered = {name for index, name in enumerate(node.output) if ("out", index) in low}
        if lowered and not self.emulate:
            for attribute in node.attribute:
                if attribute.name == _FILLED.get(node.op_type) and attribute.t.data_type == TensorProto.FLOAT:
                    lower_tensor(attribute.t, self.low)
                elif attribute.name == {**_TYPED, **_LIKE}.get(node.op_type) and attribute.i == TensorProto.FLOAT:
                    attribute.i = self.low
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name in lowered:
                if self.emulate:
                    node.output[index] = self._rounded(name)
                self.stored_low.add(name)

    def _as(self, name: str, *, low: bool) -> str:
        """Return the name under which a tensor is found in 16 bits, or in fp32; a cast is made where it is not yet."""
        if name in self.constants:
            return self._constant(name, low=low)
        if (name in self.stored_low) == low or (self.emulate and name in self.stored_low):
            return name
        if (name, low) not in self.made:
            made = low_name(name) if low else f"{name}_in_fp32"
            if self.emulate:
                self._round(name, made)
            else:
                self._cast(name, made, low=low)
            self.made[(name, low)] = made
        return self.made[(name, low)]

    def _constant(self, name: str, *, low: bool) -> str:
        """Weights are written in the form that their readers want; in both, where they differ."""
        (self.low_weights if low else self.full_weights).add(name)
        return low_name(name) if low else name

    def _give_back(self, name: str) -> None:
        """Let an output of the graph have its type again, under its name."""
        if self.emulate:
            return
        inner = low_name(name)
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, found in enumerate(names):
                    if found == name:
                        names[index] = inner
        self._cast(inner, name, low=False)

    def _cast(self, source: str, made: str, *, low: bool) -> None:
        from onnx import TensorProto, helper

        to = self.low if low else TensorProto.FLOAT
        self.nodes.append(helper.make_node("Cast", [source], [made], f"{made}_cast", to=to))

    def _rounded(self, name: str) -> str:
        """Let a tensor's name stand for its rounded numbers; return the name for those before."""
        exact = f"{name}_exact"
        self._round(exact, name)
        return exact

    def _round(self, source: str, made: str) -> None:
        from onnx import TensorProto, helper

        inner = f"{made}_rounded"
        self.nodes.append(helper.make_node("Cast", [source], [inner], f"{made}_round", to=self.low))
        self.nodes.append(helper.make_node("Cast", [inner], [made], f"{made}_widen", to=TensorProto.FLOAT))

    def _rename_captured(self, node: onnx.NodeProto) -> None:
        """What a node's own graphs read from outside is given to them in fp32."""
        for graph in _graphs(node):
            for inner in graph.node:
                for index, name in enumerate(inner.input):
                    if self._is_float(name) and (name in self.stored_low or name in self.constants):
                        inner.input[index] = self._as(name, low=False)
                self._rename_captured(inner)


def lower(proto: onnx.ModelProto, precision: Precision, *, keep: Collection[str], emulate: bool = False) -> Lowered:
    """Rewrite a graph in 16 bits; its inputs and outputs keep their types.

    Args:
        proto: the graph; changed in place. Every node has a name of its own.
        precision: `FP16` or `BF16`.
        keep: names of nodes that stay in fp32.
        emulate: keep the types, and round every tensor that would be stored in 16 bits: for a runtime without kernels.
    """
    work = _Lowering(proto, precision, keep, emulate=emulate)
    work.run()
    return Lowered(proto, frozenset(work.low_weights), frozenset(work.full_weights), tuple(work.kept))


def _types(proto: onnx.ModelProto) -> dict[str, int]:
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(proto, strict_mode=False).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


def _schema(node: onnx.NodeProto, opsets: dict[str, int], *, newest: bool) -> onnx.defs.OpSchema | None:
    from onnx import defs

    try:
        if newest:
            return defs.get_schema(node.op_type, domain=node.domain)
        return defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except defs.SchemaError:
        return None


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.g.node:
            yield attribute.g
        yield from attribute.graphs


def lower_tensor(tensor: onnx.TensorProto, low: int) -> None:
    """Write a float32 tensor's numbers in 16 bits, in place."""
    from onnx import helper, numpy_helper

    values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(low))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
