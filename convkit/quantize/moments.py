"""How the numbers that a weight is multiplied with go together: their second moments, from calibration data.

A product's output is W·x, for a convolution with x the patch under its window; what rounding W to Q adds to its
variance is the trace of (Q - W) C (Q - W)ᵀ, C being the covariance of x. Only weights that sum few products are looked
at: they lie at a network's entry, where errors average out least and are heard in all that follows, and C stays small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from convkit.graph.feed import batches
from convkit.graph.model import Model
from convkit.graph.names import name_nodes, subgraphs
from convkit.graph.weights import Weights
from convkit.pipeline import events
from convkit.pipeline.allowance import cores
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.pipeline.step import step
from convkit.quantize.constants import Constants
from convkit.quantize.observed import Observed
from convkit.quantize.outline import read_outline, write_outline
from convkit.quantize.placement import attribute
from convkit.quantize.probe import Probe

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Array

INDEX_FILE = "moments.json"
VALUES_FILE = "moments.npy"
ROWS = 8
"""Samples that are looked at: their points, not they, are what is counted."""
POINTS = 512
"""Points of a sample's output that are looked at."""
MOST_WEIGHTS = 1 << 14
"""Elements of a weight, at most: rounding larger ones together takes seconds and gains little."""
_GOLDEN = 0.6180339887498949
"""Steps of this part of a whole spread evenly, however many there are, and in step with no row or column."""


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Second moments of what products read, as files; `open_moments` reads them."""

    files: Artifact


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where one product's covariances lie in `VALUES_FILE` (float64)."""

    at: int
    groups: int
    sums: int
    points: int


class Moment(NamedTuple):
    """The second moments, about the mean, of what a product's weights are multiplied with."""

    covariance: Array
    """[groups, products in a sum, the same], float64"""
    points: int
    """How many points they were taken from."""


class Window(NamedTuple):
    """What a product's weights see of its input."""

    read: str
    groups: int
    kernel: tuple[int, ...]
    """Height and width; empty for a matrix product."""
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()


@step(version=1, stage="calibrate", title="Find what weights are multiplied with", needs="onnx")
def collect_moments(model: Model, *, data: Artifact | None, sums: int) -> Moments:
    """Run the model on some calibration data, row by row, and keep the second moments of what small weights read.

    What it finds depends on no batch; it holds one row's activations, and for each product `sums`² numbers at most.

    Args:
        model: the simplified floating point graph.
        data: calibration inputs; None draws random ones.
        sums: most products in a sum.

    Raises:
        InputError: the data do not fit the model.
        StepError: ONNX Runtime fails on it.
    """
    weights = Weights(model)
    proto = read_outline(model, weights)
    name_nodes(proto.graph)
    windows = windows_of(proto.graph, sums)
    found: dict[str, _Sums] = {}
    if windows:
        readers: dict[str, list[str]] = {}
        for name, window in windows.items():
            readers.setdefault(window.read, []).append(name)
        nothing = Observed(names=tuple(readers), views={}, may_mask=frozenset(), channel_axes={}, rectified=frozenset())
        probe = Probe(_beginning(proto, weights, model, set(readers)), nothing)
        probe.use(cores())
        for row, inputs in enumerate(batches(model.interface, data, size=1, at_most=ROWS)):
            events.progress(row, ROWS, "samples")
            for read, array in probe.tensors(inputs):
                for name in readers[read]:
                    columns = columns_of(array, windows[name], row=row)
                    if columns is not None:
                        found.setdefault(name, _Sums(columns)).add(columns)
    return _save({name: each.moment() for name, each in sorted(found.items())})


def _beginning(proto: onnx.ModelProto, weights: Weights, model: Model, wanted: set[str]) -> Model:
    """Leave out of a model what does not lead to the tensors that are wanted: the larger part, as a rule."""
    graph = proto.graph
    for inner in subgraphs(graph):
        if inner is not graph:  # what it reads does not stand in the node's inputs
            return model
    kept, needed = [], set(wanted)
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    used = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    return write_outline(proto, weights, model.interface)


def windows_of(graph: onnx.GraphProto, sums: int) -> dict[str, Window]:
    """Return, by the name of the node, what small weights of convolutions of images and of Gemms see."""
    constants = Constants(graph)
    found = {}
    for node in graph.node:
        if len(node.input) < 2 or node.input[0] in constants or node.domain not in ("", "ai.onnx"):
            continue
        dims = constants.shape(node.input[1]) or ()
        if math.prod(dims) > MOST_WEIGHTS:
            continue
        if node.op_type == "Conv" and len(dims) == 4 and math.prod(dims[1:]) <= sums and not _pads_itself(node):
            found[node.name] = Window(
                node.input[0],
                int(attribute(node, "group", 1)),
                dims[2:],
                _integers(node, "strides", (1, 1)),
                _integers(node, "pads", (0, 0, 0, 0)),
                _integers(node, "dilations", (1, 1)),
            )
        elif node.op_type == "Gemm" and len(dims) == 2 and not attribute(node, "transA", 0):
            window = Window(node.input[0], 1, ())
            found |= {node.name: window} if dims[1 if attribute(node, "transB", 0) else 0] <= sums else {}
    return found


