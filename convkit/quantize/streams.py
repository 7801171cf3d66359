"""Sums of few channels, added up in floating point from block to block.

A convolution in INT8 leaves INT8 behind it, and so does the Add after it: the sum that runs through the blocks of a
network is rounded twice in each. A matrix product leaves floating point behind it, and what has few channels is added
up in no time. What reads such a sum rounds it, once; where even that is heard, it reads it twice, half a step apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convkit.quantize.dims import Dims, dims_of
from convkit.quantize.draft import Draft
from convkit.quantize.grid import WEIGHT_STEPS
from convkit.quantize.known import Known
from convkit.quantize.pointwise import bias, is_pointwise, matrix

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array


def sum_in_float(
    proto: onnx.ModelProto, known: Known, *, channels: int, points: int, twice: int, keep: frozenset[str]
) -> None:
    """Let narrow sums be added up in floating point, and be read twice where they are large.

    Args:
        proto: nodes in topological order, and named; it is changed.
        known: the ranges of its activations; it is told of those that are new.
        channels: most channels of a sum.
        points: least points of an image.
        twice: least points of an image for it to be read twice.
        keep: names of nodes that stay as they are.
    """
    graph = proto.graph
    streams = _Streams(proto, known, channels, points)
    if not streams.added:
        return
    draft = Draft(graph)
    writer = _Writer(draft, known, streams)
    for node in graph.node:
        read = node.input[0] if node.input else ""
        if node.name in keep or not is_pointwise(node, streams.constants):
            draft.nodes.append(node)
        elif node.output[0] in streams.added and known.range(read) is not None:
            writer.product(node)
        elif read in streams.added and streams.size(read) >= twice and known.range(read) is not None:
            writer.twice(node)
        else:
            draft.nodes.append(node)
    draft.finish()


class _Streams:
    """The narrow sums of a graph, and what is added up in them."""

    def __init__(self, proto: onnx.ModelProto, known: Known, channels: int, points: int) -> None:
        self.constants = known.constants(proto.graph)
        self.dims: dict[str, Dims] = dims_of(proto)
        self.added: set[str] = set()
        narrow: set[str] = set()
        for node in proto.graph.node:
            if is_pointwise(node, self.constants):
                if (self.constants.shape(node.input[1]) or (0,))[0] <= channels and self.size(node.output[0]) >= points:
                    narrow.add(node.output[0])
            elif node.op_type == "Add" and narrow.issuperset(node.input):
                narrow.add(node.output[0])
                self.added.update([*node.input, *node.output])

    def size(self, name: str) -> int:
        """Return the points of an image [batch, channels, height, width]; 0 for others, and for what may change."""
        dims = self.dims.get(name, ())
        height, width = dims[2:] if len(dims) == 4 else (None, None)
        return height * width if isinstance(height, int) and isinstance(width, int) else 0


class _Writer:
    def __init__(self, draft: Draft, known: Known, streams: _Streams) -> None:
        self.draft = draft
        self.known = known
        self.streams = streams
        self.doubled: dict[str, _Twice] = {}
        """What was written for an earlier reader of a tensor."""

    def product(self, node: onnx.NodeProto) -> None:
        """Write a convolution of one point as a product of matrices, which leaves floating point behind it."""
        import numpy as np

        draft, constants = self.draft, self.streams.constants
        read, written, weight = node.input[0], node.output[0], matrix(node, constants)
        height, width = self.streams.dims[written][2:]
        last, rows, product, image = (draft.new(f"{written}__{part}") for part in ("last", "rows", "product", "image"))
        flat = draft.tensor(f"{rows}__shape", np.array([-1, weight.shape[1]], np.int64))
        full = draft.tensor(f"{image}__shape", np.array([-1, height, width, len(weight)], np.int64))
        constant = [draft.tensor(f"{node.input[1]}__matrix", weight.astype(np.float32)), *node.input[2:]]
        draft.replace(node.input[1])
        self.known.add(rows, like=read, mean=self.known.channel_mean(read))
        self._write("Transpose", [read], last, perm=[0, 2, 3, 1])
        self._write("Reshape", [last, flat], rows)
        self._write("Gemm", [rows, *constant], product, name=node.name, transB=1)
        self._write("Reshape", [product, full], image)
        self._write("Transpose", [image], written, perm=[0, 3, 1, 2], name=draft.new(f"{written}__first"))

    def twice(self, node: onnx.NodeProto) -> None:
        """Let a convolution of one point read its input, and the same half a step higher: the mean of both.

        The sum of two numbers that are rounded to steps half a step apart has steps half as wide; and of the weights,
        halved for either, the second takes what rounding the first leaves.
        """
        import numpy as np

        draft, constants = self.draft, self.streams.constants
        if node.input[0] not in self.doubled:
            self.doubled[node.input[0]] = self._double(node.input[0])
        double = self.doubled[node.input[0]]
        weight = matrix(node, constants)
        step = np.abs(weight / 2).max(axis=1, keepdims=True) / WEIGHT_STEPS
        step[step == 0] = 1.0
        first = np.rint(weight / 2 / step) * step
        second = weight - first
        shift = bias(node, constants) - second.sum(axis=1) * double.half
        for name in node.input[1:]:
            draft.replace(name)
        both = np.concatenate([first, second], axis=1).astype(np.float32)[..., None, None]
        node.input[:] = [
            double.name,
            draft.tensor(f"{node.input[1]}__twice", both),
            draft.tensor(f"{node.output[0]}__bias", shift.astype(np.float32)),
        ]
        draft.nodes.append(node)

    def _double(self, read: str) -> _Twice:
        import numpy as np

        known = self.known
        half = np.asarray((known.scale(read) or 0.0) / 2, np.float32)
        mean: Array | None = known.channel_mean(read)
        higher, name = self.draft.new(f"{read}__higher"), self.draft.new(f"{read}__twice")
        known.add(higher, like=read, mean=None)
        known.add(name, like=read, mean=None if mean is None else np.concatenate([mean, mean + half]))
        self._write("Add", [read, self.draft.tensor(f"{read}__half", half)], higher)
        self._write("Concat", [read, higher], name, axis=1)
        known.tied.add(self.draft.nodes[-1].name)
        return _Twice(name=name, half=float(half))

    def _write(self, operator: str, inputs: list[str], output: str, *, name: str = "", **attributes: object) -> None:
        from onnx import helper

        self.draft.nodes.append(helper.make_node(operator, inputs, [output], name=name or output, **attributes))


class _Twice(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor beside the same half a step higher."""

    name: str
    half: float
