"""Discrete Fourier transforms as products with matrices of cosines and sines.

A transform is linear in its signal: y[k] = Σ x[n] exp(∓2πi nk / L). With the real parts of a signal of N samples before
its imaginary ones it is a product with [[cos, ∓sin], [±sin, cos]], of 2N rows and as many columns as there are numbers
in the spectrum. Where N and L are known the matrix is a weight, else the graph computes it from the signal's size. An
axis of N samples costs N² multiplications for each signal, where a fast transform needs N log N.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.facts import Facts, Placed
from convkit.graph.mend_edit import Edit, Lines, drop_unused_weights

if TYPE_CHECKING:
    import numpy as np
    import onnx

LARGEST = 1 << 24
"""Elements of a matrix beyond which a transform is left as it is: complex signals of 2048 samples have as many."""
_INPUT_AXIS_SINCE = 20
_FLOATS = ("float", "float16", "bfloat16", "double")


class Transform(NamedTuple):
    """What a DFT node does, as far as its graph says it."""

    rank: int
    axis: int
    parts: int
    """Numbers of an element of the signal: 1 for real ones, 2 for complex ones."""
    samples: int | None
    """Size of the axis; None: known when it runs."""
    length: int | str | None
    """What zeros or a cut make the signal: a number, or the tensor that holds it; None: it is as long as it is."""
    inverse: bool
    onesided: bool
    elements: int
    """ONNX's number of the element type."""

    @property
    def real(self) -> bool:
        """Tell whether the result is real: that of a half spectrum."""
        return self.inverse and self.onesided

    @property
    def is_known(self) -> bool:
        """Tell whether the matrix can be computed beforehand."""
        return self.samples is not None and not isinstance(self.length, str)


def read_transform(node: Placed, facts: Facts) -> Transform | None:
    """Read a DFT node; None where it cannot be written as a product: sizes or type unknown, or the matrix too large."""
    signal = node.input(0)
    dims = facts.dims.get(signal, ())
    axis = _axis(node, facts)
    parts = dims[-1] if dims else None
    if axis is None or parts not in (1, 2) or facts.type_name(signal) not in _FLOATS:
        return None
    axis = axis + len(dims) if axis < 0 else axis
    inverse, onesided = bool(node.attribute("inverse", 0)), bool(node.attribute("onesided", 0))
    if not 0 <= axis < len(dims) - 1 or (onesided and parts != (2 if inverse else 1)):
        return None
    samples = dims[axis]
    found = Transform(
        rank=len(dims),
        axis=axis,
        parts=int(parts),
        samples=samples if isinstance(samples, int) else None,
        length=_length(node, facts, axis),
        inverse=inverse,
        onesided=onesided,
        elements=facts.types[signal],
    )
    return found if _elements(found) <= LARGEST else None


