"""Reading tensors inside of a graph, and cutting a part out of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.graph.flow import Flow
from convkit.graph.model import MODEL_FILE, Model, write_npz
from convkit.graph.session import run_session, session_options, start_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

Arrays = dict[str, "np.ndarray"]
CUT_DATA = "model.npz"
_UNREADABLE = ("bfloat16", "float8", "int4")
"""Element types that ONNX Runtime does not hand over to numpy."""
_EXOTIC_TYPES = (16, 17, 18, 19, 20, 21, 22, 23)  # TensorProto's BFLOAT16, FLOAT8*, UINT4, INT4, FLOAT4


class Tap:
    """A model whose inner tensors can be read."""

    def __init__(self, model: Model) -> None:
        import onnx

        self.model = model
        self.proto = onnx.load(str(model.path), load_external_data=False)
        self.flow = Flow(self.proto.graph)

    def unreadable(self) -> frozenset[str]:
        """Return the tensors that cannot be read: sequences, and those of element types that numpy has not."""
        if not any(_is_exotic(node) for node in self.flow.nodes) and not any(
            tensor.data_type in _EXOTIC_TYPES for tensor in self.proto.graph.initializer
        ):
            return frozenset()
        names = [*self.flow.tensors()]
        return frozenset(names) - frozenset(self.open(names).names)

    def open(self, names: Iterable[str]) -> Reader:
        """Open the part of the graph that these tensors need, without optimizations."""
        wanted = list(dict.fromkeys(names))
        proto = part_of(self.proto, self.flow, self.flow.behind(wanted))
        declared = {value.name: value for value in self.proto.graph.output}
        del proto.graph.output[:]
        for name in wanted:
            if name in self.flow.maker:
                proto.graph.output.add().CopyFrom(declared.get(name) or _named(name))
        options = session_options(plain=True)
        return Reader(
            start_session(self.model.path.absolute(), options, content=proto.SerializeToString()),
            wanted,
            self.flow.inputs,
        )


class Reader:
    """An opened part of a graph."""

    def __init__(self, session: Any, names: list[str], inputs: Collection[str]) -> None:
        self._session = session
        kinds = {output.name: output.type for output in session.get_outputs()}
        self.names = tuple(name for name in names if name in kinds and _is_readable(kinds[name]))
        self._given = tuple(name for name in names if name in inputs)

    def __call__(self, case: Mapping[str, np.ndarray]) -> Arrays:
        """Return the tensors that it was opened for, except those that cannot be read."""
        given = {name: case[name] for name in self._given}
        taken = {value.name: case[value.name] for value in self._session.get_inputs()}
        return {**given, **(run_session(self._session, self.names, taken) if self.names else {})}


def _is_exotic(node: onnx.NodeProto) -> bool:
    """Tell whether a node may make what cannot be read, as its own attributes show."""
    return "Sequence" in node.op_type or any(
        (attribute.name in ("to", "dtype", "output_dtype") and attribute.i in _EXOTIC_TYPES)
        or attribute.t.data_type in _EXOTIC_TYPES
        for attribute in node.attribute
    )


def _named(name: str) -> onnx.ValueInfoProto:
    import onnx

    return onnx.ValueInfoProto(name=name)  # its type is inferred


def _is_readable(kind: str) -> bool:
    return kind.startswith("tensor(") and not any(name in kind for name in _UNREADABLE)


def part_of(proto: onnx.ModelProto, flow: Flow, nodes: Iterable[int]) -> onnx.ModelProto:
    """Return a model of these nodes alone, with their weights and all inputs; what its outputs are is left open."""
    import onnx

    chosen = list(nodes)
    read = {name for index in chosen for name in flow.needs[index]}
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    graph = part.graph
    graph.name = proto.graph.name
    graph.node.extend(flow.nodes[index] for index in chosen)
    graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in read)
    graph.sparse_initializer.extend(tensor for tensor in proto.graph.sparse_initializer if tensor.values.name in read)
    graph.input.extend(value for value in proto.graph.input if value.name in flow.inputs or value.name in read)
    graph.output.extend(proto.graph.output)
    return part


def cut_out(tap: Tap, inputs: Arrays, outputs: Arrays, folder: Path) -> list[str]:
    """Write the nodes between some tensors and others as a model of its own, with its inputs and expected outputs.

    Args:
        tap: the model.
        inputs: values of the tensors that become inputs; what they are computed from is left out.
        outputs: values of the tensors that become outputs.
        folder: where ``model.onnx``, weights and all, and ``model.npz`` are written.

    Returns the names of the nodes that are in it.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    nodes = tap.flow.behind(outputs, stop=frozenset(inputs))
    part = part_of(tap.proto, tap.flow, nodes)
    for fields, arrays in ((part.graph.input, inputs), (part.graph.output, outputs)):
        del fields[:]
        fields.extend(_typed(name, array) for name, array in arrays.items())
    for tensor in part.graph.initializer:
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, tap.model.files.path)
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
    (folder / MODEL_FILE).write_bytes(part.SerializeToString())
    write_npz(folder / CUT_DATA, {**inputs, **outputs})
    return [node.name for node in part.graph.node]


def _typed(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    import onnx

    kind = onnx.TensorProto.STRING if array.dtype.kind in "OU" else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    value: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(name, kind, array.shape)
    return value
