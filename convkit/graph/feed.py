"""Data on their way into a model, batch by batch: what is held is one batch, however many rows there are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.errors import InputError
from convkit.graph.rows import refuse_scalars, stream_rows
from convkit.graph.samples import case_sizes, random_case, shape_for
from convkit.pipeline.artifact import Artifact
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np

MOST_ROWS = 32
"""Rows of a batch where nothing else limits it: enough to keep every core busy."""
_BATCH_BYTES = 1 << 26


@dataclass(frozen=True)
class Batch:
    """Inputs under their wire names, with their labels."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    """A label for each of the `rows`; None where they were not asked for."""
    rows: int
    """How many rows count: those of `inputs` behind them repeat the last, to fill a model's fixed batch."""


def batches(
    interface: Interface, data: Artifact | None, *, size: int, at_most: int | None = None, at_least: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Go through the inputs of a model in batches.

    Args:
        interface: what the model takes.
        data: ``.npz`` files whose arrays are stacked along the first axis, in this order; None draws random rows, row
            for row the same whatever the size.
        size: rows of a batch; a model whose first dimension is fixed gets batches of that, and the rows that do not
            fill one are left out. A batch is smaller at the end, and where the next rows have another shape.
        at_most: rows to give; random ones need it.
        at_least: rows that there must be; a fixed batch in any case.

    Raises:
        InputError: a tensor is missing, has another type or shape, or holds NaN or infinity; or, after the last batch,
            rows were too few.
    """
    if data is None:
        yield from _random(interface, size, at_most or 0)
        return
    fixed = fixed_rows(interface)
    limit = None if at_most is None else max(at_most, fixed or 1)
    for rows in stream_rows(interface, data, size=fixed or size, at_most=limit, at_least=max(at_least, fixed or 1)):
        if not fixed or len(rows) == fixed:
            yield rows.inputs


def labelled_batches(
    interface: Interface, data: Artifact, *, labels: str | None, size: int, at_most: int | None = None
) -> Iterator[Batch]:
    """Go through all rows with the array `labels`, where it is named; a fixed batch is filled by repeating a row.

    Raises:
        InputError: as in `batches`; the labels are missing, or of another length.
    """
    fixed = fixed_rows(interface)
    for rows in stream_rows(interface, data, size=fixed or size, labels=labels, at_most=at_most):
        inputs = {name: padded(array, fixed) for name, array in rows.inputs.items()} if fixed else rows.inputs
        yield Batch(inputs=inputs, labels=rows.labels, rows=len(rows))


def fixed_rows(interface: Interface) -> int | None:
    """Return the first dimension of the inputs where it is fixed.

    Raises:
        InputError: an input is a scalar, or two have other fixed ones: there are no rows that batches could be made of.
    """
    refuse_scalars(interface)
    fixed = {spec.name: spec.dims[0] for spec in interface.inputs if isinstance(spec.dims[0], int)}
    if len(set(fixed.values())) > 1:
        raise InputError(
            "the inputs have other first dimensions, so that no batch can be made of rows: "
            + ", ".join(f"'{name}' {size}" for name, size in fixed.items()),
            hint="export the model with one batch dimension for all inputs (batch_size in config.txt)",
            code="data.no-batch",
        )
    return int(next(iter(fixed.values()))) if fixed else None


def batch_rows(interface: Interface) -> int:
    """Return how many rows a batch may have: 32, and no more than 64 MiB of inputs hold; a fixed batch as it is."""
    fixed = fixed_rows(interface)
    if fixed:
        return fixed
    sizes = {**case_sizes(interface)[0], **{str(spec.dims[0]): 1 for spec in interface.inputs}}
    row = sum(math.prod(shape_for(spec, sizes)) * max(spec.dtype.bits // 8, 1) for spec in interface.inputs)
    return max(1, min(MOST_ROWS, _BATCH_BYTES // max(row, 1)))


def rows_of(array: np.ndarray, name: str, sent: int, rows: int) -> np.ndarray:
    """Return the first `rows` rows of an output, those that count of all that were `sent`.

    Raises:
        InputError: the output has no row for each sample.
    """
    if array.shape[:1] not in ((sent,), (rows,)):
        raise InputError(
            f"the output '{name}' has the shape {list(array.shape)} for {sent} samples: not a row for each",
            hint="judge another output: [accuracy] output",
            code="accuracy.rows",
        )
    return array[:rows]


def padded(array: np.ndarray, rows: int) -> np.ndarray:
    """Return an array of at least so many rows: where there are fewer, the last is repeated."""
    import numpy as np

    return array if len(array) >= rows else np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def _random(interface: Interface, size: int, at_most: int) -> Iterator[dict[str, np.ndarray]]:
    import numpy as np

    fixed = fixed_rows(interface)
    sizes = {**case_sizes(interface)[0], **{str(spec.dims[0]): 1 for spec in interface.inputs}}
    if fixed:
        for number in range(-(-at_most // fixed)):
            yield random_case(interface, sizes, seed=number)
        return
    for start in range(0, at_most, size):
        rows = [random_case(interface, sizes, seed=row) for row in range(start, min(start + size, at_most))]
        yield {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
