"""Factors that channels are divided or multiplied by, kept beside the weights until these are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from convkit.graph.model import Model
from convkit.graph.names import name_nodes
from convkit.graph.weights import Weights
from convkit.quantize.channels import Joint, Joints
from convkit.quantize.constants import Constants
from convkit.quantize.draft import Draft, names_inside
from convkit.quantize.outline import read_outline, write_outline
from convkit.quantize.sides import Side

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array


class Rescaling:
    """A model whose channels are being rescaled.

    Raises:
        InputError: a weight's external data cannot be read.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._weights = Weights(model)
        self._proto = read_outline(model, self._weights)
        name_nodes(self._proto.graph)
        constants = Constants(self._proto.graph, lambda tensor: self._weights.array(tensor.name))
        self.joints = Joints(self._proto, constants)
        self.rescaled = Rescaled(constants, self.joints.nodes)

    def finished(self) -> Model:
        """Write the model as it is now; return the very model where nothing has changed."""
        changed = self.rescaled.write(self._proto.graph)
        if not changed:
            return self._model
        self._proto.graph.ClearField("value_info")
        return write_outline(self._proto, self._weights, self._model.interface, changed=changed)


class Rescaled:
    """The constants of a graph as the joints' scales have made them so far; each is read when it is asked for."""

    def __init__(self, constants: Constants, nodes: list[onnx.NodeProto]) -> None:
        self._constants = constants
        self._nodes = nodes
        self._factors: dict[tuple[int, int], dict[Side, Array]] = {}
        self._restored: list[tuple[Joint, Array]] = []

    def scale(self, joint: Joint, scales: Array) -> None:
        """Divide what makes a joint's channels by `scales` (float64, one for each), and multiply what reads them."""
        for side in (*joint.writers, *joint.shifts):
            self._multiply(side, 1.0 / scales)
        for side in joint.readers:
            self._multiply(side, scales)
        if joint.restored:
            self._restored.append((joint, scales))

    def largest(self, sides: tuple[Side, ...]) -> Array:
        """Return the largest magnitude (float64) of each channel over some constants of a joint."""
        import numpy as np

        found = [side.largest(self.values(side.node, side.input)) for side in sides]
        largest: Array = np.maximum.reduce(found)
        return largest.astype(np.float64)

    def values(self, node: int, index: int) -> Array:
        """Return a node's constant input, in float32, with all its factors."""
        return self._values_of(self._nodes[node].input[index], self._factors.get((node, index), {}))

    def _values_of(self, name: str, factors: dict[Side, Array]) -> Array:
        import numpy as np

        values = self._constants.value(name)
        shape = next(iter(factors)).shape if factors else values.shape
        values = np.broadcast_to(values, shape)
        scaled = values.astype(np.float64) if factors else values
        for side, numbers in factors.items():
            scaled = (scaled.reshape(side.view) * side.spread(numbers)).reshape(shape)
        rounded: Array = np.ascontiguousarray(scaled, np.float32)
        return rounded

    def write(self, graph: onnx.GraphProto) -> dict[str, Callable[[], Array]]:
        """Name the constants that change in the graph, and return what gives the values of each.

        A constant that others read, too, stays; its scaled copy has a name of its own.
        """
        from onnx import TensorProto

        reads = Counter(name for node in graph.node for name in node.input)
        own = {tensor.name: tensor for tensor in graph.initializer}
        inside = names_inside(graph)
        made: dict[str, Callable[[], Array]] = {}
        draft = Draft(graph)
        self._restore(draft)
        for (number, index), factors in self._factors.items():
            node, shape = self._nodes[number], next(iter(factors)).shape
            name = node.input[index]
            values = partial(self._values_of, name, dict(factors))
            if name in own and reads[name] == 1 and tuple(own[name].dims) == shape and name not in inside:
                made[name] = values
                continue
            node.input[index] = draft.new(f"{name}__scaled")
            graph.initializer.append(TensorProto(name=node.input[index], data_type=TensorProto.FLOAT, dims=shape))
            made[node.input[index]] = values
            draft.replace(name)
        draft.finish()
        return made

    def _restore(self, draft: Draft) -> None:
        """Write the nodes; behind a tensor that some read as it was, a product with its scales."""
        import numpy as np

        wanted = {joint.start: (joint, scales) for joint, scales in self._restored}
        for node in draft.graph.node:
            draft.nodes.append(node)
            for name in node.output:
                if name in wanted:
                    joint, scales = wanted[name]
                    factors = draft.tensor(f"{name}__scales", scales.astype(np.float32))
                    restored = draft.new(f"{name}__restored")
                    draft.node("Mul", [name, factors], restored, f"{name}__restore")
                    for reader in (self._nodes[number] for number in joint.restored):
                        reader.input[:] = [restored if each == name else each for each in reader.input]

    def _multiply(self, side: Side, factors: Array) -> None:
        sides = self._factors.setdefault((side.node, side.input), {})
        sides[side] = sides[side] * factors if side in sides else factors
