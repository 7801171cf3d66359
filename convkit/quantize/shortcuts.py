"""Shortcuts with weights of their own, joined with the branch that they are added to.

W·a + V·s, a branch and a projection of the block's input, is [W V] times a and s, one behind the other: a convolution
and a sum less, and two tensors that are not rounded. Both inputs have to lie on one grid, so that nothing is rounded
for the joining: the branch is scaled, exactly, to the range of the block's input.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from convkit.quantize.constants import Constants
from convkit.quantize.dims import Dims, dims_of
from convkit.quantize.draft import Draft, names_inside
from convkit.quantize.known import Known
from convkit.quantize.pointwise import bias, is_pointwise, matrix

if TYPE_CHECKING:
    import onnx


class _Pair(NamedTuple):
    """What an Add joins."""

    before: onnx.NodeProto
    """The convolution that makes the branch's input, and the Relu behind it."""
    relu: onnx.NodeProto
    branch: onnx.NodeProto
    shortcut: onnx.NodeProto
    factor: float
    """What the branch's input is multiplied by, so that it spans what the shortcut's spans."""


def join_shortcuts(proto: onnx.ModelProto, known: Known, *, keep: frozenset[str]) -> None:
    """Write the sum of two convolutions of one point as one of both inputs.

    Args:
        proto: nodes in topological order, and named; it is changed.
        known: the ranges of its activations; it is told of those that are new.
        keep: names of nodes that stay as they are.
    """
    graph = proto.graph
    pairs = _Finder(proto, known, keep).pairs()
    if not pairs:
        return
    gone = {each.name for pair in pairs.values() for each in (pair.branch, pair.shortcut)}
    draft = Draft(graph)
    constants = known.constants(graph)
    for node in graph.node:
        if node.name in pairs:
            _join(draft, constants, known, node, pairs[node.name])
        elif node.name not in gone:
            draft.nodes.append(node)
    draft.finish()


class _Finder:
    def __init__(self, proto: onnx.ModelProto, known: Known, keep: frozenset[str]) -> None:
        graph = self.graph = proto.graph
        self.dims: dict[str, Dims] = dims_of(proto)
        self.constants = known.constants(graph)
        self.known = known
        self.keep = keep
        self.makers = {name: node for node in graph.node for name in node.output}
        self.reads = Counter(name for node in graph.node for name in node.input)
        self.reads.update([*(value.name for value in graph.output), *names_inside(graph)])

    def pairs(self) -> dict[str, _Pair]:
        """Return what can be joined, by the name of the Add."""
        found = {}
        for node in self.graph.node:
            if node.op_type == "Add" and node.name not in self.keep:
                one, other = (self._projection(name) for name in node.input)
                if one is not None and other is not None and self._are_alike(node):
                    pair = self._pair(one, other) or self._pair(other, one)
                    if pair is not None:
                        found[node.name] = pair
        return found

    def _projection(self, name: str) -> onnx.NodeProto | None:
        """Return the convolution of one point that makes a tensor for the Add alone."""
        node = self.makers.get(name)
        if node is None or node.name in self.keep or self.reads[name] != 1:
            return None
        return node if is_pointwise(node, self.constants, strides=True) else None

    def _are_alike(self, add: onnx.NodeProto) -> bool:
        """Tell whether both have the same dims, so that none is stretched over the other's."""
        one, other = (self.dims.get(name, (None,)) for name in add.input)
        return None not in one and one == other

    def _pair(self, branch: onnx.NodeProto, shortcut: onnx.NodeProto) -> _Pair | None:
        relu = self.makers.get(branch.input[0])
        if relu is None or relu.op_type != "Relu" or self.reads[branch.input[0]] != 1:
            return None
        before = self.makers.get(relu.input[0])
        if before is None or self.reads[relu.input[0]] != 1 or not is_pointwise(branch, self.constants):
            return None
        if before.op_type != "Conv" or not all(self.constants.is_float32(name) for name in before.input[1:] if name):
            return None
        spans = [self.known.range(each.input[0]) for each in (branch, shortcut)]
        if any(span is None or span[0] < 0 or not 0 < span[1] < math.inf for span in spans):
            return None
        highs = [span[1] for span in spans if span is not None]
        return _Pair(before, relu, branch, shortcut, factor=highs[1] / highs[0])


def _join(draft: Draft, constants: Constants, known: Known, add: onnx.NodeProto, pair: _Pair) -> None:
    """Write the convolution of both inputs in the Add's place."""
    import numpy as np

    inner, outer, written = pair.branch.input[0], pair.shortcut.input[0], add.output[0]
    left, right = (known.channel_mean(name) for name in (inner, outer))
    mean = None if left is None or right is None else np.concatenate([left * pair.factor, right])
    scaled = _scale(draft, constants, pair)
    known.add(scaled, like=outer, mean=None)
    points = _points(draft, pair.shortcut, outer)
    if points != outer:
        known.add(points, like=outer, mean=None)
    both = draft.new(f"{written}__both")
    known.add(both, like=outer, mean=mean)
    draft.node("Concat", [scaled, points], both, both, axis=1)
    known.tied.add(draft.nodes[-1].name)
    known.merged.append(pair.shortcut.name)
    weights = [matrix(pair.branch, constants) / pair.factor, matrix(pair.shortcut, constants)]
    joined = np.concatenate(weights, axis=1).astype(np.float32)
    shift = (bias(pair.branch, constants) + bias(pair.shortcut, constants)).astype(np.float32)
    ones = (constants.shape(pair.branch.input[1]) or ())[2:]
    for name in (*pair.branch.input[1:], *pair.shortcut.input[1:]):
        draft.replace(name)
    weight = draft.tensor(f"{pair.branch.input[1]}__joined", joined.reshape(*joined.shape, *ones))
    pair.branch.input[:] = [both, weight, draft.tensor(f"{written}__bias", shift)]
    pair.branch.output[0] = written
    draft.nodes.append(pair.branch)


def _scale(draft: Draft, constants: Constants, pair: _Pair) -> str:
    """Multiply what the branch's convolution reads by a factor, in the weights behind it; return its new name."""
    import numpy as np

    for index, name in enumerate(pair.before.input):
        if index and name:
            values = constants.value(name) * np.float32(pair.factor)
            pair.before.input[index] = draft.tensor(f"{name}__scaled", values.astype(np.float32))
            draft.replace(name)
    scaled = draft.new(f"{pair.relu.output[0]}__scaled")
    pair.relu.output[0] = scaled
    return scaled


def _points(draft: Draft, shortcut: onnx.NodeProto, name: str) -> str:
    """Leave out the points of a shortcut's input that its convolution would leave out; return what it is called."""
    from onnx import helper

    strides = next((list(each.ints) for each in shortcut.attribute if each.name == "strides"), [])
    if all(stride == 1 for stride in strides):
        return name
    points = draft.new(f"{name}__points")
    ones = [1] * len(strides)
    pool = helper.make_node("MaxPool", [name], [points], name=draft.new(points), kernel_shape=ones, strides=strides)
    draft.nodes.append(pool)
    return points