def _axis(node: Placed, facts: Facts) -> int | None:
    if facts.opset < _INPUT_AXIS_SINCE:
        return int(node.attribute("axis", 1))
    if not node.input(2):
        return -2
    value = facts.value(node.input(2))
    return int(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _length(node: Placed, facts: Facts, axis: int) -> int | str | None:
    name, signal = node.input(1), node.input(0)
    if not name:
        return None
    value = facts.value(name)
    if value is not None:
        return int(value.reshape(-1)[0])
    found = _measured(facts, name)
    if found is None:
        return name
    tensor, index = found
    dims, own = facts.dims.get(tensor, ()), facts.dims[signal][axis]
    same = index < len(dims) and isinstance(own, str) and dims[index] == own
    return None if same or (tensor, index) == (signal, axis) else name


def _measured(facts: Facts, name: str) -> tuple[str, int] | None:
    """Return the tensor and the dimension whose size a number is; None where it is something else."""
    maker = facts.makers.get(name)
    if maker is None:
        return None
    if maker.operator in ("Squeeze", "Reshape", "Unsqueeze", "Cast", "Identity"):
        return _measured(facts, maker.input(0))
    index: int | None = None
    shape = maker
    if maker.operator == "Gather":
        value, above = facts.value(maker.input(1)), facts.makers.get(maker.input(0))
        if value is None or value.size != 1 or above is None or above.attribute("start", 0):
            return None
        index, shape = int(value.reshape(-1)[0]), above
    if shape.operator != "Shape":
        return None
    rank = len(facts.dims.get(shape.input(0), ()))
    if index is None:
        index, end = int(shape.attribute("start", 0)), int(shape.attribute("end", rank))
        if (end + rank if end < 0 else end) - (index + rank if index < 0 else index) != 1:
            return None
    return shape.input(0), index + rank if index < 0 else index


def _elements(transform: Transform) -> int:
    samples, length = transform.samples, transform.length
    if samples is None or isinstance(length, str):
        return 0
    most = max(samples, length or 0, 2 * samples if transform.real and length is None else 0)
    return samples * transform.parts * most * (1 if transform.real else 2)


def dft_by_products(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Write transforms as products. Those with the same matrix share it."""
    edit = Edit(proto)
    outer = {name for node in proto.graph.node for name in node.output}
    tables: dict[object, str] = {}
    for node in edit.named(nodes):
        transform = read_transform(node, edit.facts)
        if node.operator != "DFT" or transform is None:
            continue
        lines = Lines(edit, node.name)
        if transform.is_known:
            key: object = transform._replace(rank=0, axis=0)
            if key not in tables:
                tables[key] = edit.weight(_of_type(matrix(transform), transform.elements), f"{node.name}__matrix")
        else:
            tensor, axis = _where_measured(edit.facts, node.input(0), transform.axis)
            key = (transform._replace(rank=0, axis=0), tensor, axis)
            if key not in tables or node.output(0) not in outer:
                table = _computed(lines, transform, tensor, axis)
                if node.output(0) not in outer:  # within a loop or a branch: nobody else sees it
                    key = node.output(0)
                tables[key] = table
        _multiply(lines, node, transform, tables[key])
        edit.replace(node, lines.nodes)
    drop_unused_weights(edit.proto)
    return edit.proto


def _where_measured(facts: Facts, signal: str, axis: int) -> tuple[str, int]:
    """Return an input of the graph with the same free dimension, that several transforms can share; else the signal."""
    own = facts.dims[signal][axis]
    for value in facts.inputs:
        dims = facts.dims.get(value.name, ())
        if isinstance(own, str) and own in dims:
            return value.name, dims.index(own)
    return signal, axis


def matrix(transform: Transform) -> np.ndarray:
    """Return a transform's matrix, float64: of `parts` times `samples` rows, real parts before imaginary ones."""
    import numpy as np

    samples = transform.samples or 0
    length = transform.length if isinstance(transform.length, int) else samples
    if transform.real and transform.length is None:
        length = 2 * (samples - 1)
    columns = length // 2 + 1 if transform.onesided and not transform.inverse else length
    row, column = np.arange(samples)[:, None], np.arange(columns)[None, :]
    angle = 2 * np.pi * (row * column % length) / length * (1 if transform.inverse else -1)
    weight = 1.0 * (row < length)
    if transform.real:  # the other half of the spectrum is the conjugate of this one
        weight = (2 * row < length) + 1.0 * (2 * row <= length) - (row == 0)
    cosine, sine = (each(angle) * weight / (length if transform.inverse else 1) for each in (np.cos, np.sin))
    blocks = [[cosine, sine], [-sine, cosine]][: transform.parts]
    return np.block([each[:1] for each in blocks] if transform.real else blocks)


def _of_type(values: np.ndarray, elements: int) -> np.ndarray:
    from onnx import helper

    converted: np.ndarray = values.astype(helper.tensor_dtype_to_np_dtype(elements))
    return converted


def _computed(lines: Lines, transform: Transform, tensor: str, axis: int) -> str:
    """Write down how the matrix is computed where the graph runs: see `matrix`."""
    from onnx import TensorProto

    def as_float(name: str) -> str:
        return lines.add("Cast", name, to=TensorProto.FLOAT)

    zero, one, two = (lines.number(value) for value in (0, 1, 2))
    samples = lines.add("Squeeze", lines.add("Shape", tensor, start=axis, end=axis + 1), lines.ints(0))
    if isinstance(transform.length, int):
        length = lines.number(transform.length)
    elif isinstance(transform.length, str):
        wide = lines.add("Cast", transform.length, to=TensorProto.INT64)
        length = lines.add("Squeeze", lines.add("Reshape", wide, lines.ints(1)), lines.ints(0))
    else:
        length = lines.add("Mul", lines.add("Sub", samples, one), two) if transform.real else samples
    columns = length
    if transform.onesided and not transform.inverse:
        columns = lines.add("Add", lines.add("Div", length, two), one)
    row = lines.add("Unsqueeze", lines.add("Range", zero, samples, one), lines.ints(1))
    column = lines.add("Unsqueeze", lines.add("Range", zero, columns, one), lines.ints(0))
    turns = as_float(lines.add("Mod", lines.add("Mul", row, column), length))
    around = lines.number(2 * math.pi if transform.inverse else -2 * math.pi)
    angle = lines.add("Mul", turns, lines.add("Div", around, as_float(length)))
    cosine, sine = lines.add("Cos", angle), lines.add("Sin", angle)
    weight = ""
    if transform.real:
        double = lines.add("Mul", row, two)
        twice = as_float(lines.add("Less", double, length))
        once = as_float(lines.add("LessOrEqual", double, length))
        weight = lines.add("Sub", lines.add("Add", twice, once), as_float(lines.add("Equal", row, zero)))
    elif transform.length is not None:
        weight = as_float(lines.add("Less", row, length))
    if weight:
        cosine, sine = lines.add("Mul", cosine, weight), lines.add("Mul", sine, weight)
    if transform.inverse:
        cosine, sine = (lines.add("Div", each, as_float(length)) for each in (cosine, sine))
    table = cosine if transform.real else lines.add("Concat", cosine, sine, axis=1)
    if transform.parts == 2:
        minus = lines.add("Neg", sine)
        below = minus if transform.real else lines.add("Concat", minus, cosine, axis=1)
        table = lines.add("Concat", table, below, axis=0)
    return lines.add("Cast", table, to=transform.elements)


def _multiply(lines: Lines, node: Placed, transform: Transform, table: str) -> None:
    """Bring the axis and the parts to the end as one dimension, multiply, and bring them back."""
    rank, axis = transform.rank, transform.axis
    others = [each for each in range(rank - 1) if each != axis]
    order = [*others, rank - 1, axis]
    kept = [0] * len(others)
    signal = node.input(0)
    if transform.parts > 1 or axis != rank - 2:
        signal = lines.add("Transpose", signal, perm=order)
    flat = lines.add("Reshape", signal, lines.ints(*kept, -1))
    product = lines.add("MatMul", flat, table)
    split = lines.add("Reshape", product, lines.ints(*kept, 1 if transform.real else 2, -1))
    back = [order.index(each) for each in range(rank)]
    lines.add("Transpose", split, perm=back, output=node.output(0))
