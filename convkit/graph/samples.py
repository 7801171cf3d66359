"""Inputs for checks and measurements: two sizes of every dynamic dimension, random or from the user's file."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from convkit.errors import InputError
from convkit.graph.model import numpy_dtype
from convkit.graph.npz import NpzReader
from convkit.graph.rows import checked_values, open_column, stream_rows
from convkit.pipeline.artifact import Artifact
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np

BATCH_SIZES = (1, 3)
OTHER_SIZES = (64, 96)  # multiples of 32, so that strided networks take them
MOST_ELEMENTS = 1 << 28
"""Elements of one input beyond which none are drawn: 1 GiB of float32."""
_PIECE = 1 << 20


def case_sizes(interface: Interface) -> tuple[dict[str, int], ...]:
    """Choose sizes for every dynamic dimension: one case where all are fixed, else two that differ everywhere.

    min_dims, opt_dims and max_dims are honoured: the first case is the usual size (batch 1), the second another one.
    """
    if not interface.dynamic_dims:
        return ({},)
    first: dict[str, int] = {}
    second: dict[str, int] = {}
    for spec in interface.inputs:
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str) and dim not in first:
                first[dim], second[dim] = _two_sizes(spec, axis, interface.max_batch_size)
    return (first, second)


def _two_sizes(spec: TensorSpec, axis: int, max_batch_size: int) -> tuple[int, int]:
    is_batch = axis == 0 and spec.dims[0] == "batch"
    low = spec.min_dims[axis] if spec.min_dims else 1
    high = spec.max_dims[axis] if spec.max_dims else (max_batch_size if is_batch and max_batch_size else 1 << 31)
    usual, other = BATCH_SIZES if is_batch else OTHER_SIZES
    if spec.opt_dims and not is_batch:
        usual = spec.opt_dims[axis]
        other = high if high not in (usual, 1 << 31) else low if low != usual else usual + 32
    usual, other = (min(max(size, low), high) for size in (usual, other))
    if usual == other:
        other = usual + 1 if usual < high else max(low, usual - 1)
    return usual, other


def shape_for(spec: TensorSpec, sizes: dict[str, int]) -> tuple[int, ...]:
    """Return a tensor's shape with its dynamic dimensions filled in."""
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.dims)


def random_case(interface: Interface, sizes: dict[str, int], *, seed: int) -> dict[str, np.ndarray]:
    """Draw every input at random: floats standard normal, integers 0 or 1, uint8 0 to 255, unless a range is given.

    Raises:
        InputError: an input holds strings, for which nothing sensible can be drawn, or is too large to be drawn.
    """
    import numpy as np

    for spec in interface.inputs:
        _refuse_giant(spec, shape_for(spec, sizes))
    generator = np.random.default_rng(seed)
    return {spec.name: _random(spec, shape_for(spec, sizes), generator) for spec in interface.inputs}


