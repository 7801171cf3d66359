"""Arrays of a ``.npz`` file, read row by row: what is held is what was asked for, however long the file is.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Nothing is ever unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from convkit.errors import ConvkitError, InputError
from convkit.spec.archive import refuse_bomb

if TYPE_CHECKING:
    import numpy as np

_PART = 1 << 20


class NpzReader:
    """An open ``.npz`` file. Use it as a context manager.

    Raises:
        InputError: it is missing, or no ``.npz`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._archive = zipfile.ZipFile(path)
            refuse_bomb(self._archive.infolist(), path.stat().st_size)
        self.names = tuple(name.removesuffix(".npy") for name in self._archive.namelist())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def column(self, name: str) -> Column:
        """Return the array called `name`, at its first row.

        Raises:
            InputError: it is damaged, or holds pickled objects.
        """
        with reading(self.path):
            info = self._archive.getinfo(f"{name}.npy" if f"{name}.npy" in self._archive.NameToInfo else name)
            return Column(self.path, name, lambda: self._archive.open(info), info.file_size)


class Column:
    """One array: its `shape` and `dtype`, and its rows in order."""

    def __init__(self, path: Path, name: str, opened: Callable[[], IO[bytes]], size: int) -> None:
        self.path, self.name = path, name
        self._stream = opened()
        self.shape, self._fortran, self.dtype = _header(self._stream)
        rows, *rest = self.shape or (1,)
        self._row_shape = tuple(rest)
        self._left = rows
        whole = math.prod(self.shape) * self.dtype.itemsize
        if whole != size - self._stream.tell():
            raise ValueError(f"'{name}' should have {whole} bytes, and has {size - self._stream.tell()}")
        self._held: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of rows, read or not."""
        return self.shape[0] if self.shape else 1

    def take(self, count: int) -> np.ndarray:
        """Return the next `count` rows, ``[count, ...]``, or as many as are left.

        An array in Fortran's order, whose rows lie scattered, is held as a whole from the first call on.
        """
        count = min(count, self._left)
        with reading(self.path):
            if self._fortran:
                rows = self._scattered(count)
            else:
                rows = _filled(self._stream, (count, *self._row_shape), self.dtype)
        self._left -= count
        return rows

    def whole(self) -> np.ndarray:
        """Return the array as it is, a scalar too, where no row has been taken."""
        return self.take(self._left).reshape(self.shape)

    def _scattered(self, count: int) -> np.ndarray:
        if self._held is None:
            self._held = _filled(self._stream, self.shape[::-1], self.dtype).T
        start = len(self._held) - self._left
        return self._held[start : start + count]


def names_in(path: Path) -> tuple[str, ...]:
    """Return the names of a file's arrays, without reading them.

    Raises:
        InputError: the file is missing, or no ``.npz`` file.
    """
    with NpzReader(path) as reader:
        return reader.names


@contextmanager
def reading(path: Path, *, kind: str = ".npz") -> Iterator[None]:
    """Turn whatever a damaged file brings about into an `InputError` that names it."""
    try:
        yield
    except ConvkitError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path", code="data.missing") from error
    except Exception as error:  # a header is parsed as Python, and says what that says
        raise InputError(
            f"{path} cannot be read as a {kind} file: {' '.join(str(error).split()) or type(error).__name__}",
            hint="write it with "
            + ("numpy.savez(path, **{tensor_name: array})" if kind == ".npz" else "numpy.save(path, array)")
            + "; object arrays are refused, use 'U' strings",
            code="data.unreadable",
        ) from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the order is Fortran's, and type."""
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array in version {version} of numpy's format")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if any(size < 0 for size in shape):
        raise ValueError(f"an array of the shape {shape}")
    return shape, fortran and len(shape) > 1, dtype


def _filled(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    import numpy as np

    array = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    at = 0
    while at < len(array):
        part = stream.read(min(_PART, len(array) - at))
        if not part:
            raise EOFError("it ends before its last row")
        array[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    return array.view(dtype).reshape(shape) if dtype.itemsize else np.empty(shape, dtype)
