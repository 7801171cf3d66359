"""Device memory and a stream, through NVIDIA's driver library alone.

A Triton container has TensorRT and the driver, but neither torch nor cuda-python; running an engine there on a few
recorded samples needs no more than this. Unmeasured: needs a GPU (its logic is tested against a stand-in library).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convkit.errors import MissingError
from convkit.targets.cuda_driver import check, driver, why_absent

if TYPE_CHECKING:
    import numpy as np

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING in cuda.h


class DeviceMemory:
    """Buffers on the first GPU, in its primary context, and the stream on which they are used.

    Use it through `device_memory`: everything is given back at its end.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._buffers: list[ctypes.c_uint64] = []
        self._stream = ctypes.c_void_p()
        context = ctypes.c_void_p()
        check(library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), "cuDevicePrimaryCtxRetain")
        check(library.cuCtxSetCurrent(context), "cuCtxSetCurrent")
        check(library.cuStreamCreate(ctypes.byref(self._stream), _NON_BLOCKING), "cuStreamCreate")

    @property
    def stream(self) -> int:
        """Return the stream's handle."""
        return self._stream.value or 0

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes; at least one byte, since TensorRT wants an address for empty tensors."""
        address = ctypes.c_uint64()
        check(self._library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(max(size, 1))), "cuMemAlloc")
        self._buffers.append(address)
        return address.value

    def upload(self, array: np.ndarray[Any, Any]) -> int:
        """Copy a C-contiguous array to the device and return its address there."""
        address = self.allocate(array.nbytes)
        self.refill(address, array)
        return address

    def refill(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copy a C-contiguous array to where one of the same size was uploaded."""
        source = ctypes.c_void_p(array.ctypes.data)
        status = self._library.cuMemcpyHtoD_v2(ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes))
        check(status, "cuMemcpyHtoD")

    def download(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Fill a C-contiguous array from the device, after all that the stream still has to do."""
        check(self._library.cuStreamSynchronize(self._stream), "cuStreamSynchronize")
        target = ctypes.c_void_p(array.ctypes.data)
        status = self._library.cuMemcpyDtoH_v2(target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))
        check(status, "cuMemcpyDtoH")

    def release(self) -> None:
        """Give back the buffers, the stream and the context."""
        for address in self._buffers:
            self._library.cuMemFree_v2(address)
        self._buffers.clear()
        self._library.cuStreamDestroy_v2(self._stream)
        self._library.cuDevicePrimaryCtxRelease_v2(0)


@contextlib.contextmanager
def device_memory() -> Iterator[DeviceMemory]:
    """Open the first GPU's memory for a while.

    Raises:
        MissingError: there is no GPU here.
    """
    library = driver()
    if library is None:
        raise MissingError(
            f"an engine cannot be run here: {why_absent()}",
            hint="run it on a machine with an NVIDIA GPU; start a container with --gpus all",
            code="gpu.missing",
        )
    memory = DeviceMemory(library)
    try:
        yield memory
    finally:
        memory.release()
