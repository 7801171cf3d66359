"""How values flow through a graph: which node makes a tensor, what it needs, and what is the same from run to run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from convkit.graph.ordering import needed_by

if TYPE_CHECKING:
    import onnx

_RANDOM = ("Random", "Bernoulli", "Multinomial")
_FLOATS = (1, 10, 11, 16)  # TensorProto.FLOAT, FLOAT16, DOUBLE, BFLOAT16


class Flow:
    """A graph whose nodes lie in topological order, as ONNX demands; nothing is changed."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.needs = [tuple(name for name in needed_by(node) if name) for node in self.nodes]
        """By node, the tensors that it reads; bodies of control flow read from around them, too."""
        self.maker = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.weights = {tensor.name for tensor in graph.initializer}
        self.weights |= {tensor.values.name for tensor in graph.sparse_initializer}
        self.inputs = tuple(value.name for value in graph.input if value.name not in self.weights)
        self.constants = self._constants()
        """Tensors that are the same whatever the inputs are."""

    def _constants(self) -> set[str]:
        found = set(self.weights)
        made = set(self.maker) | set(self.inputs)
        for node, needs in zip(self.nodes, self.needs, strict=True):
            outer = [name for name in needs if name in made or name in found]
            if not node.op_type.startswith(_RANDOM) and all(name in found for name in outer):
                found.update(node.output)
        return found

    def rounded(self) -> dict[str, str]:
        """Return, for each tensor that is read as quantized and in no other way, the first that holds what is read.

        Before it is quantized it need not be what its name says: an activation may be left to the clipping.
        """
        ends = {value.name for value in self.graph.output}
        readers: dict[str, list[int]] = {}
        for index, needs in enumerate(self.needs):
            for name in needs:
                readers.setdefault(name, []).append(index)
        found = {}
        for name in self.tensors():
            quantizers = [self.nodes[index] for index in readers.get(name, ())]
            if name in ends or not quantizers or any(node.op_type != "QuantizeLinear" for node in quantizers):
                continue
            dequantizers = [
                self.nodes[index]
                for node in quantizers
                for index in readers.get(node.output[0], ())
                if self.nodes[index].op_type == "DequantizeLinear"
            ]
            if dequantizers:
                found[name] = dequantizers[0].output[0]
        return found

    def source_of(self, name: str) -> onnx.NodeProto:
        """Return the node that computes a tensor, before it was only rounded."""
        made = [one for one in (name, *self.alike(name)) if one in self.maker and one not in self.constants]
        return self.nodes[self.maker[made[-1] if made else name]]

    def tensors(self) -> Iterator[str]:
        """Yield every tensor that nodes make and that depends on the inputs, in topological order."""
        for node in self.nodes:
            yield from (name for name in node.output if name and name not in self.constants)

    def behind(self, names: Iterable[str], *, stop: frozenset[str] = frozenset()) -> list[int]:
        """Return the nodes that these tensors need, in topological order; what lies behind `stop` is left out."""
        wanted = [name for name in names if name not in stop]
        nodes: set[int] = set()
        while wanted:
            index = self.maker.get(wanted.pop())
            if index is not None and index not in nodes:
                nodes.add(index)
                wanted += [name for name in self.needs[index] if name not in stop]
        return sorted(nodes)

    def alike(self, name: str) -> Iterator[str]:
        """Yield tensors that hold the same values up to rounding: those before Identity, a cast, or a Q/DQ pair."""
        while name in self.maker:
            node = self.nodes[self.maker[name]]
            if node.op_type == "DequantizeLinear":
                inner = self.maker.get(node.input[0])
                if inner is None or self.nodes[inner].op_type != "QuantizeLinear":
                    return
                name = self.nodes[inner].input[0]
            elif node.op_type == "Identity" or (node.op_type == "Cast" and _to(node) in _FLOATS):
                name = node.input[0]
            else:
                return
            yield name


def _to(cast: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in cast.attribute if attribute.name == "to"), 0)