def _refuse_giant(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > MOST_ELEMENTS:
        raise InputError(
            f"input '{spec.name}' has the shape {list(shape)}: {math.prod(shape):.1e} elements are not drawn at random",
            hint="bound its free dimensions with opt_dims and max_dims in config.txt, or give inputs with --samples",
            code="samples.too-large",
        )


def _random(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    dtype = numpy_dtype(spec.dtype) if spec.dtype is not DType.STRING else None
    if dtype is None:
        raise InputError(
            f"input '{spec.name}' holds strings, and no random ones would mean anything",
            hint="give real inputs with --samples FILE.npz",
            code="samples.strings",
        )
    if spec.dtype.is_float:
        return _random_floats(spec, shape, generator, dtype)
    if spec.dtype is DType.BOOL:
        return generator.integers(0, 2, shape).astype(dtype)
    lowest, highest = spec.range or ((0, 255) if spec.dtype is DType.UINT8 else (0, 1))
    return generator.integers(int(lowest), int(highest), shape, endpoint=True, dtype=np_integer(spec)).astype(dtype)


def _random_floats(
    spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator, dtype: np.dtype[Any]
) -> np.ndarray:
    """Draw them piece by piece, since numpy draws in float64; they are those that it would draw at once."""
    import numpy as np

    drawn = np.empty(shape, dtype)
    flat = drawn.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        count = min(_PIECE, flat.size - start)
        piece = generator.uniform(*spec.range, count) if spec.range else generator.standard_normal(count)
        flat[start : start + count] = piece.astype(dtype)
    return drawn


def np_integer(spec: TensorSpec) -> str:
    """Return the integer type in which numpy draws: unsigned 64 bit for the one type that int64 cannot hold."""
    return "uint64" if spec.dtype is DType.UINT64 else "int64"


def make_cases(interface: Interface, data: Artifact | None, *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return the inputs on which the source and every later model are run and compared.

    With `data` (``.npz`` files whose arrays are stacked along the first axis) its first rows, at two batch sizes where
    the batch is dynamic; arrays that cannot be rows, and are what a model without a batch takes, are one case as they
    are. Without, random inputs at two sizes of every dynamic dimension.
    """
    sizes = case_sizes(interface)
    if data is None:
        return [random_case(interface, chosen, seed=seed + number) for number, chosen in enumerate(sizes)]
    whole = _one_case(interface, data)
    if whole is not None:
        return [whole]
    most = max(_wanted(spec, chosen) for spec in interface.inputs for chosen in sizes)
    rows = read_rows(interface, data, at_most=most)
    return [{spec.name: _first_rows(rows[spec.name], spec, chosen) for spec in interface.inputs} for chosen in sizes]


def _one_case(interface: Interface, data: Artifact) -> dict[str, np.ndarray] | None:
    """Return the arrays of a single file where one is a scalar, or their first axes differ, and each has its shape."""
    if interface.max_batch_size or len(data.files) != 1:
        return None
    path = data.file(data.files[0])
    with NpzReader(path) as reader:
        if not all(spec.name in reader.names or spec.alias in reader.names for spec in interface.inputs):
            return None
        if _has_rows(interface, reader):
            return None
        return {spec.name: checked_values(spec, open_column(reader, spec).whole(), path) for spec in interface.inputs}


def _has_rows(interface: Interface, reader: NpzReader) -> bool:
    """Tell whether the arrays have a first axis in common, or shapes that the model would not take as they are."""
    firsts: set[tuple[int, ...]] = set()
    sizes: dict[int | str, int] = {}
    for spec in interface.inputs:
        shape = reader.column(spec.name if spec.name in reader.names else str(spec.alias)).shape
        firsts.add(shape[:1])
        if len(shape) != len(spec.dims) or 0 in shape:
            return True
        for dim, size in zip(spec.dims, shape, strict=True):
            if sizes.setdefault(dim, dim if isinstance(dim, int) else size) != size:
                return True
    return len(firsts) == 1 and () not in firsts


def _wanted(spec: TensorSpec, sizes: dict[str, int]) -> int:
    """Return how many rows a case has."""
    return (*shape_for(spec, sizes), 1)[0]


def _first_rows(rows: np.ndarray, spec: TensorSpec, sizes: dict[str, int]) -> np.ndarray:
    """Take as many rows as the first dimension has, over again where they are too few for a batch or a fixed one."""
    wanted = _wanted(spec, sizes)
    if isinstance(spec.dims[0], str) and spec.dims[0] != "batch":
        wanted = min(wanted, len(rows))
    return rows[[index % len(rows) for index in range(wanted)]]


def read_rows(
    interface: Interface, data: Artifact, *, at_least: int = 1, at_most: int | None = None
) -> dict[str, np.ndarray]:
    """Read the first rows of the inputs, up to where the shape of a row changes; see `convkit.graph.rows`.

    Raises:
        InputError: a tensor is missing, has another type or shape, holds NaN or infinity, or rows are too few.
    """
    size = at_most or sys.maxsize
    first, *_ = stream_rows(interface, data, size=size, at_most=at_most, at_least=at_least)
    return first.inputs
