"""Writing prepared samples: ``.npz`` files of bounded size, each of rows of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.errors import InputError
from convkit.graph.model import numpy_dtype, write_npz
from convkit.pipeline.artifact import Artifact, gather
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SHARD_BYTES = 1 << 26

Shape = tuple[tuple[int, ...], ...]


class ShardWriter:
    """Collects samples, each checked as it comes, and writes them as rows, never holding more than a shard.

    Samples of one shape stand in the order in which they came.
    """

    def __init__(self, interface: Interface, folder: Path, *, labels: str) -> None:
        self.samples = 0
        self._interface, self._folder, self._labels = interface, folder, labels
        self._held: dict[Shape, list[dict[str, np.ndarray]]] = {}
        self._bytes = 0
        self._shards = 0
        self._labelled: bool | None = None

    def add(self, value: Any, label: Any, where: str) -> None:
        """Take one sample: the arrays of all inputs, without the batch, and what it is where that is known.

        Raises:
            InputError: an input is missing, has another type or shape, or holds NaN or infinity; only some samples have
                labels.
        """
        row = self._checked(value, where)
        if self._labelled not in (None, label is not None):
            raise InputError(
                f"{where} has {'a' if label is not None else 'no'} label, unlike those before it",
                hint=f"label every sample ('{self._labels}'), or none",
                code="data.labels",
            )
        self._labelled = label is not None
        if label is not None:
            row[self._labels] = _plain(label, self._labels, where)
        self._held.setdefault(tuple(array.shape for array in row.values()), []).append(row)
        self._bytes += sum(array.nbytes for array in row.values())
        self.samples += 1
        if self._bytes >= SHARD_BYTES:
            self._write()

    def finish(self) -> Artifact:
        """Write what is left, and return all files."""
        self._write()
        return gather(self._folder)

    def _write(self) -> None:
        import numpy as np

        for rows in self._held.values():
            arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            write_npz(self._folder / f"{self._shards:06d}.npz", arrays)
            self._shards += 1
        self._held, self._bytes = {}, 0

    def _checked(self, value: Any, where: str) -> dict[str, np.ndarray]:
        if not isinstance(value, Mapping):
            raise InputError(
                f"{where} is a {type(value).__name__}, not a dict of arrays",
                hint="give each sample as a dict, its arrays under the names of the inputs; [preprocess] function may "
                "make one out of anything else",
                code="data.no-dict",
            )
        return {spec.name: _row(spec, value, where) for spec in self._interface.inputs}


def _row(spec: TensorSpec, value: Mapping[str, Any], where: str) -> np.ndarray:
    import numpy as np

    name = next((name for name in (spec.name, spec.alias) if name in value), None)
    if name is None:
        raise InputError(
            f"{where} has no array called '{spec.name}'" + (f" or '{spec.alias}'" if spec.alias else ""),
            hint=f"it has: {', '.join(sorted(map(str, value))) or 'nothing'}",
            code="data.missing-tensor",
        )
    array = _plain(value[name], spec.name, where)
    wanted = "str" if spec.dtype is DType.STRING else str(numpy_dtype(spec.dtype))
    if (array.dtype.kind not in "US") if spec.dtype is DType.STRING else str(array.dtype) != wanted:
        raise InputError(
            f"{where}: '{spec.name}' is {array.dtype}, the model takes {wanted}",
            hint=f"convert it before: array.astype('{wanted}')",
            code="data.type",
        )
    dims = spec.dims[1:]
    if len(array.shape) != len(dims) or any(
        isinstance(dim, int) and dim != size for dim, size in zip(dims, array.shape, strict=True)
    ):
        batched = len(array.shape) == len(spec.dims)
        raise InputError(
            f"{where}: '{spec.name}' has the shape {list(array.shape)}, a sample of {spec} has {list(dims)}",
            hint="give one sample at a time, without the axis of the batch"
            if batched
            else "bring every sample to the model's own shape; for images see resize and crop of [preprocess]",
            code="data.shape",
        )
    if spec.dtype.is_float and not np.isfinite(array).all():
        raise InputError(
            f"{where}: '{spec.name}' holds NaN or infinity",
            hint="clean the data; a range cannot be taken from them",
            code="data.not-finite",
        )
    return array


def _plain(value: Any, name: str, where: str) -> np.ndarray:
    """Return a value as an array that numpy writes without pickling."""
    import numpy as np

    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors on another device
        raise InputError(
            f"{where}: '{name}' is no array: {error}", hint="give a numpy array", code="data.no-array"
        ) from error
    if array.dtype == object and all(isinstance(item, str) for item in array.flat):
        array = array.astype("U")
    if array.dtype.hasobject:
        raise InputError(
            f"{where}: '{name}' is no array of numbers or texts, but a {type(value).__name__}",
            hint="give a numpy array",
            code="data.no-array",
        )
    return array
