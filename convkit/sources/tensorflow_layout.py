"""Images with their channels last, as TensorFlow has them, or first, as `--layout nchw` gives them to callers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from convkit.spec.metadata import Metadata, TensorMetadata
from convkit.spec.options import TensorLayout

if TYPE_CHECKING:
    import numpy as np

_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)
T = TypeVar("T")


def turned(dims: Sequence[T], layout: TensorLayout) -> tuple[T, ...]:
    """Return the dims that callers see of a tensor of the model: where it has four, the channels before the image."""
    return (
        tuple(dims[axis] for axis in _FIRST) if layout is TensorLayout.NCHW and len(dims) == len(_FIRST) else (*dims,)
    )


def turned_metadata(metadata: Metadata, layout: TensorLayout) -> Metadata:
    """Return what callers see where config.txt says what the model has."""

    def tensors(held: Sequence[TensorMetadata]) -> tuple[TensorMetadata, ...]:
        names = ("dims", "min_dims", "opt_dims", "max_dims")
        return tuple(
            msgspec.structs.replace(
                each, **{name: turned(dims, layout) for name in names if (dims := getattr(each, name)) is not None}
            )
            for each in held
        )

    return msgspec.structs.replace(metadata, inputs=tensors(metadata.inputs), outputs=tensors(metadata.outputs))


def given_to_callers(array: np.ndarray, layout: TensorLayout) -> np.ndarray:
    """Turn one of the model's tensors as `turned` says."""
    return _transposed(array, _FIRST, layout)


def given_to_model(array: np.ndarray, layout: TensorLayout) -> np.ndarray:
    """Undo `given_to_callers`."""
    return _transposed(array, _LAST, layout)


def _transposed(array: np.ndarray, axes: tuple[int, ...], layout: TensorLayout) -> np.ndarray:
    import numpy as np

    if layout is not TensorLayout.NCHW or array.ndim != len(axes):
        return array
    return np.ascontiguousarray(array.transpose(axes))
