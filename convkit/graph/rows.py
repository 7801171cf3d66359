"""Rows of a ``.npz`` file held against what a model takes: names, types, shapes and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from convkit.errors import InputError
from convkit.graph.model import numpy_dtype
from convkit.graph.npz import Column, NpzReader
from convkit.pipeline.artifact import Artifact
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rows:
    """Some rows: every input under its wire name, and the labels that go with them."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        """Return how many rows these are."""
        return len(next(iter(self.inputs.values())))


class RowReader:
    """One file's rows, in order, each checked as it is read. Use it as a context manager.

    Args:
        interface: what the model takes; arrays bear the wire names or the aliases.
        path: the ``.npz`` file.
        labels: the name of the array with the labels; None: they are not read.

    Raises:
        InputError: the file cannot be read; an array is missing, or has another type, shape or number of rows.
    """

    def __init__(self, interface: Interface, path: Path, *, labels: str | None = None) -> None:
        refuse_scalars(interface)
        self.path = path
        self._reader = NpzReader(path)
        self._columns = {spec.name: open_column(self._reader, spec) for spec in interface.inputs}
        self._specs = {spec.name: spec for spec in interface.inputs}
        self._labels = self._label_column(labels) if labels is not None else None
        self._refuse_disagreement()
        self._done = 0
        self.count = next(iter(self._columns.values())).shape[0]
        """Rows in the file."""
        self.row_shapes = {name: column.shape[1:] for name, column in self._columns.items()}
        """Shape of one row of each input."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    @property
    def left(self) -> int:
        """Return how many rows have not been read."""
        return self.count - self._done

    def take(self, count: int) -> Rows:
        """Return the next rows: `count`, or as many as are left.

        Raises:
            InputError: a value is NaN or infinite, or the file is damaged.
        """
        inputs = {
            name: checked_values(self._specs[name], column.take(count), self.path, first_row=self._done)
            for name, column in self._columns.items()
        }
        labels = self._labels.take(count) if self._labels is not None else None
        rows = Rows(inputs, labels)
        self._done += len(rows)
        return rows

    def _label_column(self, name: str) -> Column:
        if name not in self._reader.names:
            raise InputError(
                f"{self.path} has no labels: no array is called '{name}'",
                hint=f"it has: {', '.join(sorted(self._reader.names))}; name the labels with --labels-key, or compare "
                "with the source framework's own answers: --metric agreement",
                code="data.no-labels",
            )
        return self._reader.column(name)

    def _refuse_disagreement(self) -> None:
        """Refuse inputs of other numbers of rows, labels of another length, and dimensions that should be equal."""
        lengths = {column.shape[0] for column in self._columns.values()}
        if len(lengths) != 1:
            raise InputError(
                f"{self.path}: its inputs have {sorted(lengths)} rows: they must have the same number",
                hint="stack every input along the first axis, one row for each sample",
                code="data.rows",
            )
        labels = self._labels
        if labels is not None and labels.shape[:1] != (*lengths,):
            raise InputError(
                f"{self.path}: '{labels.name}' has {labels.shape[0] if labels.shape else 'no'} rows, the inputs have "
                f"{lengths.pop()}",
                hint="give one label for each sample, in the same order",
                code="data.labels",
            )
        sizes: dict[str, tuple[str, int]] = {}
        for name, column in self._columns.items():
            for dim, size in zip(self._specs[name].dims[1:], column.shape[1:], strict=True):
                other, known = sizes.setdefault(dim, (name, size)) if isinstance(dim, str) else (name, size)
                if known != size:
                    raise InputError(
                        f"{self.path}: '{name}' has {size} and '{other}' has {known} along their dimension '{dim}', "
                        "which is one and the same to the model",
                        hint="pad or cut each sample's arrays to one length",
                        code="data.shape",
                    )


