"""One model, one file: tf2onnx numbers what it makes by addresses in memory, differently in every run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from convkit.graph.names import rename_tensors, subgraphs
from convkit.graph.ordering import order_nodes

if TYPE_CHECKING:
    import onnx

_NOISE = re.compile(r"__\d+|(?<=einsum)\d+|^((Stateful)?PartitionedCall(_\d+)?/)+")
"""What tf2onnx puts into a name, a running number or an address, and the calls through which TensorFlow came there."""


def settle(proto: onnx.ModelProto) -> None:
    """Order nodes and weights as the outputs need them, and clear their names, in that order, of all noise.

    The graph's inputs and outputs keep their names; a weight without a clean name is called after the node that uses
    it first.
    """
    order_nodes(proto.graph)
    names = _Names(proto.graph)
    for node in _walk(proto.graph):
        node.name = names.cleaned(node.name)
        for output in node.output:
            names.take(output)
    for graph in subgraphs(proto.graph):
        for value in graph.input:
            names.take(value.name)
    for node in _walk(proto.graph):
        for position, name in enumerate(node.input):
            names.take(name, f"{node.name}/input_{position}" if "__" in name else None)
    for graph in subgraphs(proto.graph):
        for tensor in graph.initializer:  # a body's output may be a weight that no node uses
            names.take(tensor.name)
    rename_tensors(proto.graph, names.changed)


class _Names:
    """Finds a clean name for each noisy one, unlike any other in the graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.changed: dict[str, str] = {}
        """Old tensor name to new."""
        self._kept = {value.name for value in (*graph.input, *graph.output)}
        self._taken = set(self._kept) | {""}
        for inner in subgraphs(graph):
            tensors = (name for node in inner.node for name in (node.name, *node.output))
            self._taken |= {name for name in tensors if not _NOISE.search(name)}
            self._taken |= {tensor.name for tensor in inner.initializer if not _NOISE.search(tensor.name)}

    def take(self, name: str, wanted: str | None = None) -> None:
        """Give the tensor `name`, where it is noisy and has none yet, a clean name."""
        if name not in self._kept and name not in self.changed and _NOISE.search(name):
            self.changed[name] = self._free(wanted or _NOISE.sub("", name))

    def cleaned(self, name: str) -> str:
        """Return the name of a node without its noise."""
        return self._free(_NOISE.sub("", name)) if _NOISE.search(name) else name

    def _free(self, wanted: str) -> str:
        stem, colon, port = wanted.partition(":")
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}{colon}{port}"
        self._taken.add(name)
        return name


def _walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for inner in subgraphs(graph):
        yield from inner.node
