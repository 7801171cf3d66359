"""Convolutions of single points that follow one another with nothing between, made one: a tensor less to round."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from convkit.graph.model import Model
from convkit.graph.names import name_nodes
from convkit.graph.weights import Weights
from convkit.pipeline.step import step
from convkit.quantize.constants import Constants
from convkit.quantize.draft import Draft, names_inside
from convkit.quantize.outline import read_outline, write_outline
from convkit.quantize.pointwise import bias, is_pointwise, matrix

if TYPE_CHECKING:
    import onnx

MORE_WORK = 1.5
"""At most so many times the work of the two: in INT8 that takes no longer, for what lies between is not written."""


@step(version=1, stage="quantize", title="Join convolutions that follow one another", needs="onnx")
def compose(model: Model) -> Model:
    """Write W2·(W1·x + b1) + b2 as (W2·W1)·x + (W2·b1 + b2), where W1 and W2 are of one point.

    The projection at the end of a MobileNetV2's first block and the expansion after it are such a pair: what lies
    between has few channels, no activation and one reader. Where there is none the model itself is returned.

    Args:
        model: the simplified floating point graph, batch norms folded into the layers before them.

    Raises:
        InputError: a weight's external data cannot be read.
    """
    weights = Weights(model)
    proto = read_outline(model, weights)
    name_nodes(proto.graph)
    if not _Composer(proto.graph, Constants(proto.graph, lambda tensor: weights.array(tensor.name))).compose():
        return model
    proto.graph.ClearField("value_info")
    return write_outline(proto, weights, model.interface)


class _Composer:
    def __init__(self, graph: onnx.GraphProto, constants: Constants) -> None:
        self.constants = constants
        self.draft = Draft(graph)
        self.reads = Counter(name for node in graph.node for name in node.input)
        self.reads.update([*(value.name for value in graph.output), *names_inside(graph)])
        self.first: dict[str, onnx.NodeProto] = {}

    def compose(self) -> int:
        """Join all pairs, and return how many there were."""
        found = 0
        gone: set[str] = set()
        for node in self.draft.graph.node:
            if is_pointwise(node, self.constants):
                before = self.first.pop(node.input[0], None)
                if before is not None and self.reads[node.input[0]] == 1 and self._is_worth_it(before, node):
                    self._join(before, node)
                    gone.add(before.name)
                    found += 1
                else:
                    self.first[node.output[0]] = node
        self.draft.nodes = [node for node in self.draft.graph.node if node.name not in gone]
        if found:
            self.draft.finish()
        return found

    def _is_worth_it(self, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
        one, other = (self.constants.shape(node.input[1]) or () for node in (first, second))
        return len(one) == len(other) and other[0] * one[1] <= MORE_WORK * one[0] * (one[1] + other[0])

    def _join(self, first: onnx.NodeProto, second: onnx.NodeProto) -> None:
        """Let the second node do the work of both."""
        import numpy as np

        one, other = matrix(first, self.constants), matrix(second, self.constants)
        shape = (len(other), one.shape[1], *(self.constants.shape(second.input[1]) or ())[2:])
        shift = other @ bias(first, self.constants) + bias(second, self.constants)
        for name in (*first.input[1:], *second.input[1:]):
            self.draft.replace(name)
        weight = self.draft.tensor(f"{second.input[1]}__joined", (other @ one).reshape(shape).astype(np.float32))
        biases = self.draft.tensor(f"{second.output[0]}__bias", shift.astype(np.float32))
        second.input[:] = [first.input[0], weight, biases]