def stream_rows(
    interface: Interface,
    data: Artifact,
    *,
    size: int,
    labels: str | None = None,
    at_most: int | None = None,
    at_least: int = 1,
) -> Iterator[Rows]:
    """Yield `size` rows at a time, across the files of `data`; less at the end and where the shape of a row changes.

    Raises:
        InputError: the rows do not fit the model; or, after the last, there were fewer than `at_least`.
    """
    waiting: list[Rows] = []
    shapes: dict[str, tuple[int, ...]] | None = None
    given = held = 0
    for member in data.files:
        if at_most is not None and given + held >= at_most:
            break
        with RowReader(interface, data.file(member), labels=labels) as reader:
            if held and reader.row_shapes != shapes:
                yield _joined(waiting)
                given, held, waiting = given + held, 0, []
            shapes = reader.row_shapes
            while reader.left and (at_most is None or given + held < at_most):
                wanted = size - held if at_most is None else min(size - held, at_most - given - held)
                waiting.append(reader.take(wanted))
                held += len(waiting[-1])
                if held == size:
                    yield _joined(waiting)
                    given, held, waiting = given + held, 0, []
    if held:
        yield _joined(waiting)
    if given + held < at_least:
        where = data.file() if len(data.files) == 1 else data.path
        raise InputError(
            f"{where}: {given + held} samples, at least {at_least} are needed", hint="give more", code="data.too-few"
        )


def _joined(parts: list[Rows]) -> Rows:
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    labels = [part.labels for part in parts if part.labels is not None]
    return Rows(
        inputs={name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs},
        labels=np.concatenate(labels) if labels else None,
    )


def open_column(reader: NpzReader, spec: TensorSpec) -> Column:
    """Return an input's array, under its wire name or its alias, at the first row.

    Raises:
        InputError: it is missing, or has another type or shape.
    """
    name = next((name for name in (spec.name, spec.alias) if name in reader.names), None)
    if name is None:
        raise InputError(
            f"{reader.path} has no array called '{spec.name}'" + (f" or '{spec.alias}'" if spec.alias else ""),
            hint=f"it has: {', '.join(sorted(reader.names)) or 'nothing'}",
            code="data.missing-tensor",
        )
    column = reader.column(name)
    _refuse_type(spec, column, reader.path)
    _refuse_shape(spec, column, reader.path)
    return column


def checked_values(spec: TensorSpec, array: np.ndarray, path: Path, *, first_row: int = 0) -> np.ndarray:
    """Return what was read as the model takes it. `first_row` is the number of the array's first row in the file.

    Raises:
        InputError: a value is NaN or infinite.
    """
    import numpy as np

    if spec.dtype is DType.STRING:
        return array.astype("U")
    if spec.dtype is DType.BFLOAT16:  # numpy's file format knows it as two bytes of nothing in particular
        array = array.view(numpy_dtype(spec.dtype))
    if spec.dtype.is_float and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array.astype(np.float64)))[0][:1]
        raise InputError(
            f"{path}: '{spec.name}' holds NaN or infinity" + "".join(f", first in row {first_row + n}" for n in bad),
            hint="clean the data; a range cannot be taken from them",
            code="data.not-finite",
        )
    return array


def refuse_scalars(interface: Interface) -> None:
    """Let interfaces pass whose inputs all have rows.

    Raises:
        InputError: one is a scalar.
    """
    scalar = next((spec.name for spec in interface.inputs if not spec.dims), None)
    if scalar is not None:
        raise InputError(
            f"the input '{scalar}' is a scalar: samples are rows, and it has none",
            hint="leave the data out, and bound the scalar with 'range' in config.txt; --samples takes a single case, "
            "each array of its input's shape, for a model without a batch",
            code="data.scalar",
        )


def _refuse_type(spec: TensorSpec, column: Column, path: Path) -> None:
    if spec.dtype is DType.STRING:
        wanted, fits = "str", column.dtype.kind in "US"
    else:
        wanted = str(numpy_dtype(spec.dtype))
        fits = column.dtype.str == "|V2" if spec.dtype is DType.BFLOAT16 else str(column.dtype) == wanted
    if not fits:
        raise InputError(
            f"{path}: '{spec.name}' is {column.dtype}, the model takes {wanted}",
            hint=f"convert it once, before saving: array.astype('{wanted}')",
            code="data.type",
        )


def _refuse_shape(spec: TensorSpec, column: Column, path: Path) -> None:
    fits = len(column.shape) == len(spec.dims) and all(
        isinstance(dim, str) or dim == size or axis == 0
        for axis, (dim, size) in enumerate(zip(spec.dims, column.shape, strict=True))
    )
    if not fits:
        raise InputError(
            f"{path}: '{spec.name}' has the shape {list(column.shape)}, the model takes {spec}",
            hint="the first axis counts the samples, the others are the model's",
            code="data.shape",
        )