def columns_of(array: Array, window: Window, *, row: int) -> Array | None:
    """Return what the weights are multiplied with for some points of the output: float64 [groups, sum, points].

    Args:
        array: the input, float32: an image [batch, channels, height, width], or a matrix.
        window: what of it is seen.
        row: of the data: each has other points.
    """
    import numpy as np

    if not array.size:
        return None
    if not window.kernel:
        return array.astype(np.float64).T[None] if array.ndim == 2 else None
    if array.ndim != 4 or array.shape[1] % window.groups:
        return None
    top, left, bottom, right = window.pads
    padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(size - 1) * dilation for size, dilation in zip(window.kernel, window.dilations, strict=True)]
    high, wide = (
        (size - span - 1) // stride + 1
        for size, span, stride in zip(padded.shape[2:], reach, window.strides, strict=True)
    )
    total = len(array) * high * wide
    if high < 1 or wide < 1:
        return None
    wanted = min(total, POINTS)
    chosen = np.arange(total)
    if wanted < total:
        chosen = ((np.arange(wanted) + row * wanted) * _GOLDEN % 1 * total).astype(np.intp)
    image, y, x = chosen // (high * wide), chosen // wide % high, chosen % wide
    rows, columns = (np.arange(size) * dilation for size, dilation in zip(window.kernel, window.dilations, strict=True))
    tap_y, tap_x = (each.reshape(-1) for each in np.meshgrid(rows, columns, indexing="ij"))
    at_y = (y * window.strides[0])[:, None] + tap_y
    at_x = (x * window.strides[1])[:, None] + tap_x
    seen = padded[image[:, None], :, at_y, at_x].transpose(0, 2, 1)  # point, channel, tap
    flat: Array = seen.reshape(len(chosen), window.groups, -1).transpose(1, 2, 0).astype(np.float64)
    return flat


class MomentTable:
    """Answers what a product's weights are multiplied with."""

    def __init__(self, index: Mapping[str, _Entry], values: Array) -> None:
        self._index = index
        self._values = values

    def of(self, node: str) -> Moment | None:
        """Return the moments of what a node reads; None where they were not taken."""
        entry = self._index.get(node)
        if entry is None:
            return None
        covariance = self._values[entry.at : entry.at + entry.groups * entry.sums**2]
        return Moment(covariance.reshape(entry.groups, entry.sums, entry.sums), entry.points)


def open_moments(moments: Moments) -> MomentTable:
    """Read what `collect_moments` wrote."""
    import numpy as np

    index = msgspec.json.decode(moments.files.file(INDEX_FILE).read_bytes(), type=dict[str, _Entry])
    return MomentTable(index, np.load(moments.files.file(VALUES_FILE), allow_pickle=False))


class _Sums:
    """Sums over the points that have been seen."""

    def __init__(self, columns: Array) -> None:
        import numpy as np

        groups, sums, _ = columns.shape
        self.first = np.zeros((groups, sums))
        self.second = np.zeros((groups, sums, sums))
        self.points = 0

    def add(self, columns: Array) -> None:
        self.first += columns.sum(axis=2)
        self.second += columns @ columns.transpose(0, 2, 1)
        self.points += columns.shape[2]

    def moment(self) -> Moment:
        mean = self.first / self.points
        return Moment(self.second / self.points - mean[:, :, None] * mean[:, None, :], self.points)


def _save(found: Mapping[str, Moment]) -> Moments:
    import numpy as np

    index: dict[str, _Entry] = {}
    values: list[Array] = [np.zeros(0)]
    at = 0
    for name, moment in found.items():
        groups, sums, _ = moment.covariance.shape
        index[name] = _Entry(at=at, groups=groups, sums=sums, points=moment.points)
        values.append(moment.covariance.reshape(-1))
        at += moment.covariance.size
    folder = new_folder("moments")
    (folder / INDEX_FILE).write_bytes(msgspec.json.encode(index))
    np.save(folder / VALUES_FILE, np.concatenate(values))
    return Moments(files=gather(folder))


def _integers(node: onnx.NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return next((tuple(each.ints) for each in node.attribute if each.name == name), default)


def _pads_itself(node: onnx.NodeProto) -> bool:
    return any(each.name == "auto_pad" and each.s not in (b"", b"NOTSET") for each in node.attribute)
