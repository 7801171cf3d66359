"""Weights lent to ONNX Runtime from their file, so that none is in memory twice while a session is opened.

ONNX Runtime packs a product's weight anew for its kernels, with the file's own mapped meanwhile: opening takes the
model and its largest weight once more. Weights that are handed to it (`SessionOptions.add_initializer`) it packs just
the same, reading the mapping that is made here; of this the pages are let go as it reads, and come back from the page
cache where they are read again.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.graph.census import bits_of
from convkit.graph.weights import SMALL
from convkit.graph.wire import read_without_weights
from convkit.spec.paths import is_plain

if TYPE_CHECKING:
    import numpy as np
    import onnx

_INTERVAL_S = 0.01
_DTYPES = {1: "float32", 10: "float16"}
"""ONNX's numbers for the element types of weights that are packed."""


class Lent:
    """The large weights that lie beside an ONNX file. It has to outlive the session that they were lent to."""

    def __init__(self, path: Path) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._values: list[Any] = []
        self._path = path

    @contextlib.contextmanager
    def to(self, options: Any) -> Iterator[None]:
        """Name them in `onnxruntime.SessionOptions`, and let their pages go while the session is opened within.

        What cannot be mapped as it lies is left to ONNX Runtime.

        Raises:
            WireError: the file is no ONNX model.
            OSError: it cannot be read.
        """
        self._lend(options)
        done = threading.Event()
        thread = threading.Thread(target=self._let_go, args=[done], daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._drop()

    def _let_go(self, done: threading.Event) -> None:
        while not done.wait(_INTERVAL_S):
            self._drop()

    def _drop(self) -> None:
        for data in self._maps.values():
            data.madvise(mmap.MADV_DONTNEED)

    def _lend(self, options: Any) -> None:
        import onnxruntime

        for tensor in read_without_weights(self._path).graph.initializer:
            array = self._array(tensor)
            if array is not None:
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
                self._values.append(value)
                options.add_initializer(tensor.name, value)

    def _array(self, tensor: onnx.TensorProto) -> np.ndarray[Any, Any] | None:
        """Return a weight's numbers, mapped; None where it lies in the graph, is small, or not of the right size."""
        import numpy as np

        where = {entry.key: entry.value for entry in tensor.external_data}
        name, dtype = where.get("location", ""), _DTYPES.get(tensor.data_type)
        count = math.prod(tensor.dims)
        length, offset = count * bits_of(tensor.data_type) // 8, int(where.get("offset", 0))
        if dtype is None or not is_plain(name) or length <= SMALL or int(where.get("length", length)) != length:
            return None
        data = self._mapped(name)
        if data is None or offset % np.dtype(dtype).itemsize or offset + length > len(data):
            return None
        return np.frombuffer(data, dtype, count, offset).reshape(tuple(tensor.dims))

    def _mapped(self, name: str) -> mmap.mmap | None:
        path = self._path.parent / name
        if name not in self._maps and path.is_file() and not path.is_symlink() and path.stat().st_size:
            with path.open("rb") as stream:
                self._maps[name] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps.get(name)
