"""An ONNX model on its way through the pipeline, and the tensors that go with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.errors import InputError
from convkit.graph.wire import read_without_weights, write_by_parts
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.spec.tensor import DType, Interface

if TYPE_CHECKING:
    import numpy as np
    import onnx

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
EXTERNAL_ABOVE = 1_000_000_000
"""Bytes of weights above which they lie beside the graph on the whole way: a protobuf holds 2 GiB at most, and whoever
parses one has all of it in memory, often twice."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX file (and its external data) with the interface that a caller sees."""

    files: Artifact
    interface: Interface

    @property
    def path(self) -> Path:
        """Return the path of the ONNX file."""
        return self.files.file(MODEL_FILE)


class Tensors(msgspec.Struct, frozen=True, kw_only=True):
    """Sets of named tensors, one ``.npz`` file for each case, in order."""

    files: Artifact

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for name in self.files.files:
            yield read_npz(self.files.file(name))

    def __len__(self) -> int:
        return len(self.files.files)


def save_model(proto: onnx.ModelProto, interface: Interface) -> Model:
    """Write a model that is held in memory as an artifact; large weights go beside the graph."""
    import onnx

    folder = new_folder("model")
    known = {}
    if weight_bytes(proto) > EXTERNAL_ABOVE:
        onnx.save_model(
            proto, str(folder / MODEL_FILE), save_as_external_data=True, location=DATA_FILE, size_threshold=1024
        )
    else:
        known[MODEL_FILE] = write_by_parts(proto, folder / MODEL_FILE)
    return Model(files=gather(folder, known=known), interface=interface)


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Return the bytes of the graph's weights. (A message's own ByteSize encodes it whole, in memory.)"""
    return sum(
        len(weight.raw_data) or 8 * len(weight.int64_data) + 4 * len(weight.float_data)
        for weight in proto.graph.initializer
    )


def load_model(model: Model, *, weights: bool = True) -> onnx.ModelProto:
    """Read the model into memory; without `weights` the initializers' data are left out, wherever they lie."""
    import onnx

    return onnx.load(str(model.path)) if weights else read_without_weights(model.path)


def save_tensors(cases: Iterable[Mapping[str, np.ndarray]], *, digits: int = 4) -> Tensors:
    """Write sets of named tensors as an artifact, in files with numbers of so many `digits`.

    Strings are kept as fixed-width unicode, never pickled.
    """
    folder = new_folder("tensors")
    for number, case in enumerate(cases):
        plain = {name: array.astype("U") if array.dtype == object else array for name, array in case.items()}
        write_npz(folder / f"{number:0{digits}d}.npz", plain)
    return Tensors(files=gather(folder))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what `numpy.savez` writes; that takes names for its own arguments, and not every name is one."""
    import zipfile

    from numpy.lib import format as npy

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read a ``.npz`` file, never unpickling anything.

    Raises:
        InputError: the file is missing, damaged, or holds pickled objects.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _typed(archive[name]) for name in archive.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path", code="data.missing") from error
    except Exception as error:  # numpy parses a header as Python, and says what that says
        raise InputError(
            f"{path} cannot be read as a .npz file: {error}",
            hint="write it with numpy.savez(path, **{tensor_name: array}); object arrays are refused, use 'U' strings",
            code="data.unreadable",
        ) from error


def _typed(array: np.ndarray) -> np.ndarray:
    """Give bfloat16 its type back: numpy's file format knows it as two bytes of nothing in particular."""
    return array.view(numpy_dtype(DType.BFLOAT16)) if array.dtype.str == "|V2" else array


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return numpy's type for `dtype`; bfloat16 comes from ml_dtypes."""
    import numpy as np

    if dtype is DType.BFLOAT16:
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(dtype.numpy)
