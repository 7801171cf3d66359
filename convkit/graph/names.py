"""Tensor names inside an ONNX graph: renaming them, and taking out what tells of the machine that wrote the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and every graph inside its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from subgraphs(attribute.g)
            for inner in attribute.graphs:
                yield from subgraphs(inner)


def undefined(graph: onnx.GraphProto, outer: frozenset[str] = frozenset()) -> str | None:
    """Return a tensor that a node or an output reads and that is nowhere; None where there is none.

    `outer`: names of the graphs around this one, which it may read.
    """
    known = outer | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    known |= {name for node in graph.node for name in node.output}
    wanted = [name for node in graph.node for name in node.input] + [value.name for value in graph.output]
    found: str | None = next((name for name in wanted if name and name not in known), None)
    if found is not None:
        return found
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    inner = [one for held in attributes for one in (*([held.g] if held.HasField("g") else []), *held.graphs)]
    return next((name for one in inner if (name := undefined(one, known)) is not None), None)


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever they stand: inputs, outputs, initializers, nodes, inner graphs.

    A tensor that already has one of the new names, and is not renamed itself, makes room.
    """
    taken = {name for inner in subgraphs(graph) for node in inner.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for inner in subgraphs(graph) for tensor in inner.initializer}
    taken |= {value.name for value in (*graph.input, *graph.output)}
    full = dict(names)
    for new in names.values():
        if new in taken and new not in names:
            full[new] = _free(f"{new}__inner", taken)
    for inner in subgraphs(graph):
        for node in inner.node:
            _replace(node.input, full)
            _replace(node.output, full)
        for tensor in inner.initializer:
            tensor.name = full.get(tensor.name, tensor.name)
        for value in (*inner.input, *inner.output, *inner.value_info):
            value.name = full.get(value.name, value.name)


def _replace(names: object, mapping: Mapping[str, str]) -> None:
    for index, name in enumerate(names):  # type: ignore[var-annotated,arg-type]
        if name in mapping:
            names[index] = mapping[name]  # type: ignore[index]


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def separate_outputs(graph: onnx.GraphProto) -> None:
    """Give every output a tensor of its own, where it is an input, a weight, or an output already."""
    import onnx

    shared = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for number, output in enumerate(graph.output):
        if output.name in shared:
            copy = f"{output.name}__output_{number}"
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [copy], name=f"{copy}_identity"))
            output.name = copy
        shared.add(output.name)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: quantizers and parsers tell nodes apart by it."""
    taken = {node.name for inner in subgraphs(graph) for node in inner.node}
    seen = {""}
    for inner in subgraphs(graph):
        for number, node in enumerate(inner.node):
            if node.name in seen:
                node.name = _free(f"{node.name or node.op_type}_{number}", taken)
                taken.add(node.name)
            seen.add(node.name)


def strip_origins(proto: onnx.ModelProto) -> None:
    """Take out documentation strings and metadata: exporters write absolute paths and stack traces there.

    Two folders then give the same bytes. Names, shapes and numbers stay as they are.
    """
    proto.ClearField("doc_string")
    proto.ClearField("metadata_props")
    graphs = list(subgraphs(proto.graph))
    holders: list[object] = [*graphs, *proto.functions]
    for graph in graphs:
        holders += [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for function in proto.functions:
        holders += [*function.node, *function.value_info]
    for holder in holders:
        holder.ClearField("doc_string")  # type: ignore[attr-defined]
        holder.ClearField("metadata_props")  # type: ignore[attr-defined]
