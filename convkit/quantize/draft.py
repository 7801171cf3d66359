"""A graph that is being written anew: nodes in their order, names that nothing else has, and what they replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convkit.graph.names import subgraphs

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array

_FEEDERS = ("Constant", "Identity", "Transpose")
"""Operators between a constant and its reader that go with it."""


class Draft:
    """The nodes and tensors of a graph on its way; `finish` puts them into it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        """What has been written so far."""
        self._taken = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
        self._taken |= {tensor.name for tensor in (*graph.initializer, *graph.input, *graph.output)} | names_inside(
            graph
        )
        self._replaced: dict[str, None] = {}

    def node(self, operator: str, inputs: list[str], output: str, name: str, *, axis: int | None = None) -> None:
        """Write a node."""
        from onnx import helper

        attributes = {} if axis is None else {"axis": axis}
        self.nodes.append(helper.make_node(operator, inputs, [output], name=self.new(name), **attributes))

    def tensor(self, name: str, values: Array) -> str:
        """Write a constant, and return what it is called."""
        import numpy as np
        from onnx import numpy_helper

        free = self.new(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), free))
        return free

    def new(self, name: str) -> str:
        """Return a name that nothing in the graph has."""
        free, number = name, 2
        while free in self._taken:
            free, number = f"{name}_{number}", number + 1
        self._taken.add(free)
        return free

    def replace(self, constant: str) -> None:
        """Note that one reader of a constant reads something else now."""
        self._replaced[constant] = None

    def finish(self) -> None:
        """Put the nodes into the graph, without constants that nobody reads any more and what led to them."""
        graph = self.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        feeders = {name: node for node in graph.node if node.op_type in _FEEDERS for name in node.output}
        readers: dict[str, int] = dict.fromkeys([*(value.name for value in graph.output), *names_inside(graph)], 1)
        for name in (name for node in graph.node for name in node.input):
            readers[name] = readers.get(name, 0) + 1
        dead, idle = set(), set()
        for name in self._replaced:
            while name and not readers.get(name) and name not in dead:
                dead.add(name)
                feeder = feeders.get(name)
                if feeder is None:
                    break
                idle.add(name)
                name = feeder.input[0] if feeder.input else ""
                readers[name] = readers.get(name, 1) - 1
        _keep_only(graph.node, lambda node: not idle.intersection(node.output))
        _keep_only(graph.initializer, lambda tensor: tensor.name not in dead)
        _keep_only(graph.input, lambda value: value.name not in dead)


def names_inside(graph: onnx.GraphProto) -> set[str]:
    """Return the names that inner graphs read."""
    inner = [each for each in subgraphs(graph) if each is not graph]
    names = {name for each in inner for node in each.node for name in (*node.input, *node.output)}
    return names | {value.name for each in inner for value in (*each.input, *each.output)}


def _keep_only(items: Any, wanted: Callable[[Any], bool]) -> None:
    remaining = [item for item in items if wanted(item)]
    if len(remaining) < len(items):
        del items[:]
        items.extend(remaining)
