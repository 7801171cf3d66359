"""What can be known of a graph without running it: types, shapes and constants of tensors, who makes and reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.graph.names import subgraphs
from convkit.graph.wire import read_without_weights

if TYPE_CHECKING:
    import numpy as np
    import onnx

SMALL = 1 << 16
"""Bytes of a constant up to which its values are looked at; of larger ones only type and shape."""

Dims = tuple[int | str | None, ...]
"""Sizes; names of free dimensions; None where nothing is known."""


class Placed(NamedTuple):
    """A node, and how a user finds it."""

    proto: onnx.NodeProto
    name: str
    """Its name, or ``node 7``: its place in its graph."""

    @property
    def operator(self) -> str:
        """Return the operator's type."""
        return str(self.proto.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value."""
        import onnx

        found = next((each for each in self.proto.attribute if each.name == name), None)
        value = default if found is None else onnx.helper.get_attribute_value(found)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def input(self, index: int) -> str:
        """Return an input's name; empty where it is left out."""
        return self.proto.input[index] if index < len(self.proto.input) else ""

    def output(self, index: int) -> str:
        """Return an output's name; empty where it is left out."""
        return self.proto.output[index] if index < len(self.proto.output) else ""


class Facts:
    """Of a model whose large weights may be left out; nothing is changed."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.opset = next((int(each.version) for each in proto.opset_import if each.domain in ("", "ai.onnx")), 0)
        self.functions = {(function.domain, function.name) for function in proto.functions}
        self.nodes: list[Placed] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.types: dict[str, int] = {}
        self.dims: dict[str, Dims] = {}
        self.makers: dict[str, Placed] = {}
        self.readers: dict[str, list[Placed]] = {}
        for graph in subgraphs(proto.graph):
            self._add_weights(graph)
            for index, node in enumerate(graph.node):
                self._add_node(Placed(node, node.name or f"node {index}"))
        for graph in subgraphs(_inferred(proto).graph):
            self._add_values(graph)
        self.inputs = tuple(value for value in proto.graph.input if value.name not in self.weights)
        self.outputs = {value.name for value in proto.graph.output}

    def _add_weights(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            self.weights[tensor.name] = tensor
            self.types[tensor.name] = tensor.data_type
            self.dims[tensor.name] = tuple(tensor.dims)

    def _add_node(self, node: Placed) -> None:
        self.nodes.append(node)
        for name in node.proto.output:
            self.makers.setdefault(name, node)
        for name in node.proto.input:
            self.readers.setdefault(name, []).append(node)
        if node.operator == "Constant":
            tensor = node.attribute("value")
            if tensor is not None and hasattr(tensor, "dims"):
                self.weights[node.proto.output[0]] = tensor

    def _add_values(self, graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.WhichOneof("value") == "tensor_type":
                tensor = value.type.tensor_type
                self.types.setdefault(value.name, tensor.elem_type)
                if tensor.HasField("shape"):
                    self.dims.setdefault(value.name, tuple(_dim(dim) for dim in tensor.shape.dim))

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is the same whatever the inputs are: a weight, or made of weights alone."""
        return self._constant(name, frozenset())

    def _constant(self, name: str, on_the_way: frozenset[str]) -> bool:
        if name in self.weights or not name:
            return True
        maker = self.makers.get(name)
        if maker is None or name in on_the_way:
            return False
        if maker.operator == "Shape":
            dims = self.dims.get(maker.input(0))
            return dims is not None and all(isinstance(dim, int) for dim in dims)
        free = maker.operator.startswith(("Random", "Bernoulli", "Multinomial"))
        return not free and all(self._constant(each, on_the_way | {name}) for each in maker.proto.input)

    def value(self, name: str) -> np.ndarray | None:
        """Return a weight's values, where they are small and here."""
        from onnx import numpy_helper

        tensor = self.weights.get(name)
        if tensor is None or tensor.data_location == tensor.EXTERNAL or _emptied(tensor):
            return None
        values: np.ndarray = numpy_helper.to_array(tensor)
        return values

    def type_name(self, name: str) -> str:
        """Return a tensor's element type as ONNX spells it, in small letters; empty where it is not known."""
        import onnx

        kind = self.types.get(name, 0)
        return str(onnx.TensorProto.DataType.Name(kind)).lower() if kind else ""

    def is_read(self, name: str) -> bool:
        """Tell whether anything reads a tensor: a node, an inner graph, or the caller."""
        return bool(name) and (name in self.readers or name in self.outputs or self._captured(name))

    def _captured(self, name: str) -> bool:
        inner = [graph for graph in subgraphs(self.graph) if graph is not self.graph]
        return any(name in {value.name for value in graph.output} for graph in inner)


def read_facts(path: Path) -> Facts:
    """Read an ONNX file's facts; memory does not grow with its weights."""
    from onnx import external_data_helper

    proto = read_without_weights(path, keep=SMALL)
    for tensor in proto.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL and _stored_bytes(tensor, path.parent) <= SMALL:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = tensor.DEFAULT
            del tensor.external_data[:]
    return Facts(proto)


def dims_of(value: onnx.ValueInfoProto) -> Dims:
    """Return the shape that an input or output declares."""
    return tuple(_dim(dim) for dim in value.type.tensor_type.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _stored_bytes(tensor: onnx.TensorProto, folder: Path) -> int:
    """Return the bytes of a weight that lies beside the model; too many where that is not said, or it is not there."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    there = (folder / said.get("location", "")).is_file()
    return int(said["length"]) if there and said.get("length", "").isdecimal() else SMALL + 1


def _emptied(tensor: onnx.TensorProto) -> bool:
    stored: Iterator[Any] = (
        getattr(tensor, field)
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
    )
    return not any(len(each) for each in stored) and 0 not in tensor.dims


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return proto  # what stands in the way is found by a rule
