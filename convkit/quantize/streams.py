"""Tensors of few channels, held twice in INT8, half a step apart: rounded half as coarse, by no operator more.

A convolution of one point writes its channels, and behind them the same half a step higher: the mean of two numbers
that are rounded to steps half a step apart has steps half as wide. A sum adds up either half for itself. A convolution
of one point reads both, each with half of the weights. It costs the work on channels of which there are few.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from convkit.quantize.dims import Dims, dims_of
from convkit.quantize.draft import Draft, names_inside
from convkit.quantize.grid import WEIGHT_STEPS
from convkit.quantize.known import Known
from convkit.quantize.pointwise import bias, is_pointwise, matrix

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array


def hold_twice(proto: onnx.ModelProto, known: Known, *, channels: int, points: int, keep: frozenset[str]) -> None:
    """Hold narrow tensors twice that convolutions of one point write, add up and read, where nothing else does.

    Args:
        proto: nodes in topological order, and named; it is changed.
        known: the ranges of its activations; it is told of those that are new.
        channels: most channels of such a tensor.
        points: least points of an image.
        keep: names of nodes that stay as they are.
    """
    streams = _Streams(proto, known, channels, points, keep)
    if not streams.held:
        return
    draft = Draft(proto.graph)
    writer = _Writer(draft, known, streams)
    for node in proto.graph.node:
        if node.name in streams.pointwise and not streams.held.isdisjoint([node.input[0], node.output[0]]):
            writer.convolution(node)
        elif node.output and node.output[0] in streams.held:
            writer.sum(node)
        draft.nodes.append(node)
    draft.finish()


class _Streams:
    """The narrow tensors of a graph, and the convolutions of one point that could write and read them."""

    def __init__(self, proto: onnx.ModelProto, known: Known, channels: int, points: int, keep: frozenset[str]) -> None:
        self.constants = known.constants(proto.graph)
        self.pointwise: set[str] = set()
        self.held: set[str] = set()
        """Tensors that are held twice."""
        self._nodes = [node for node in proto.graph.node if node.output]
        self._dims: dict[str, Dims] = dims_of(proto)
        for node in self._nodes:
            written = node.output[0]
            if node.name in keep:
                continue
            if is_pointwise(node, self.constants) and known.range(node.input[0]) is not None:
                self.pointwise.add(node.name)
                fits = (self.constants.shape(node.input[1]) or (0,))[0] <= channels and self._size(written) >= points
            else:
                fits = node.op_type == "Add" and self.held.issuperset(node.input)
            if fits and known.scale(written) is not None:
                self.held.add(written)
        self.held -= {value.name for value in proto.graph.output} | names_inside(proto.graph)
        while self._drop():
            pass

    def _size(self, name: str) -> int:
        """Return the points of an image [batch, channels, height, width]; 0 for others, and for what may change."""
        dims = self._dims.get(name, ())
        height, width = dims[2:] if len(dims) == 4 else (None, None)
        return height * width if isinstance(height, int) and isinstance(width, int) else 0

    def _drop(self) -> int:
        """Drop the tensors that something else reads, and sums of what is dropped; return how many there were."""
        readers: dict[str, list[bool]] = defaultdict(list)
        gone = set()
        for node in self._nodes:
            adds = node.op_type == "Add" and self.held.issuperset([*node.input, *node.output])
            for index, name in enumerate(node.input):
                readers[name].append(adds or (node.name in self.pointwise and index == 0))
            if node.op_type == "Add" and not adds:
                gone.add(node.output[0])
        gone |= {name for name in self.held if not readers[name] or not all(readers[name])}
        gone &= self.held
        self.held -= gone
        return len(gone)


class _Writer:
    def __init__(self, draft: Draft, known: Known, streams: _Streams) -> None:
        self.draft = draft
        self.known = known
        self.streams = streams
        self.names: dict[str, str] = {}
        """What a tensor is called where it is held twice."""
        self.higher: dict[str, float] = {}
        """How much higher the second half of it is."""

    def convolution(self, node: onnx.NodeProto) -> None:
        """Let a convolution read its input twice, write its output twice, or both."""
        import numpy as np

        draft, constants = self.draft, self.streams.constants
        read, written, given = node.input[0], node.output[0], node.input[1]
        weight, shift = matrix(node, constants), bias(node, constants)
        for name in node.input[1:]:
            draft.replace(name)
        if read in self.names:
            first, second = _halves(weight)
            weight, shift = np.concatenate([first, second], axis=1), shift - second.sum(axis=1) * self.higher[read]
            node.input[0] = self.names[read]
        if written in self.streams.held:
            half = (self.known.scale(written) or 0.0) / 2
            weight, shift = np.concatenate([weight, weight]), np.concatenate([shift, shift + half])
            node.output[0] = self._hold(written, half)
        node.input[1:] = [
            draft.tensor(f"{given}__twice", weight.astype(np.float32)[..., None, None]),
            draft.tensor(f"{written}__bias", shift.astype(np.float32)),
        ]

    def sum(self, node: onnx.NodeProto) -> None:
        """Let an Add add up both halves."""
        one, other = node.input
        node.input[:] = [self.names[one], self.names[other]]
        node.output[0] = self._hold(node.output[0], self.higher[one] + self.higher[other])

    def _hold(self, name: str, higher: float) -> str:
        import numpy as np

        mean: Array | None = self.known.channel_mean(name)
        self.names[name], self.higher[name] = self.draft.new(f"{name}__twice"), higher
        both = None if mean is None else np.concatenate([mean, mean + higher])
        self.known.add(self.names[name], like=name, mean=both)
        return self.names[name]


def _halves(weight: Array) -> tuple[Array, Array]:
    """Return two weights whose sum is the given one: half of it, rounded as it will be, and what that leaves."""
    import numpy as np

    step = np.abs(weight / 2).max(axis=1, keepdims=True) / WEIGHT_STEPS
    step[step == 0] = 1.0
    first = np.rint(weight / 2 / step) * step
    return first, weight - first
