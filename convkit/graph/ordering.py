"""The order of nodes and weights in an ONNX file: each node after those that it reads from, as the format demands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from convkit.graph.names import subgraphs

if TYPE_CHECKING:
    import onnx


def order_nodes(graph: onnx.GraphProto) -> None:
    """Sort nodes and weights by a walk from the outputs against the flow; bodies of control flow first.

    The same graph gives the same order, however its nodes lay before.
    """
    for node in graph.node:
        for body in _bodies(node):
            order_nodes(body)
    makers = {output: node for node in graph.node for output in node.output if output}
    rank: dict[tuple[str, ...], int] = {}
    used: dict[str, int] = {}
    ends = [*(value.name for value in graph.output), *makers]  # last those that no output needs
    stack = [(name, False) for name in reversed(ends)]
    while stack:
        name, ready = stack.pop()
        used.setdefault(name, len(used))
        maker = makers.get(name)
        if maker is None or tuple(maker.output) in rank:
            continue
        if ready:
            rank[tuple(maker.output)] = len(rank)
        else:
            stack.append((name, True))
            stack += [(needed, False) for needed in reversed(list(needed_by(maker)))]
    graph.node.sort(key=lambda node: rank.get(tuple(node.output), len(rank)))
    graph.initializer.sort(key=lambda tensor: used.get(tensor.name, len(used)))


def needed_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node needs: its inputs, and what its bodies take from around them."""
    yield from node.input
    for body in _bodies(node):
        for graph in subgraphs(body):
            for inner in graph.node:
                yield from inner.input
        yield from (value.name for value in body.output)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
