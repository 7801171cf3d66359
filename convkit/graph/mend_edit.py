"""Small changes that repairs of a graph are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from convkit.graph.facts import Facts, Placed
from convkit.graph.names import subgraphs

if TYPE_CHECKING:
    import numpy as np
    import onnx


class Edit:
    """A model on its way to another, and what is known of it as it came."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.facts = Facts(proto)
        self.taken = {name for node in self.facts.nodes for name in (*node.proto.input, *node.proto.output)}
        self.taken |= set(self.facts.weights) | {value.name for value in proto.graph.input}

    def named(self, nodes: frozenset[str]) -> Iterator[Placed]:
        """Yield the nodes that findings name."""
        yield from [node for node in self.facts.nodes if node.name in nodes]

    def free(self, name: str) -> str:
        """Return a name that nothing has yet."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def weight(self, values: np.ndarray, name: str) -> str:
        """Add a weight; returns its name."""
        from onnx import numpy_helper

        name = self.free(name)
        self.proto.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def cast(self, name: str, kind: int) -> tuple[str, onnx.NodeProto]:
        """Return a tensor in another type: its name, and the node that makes it."""
        from onnx import helper

        made = self.free(f"{name}__cast")
        return made, helper.make_node("Cast", [name], [made], name=f"{made}_node", to=kind)

    def insert(
        self, node: Placed, *, before: Iterable[onnx.NodeProto] = (), after: Iterable[onnx.NodeProto] = ()
    ) -> None:
        """Put nodes around one."""
        graph, index = self._place(node)
        nodes = list(graph.node)
        self._set(graph, [*nodes[:index], *before, nodes[index], *after, *nodes[index + 1 :]])

    def replace(self, node: Placed, others: Iterable[onnx.NodeProto] = ()) -> None:
        """Put others in a node's place, or nothing."""
        graph, index = self._place(node)
        nodes = list(graph.node)
        self._set(graph, [*nodes[:index], *others, *nodes[index + 1 :]])

    def _place(self, node: Placed) -> tuple[onnx.GraphProto, int]:
        outputs = list(node.proto.output)
        for graph in subgraphs(self.proto.graph):
            for index, each in enumerate(graph.node):
                if each.op_type == node.operator and list(each.output) == outputs:
                    return graph, index
        raise LookupError(node.name)

    def _set(self, graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
        copies = [type(each).FromString(each.SerializeToString()) for each in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    def current(self, node: Placed) -> onnx.NodeProto:
        """Return a node as it is now, to be changed."""
        graph, index = self._place(node)
        return graph.node[index]


class Lines:
    """Nodes that are written one after the other."""

    def __init__(self, edit: Edit, name: str) -> None:
        self.edit = edit
        self.name = name
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Add a node of one output; returns the output's name."""
        from onnx import helper

        made = output or self.edit.free(f"{self.name}__{operator.lower()}")
        name = self.name if output else made
        self.nodes.append(helper.make_node(operator, list(inputs), [made], name=name, **attributes))
        return made

    def ints(self, *values: int) -> str:
        """Return a weight of int64, 1-D."""
        import numpy as np

        return self.edit.weight(np.array(values, np.int64), f"{self.name}__ints")

    def number(self, value: float) -> str:
        """Return a scalar weight: int64 of an int, else float32."""
        import numpy as np

        kind = np.int64 if isinstance(value, int) else np.float32
        return self.edit.weight(np.array(value, kind), f"{self.name}__number")


def drop_attributes(node: onnx.NodeProto, *names: str) -> None:
    """Take attributes out."""
    kept = [each for each in node.attribute if each.name not in names]
    copies = [type(each).FromString(each.SerializeToString()) for each in kept]
    del node.attribute[:]
    node.attribute.extend(copies)


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set an attribute, whether it was there or not."""
    from onnx import helper

    drop_attributes(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def drop_unused_weights(proto: onnx.ModelProto) -> None:
    """Take out weights that nothing reads any more."""
    read = {name for graph in subgraphs(proto.graph) for node in graph.node for name in node.input}
    read |= {value.name for graph in subgraphs(proto.graph) for value in graph.output}
    declared = {value.name for value in proto.graph.input}
    kept = [weight for weight in proto.graph.initializer if weight.name in read or weight.name in declared]
    if len(kept) < len(proto.graph.initializer):
        copies = [type(weight).FromString(weight.SerializeToString()) for weight in kept]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(copies)


def retype(proto: onnx.ModelProto, kinds: dict[int, int], convert: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Write every tensor of some element types in others: weights, constants, inputs, outputs, casts."""
    from onnx import AttributeProto, numpy_helper

    def tensor(held: onnx.TensorProto) -> None:
        if held.data_type in kinds:
            values = convert(numpy_helper.to_array(held), kinds[held.data_type])
            held.CopyFrom(numpy_helper.from_array(values, held.name))

    for graph in subgraphs(proto.graph):
        for weight in graph.initializer:
            tensor(weight)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in kinds:
                value.type.tensor_type.elem_type = kinds[value.type.tensor_type.elem_type]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    tensor(attribute.t)
                elif attribute.name in ("to", "dtype", "output_dtype") and attribute.i in kinds:
                    attribute.i = kinds[attribute.i]
