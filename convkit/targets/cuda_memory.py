"""Device memory, a stream and CUDA graphs, through NVIDIA's driver library alone.

A Triton container has TensorRT and the driver, but neither torch nor cuda-python; running an engine there on a few
recorded samples needs no more than this. Unmeasured: needs a GPU (its logic is tested against a stand-in library).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from convkit.errors import MissingError, StepError
from convkit.targets.cuda_driver import check, driver, why_absent

if TYPE_CHECKING:
    import numpy as np

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING in cuda.h
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class DeviceMemory:
    """Buffers on the first GPU, in its primary context, and the stream on which they are used.

    Use it through `device_memory`: everything is given back at its end.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._buffers: list[ctypes.c_uint64] = []
        self._pinned: list[ctypes.c_void_p] = []
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

    def free(self, address: int) -> None:
        """Give one buffer back before the others."""
        buffer = next(each for each in self._buffers if each.value == address)
        check(self._library.cuMemFree_v2(buffer), "cuMemFree")
        self._buffers.remove(buffer)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return an array in memory that the GPU copies from and to by itself; it is gone with this object."""
        import numpy as np

        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        address = ctypes.c_void_p()
        check(self._library.cuMemAllocHost_v2(ctypes.byref(address), ctypes.c_size_t(max(size, 1))), "cuMemAllocHost")
        self._pinned.append(address)
        assert address.value is not None
        return np.ndarray(shape, kind, (ctypes.c_char * max(size, 1)).from_address(address.value))

    def send(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Have the stream copy a C-contiguous array to the device; keep the array as it is until `wait`."""
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        status = self._library.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(address), source, size, self._stream)
        check(status, "cuMemcpyHtoDAsync")

    def fetch(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Have the stream fill a C-contiguous array from the device; it is filled after `wait`."""
        target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        status = self._library.cuMemcpyDtoHAsync_v2(target, ctypes.c_uint64(address), size, self._stream)
        check(status, "cuMemcpyDtoHAsync")

    def wait(self) -> None:
        """Wait for all that the stream still has to do."""
        check(self._library.cuStreamSynchronize(self._stream), "cuStreamSynchronize")

    @contextlib.contextmanager
    def graph(self, work: Callable[[], None]) -> Iterator[Callable[[], None] | None]:
        """Record what `work` puts on the stream as a CUDA graph; gives what starts it, None where that cannot be done.

        Work cannot be recorded that waits for the GPU or allocates on the way, such as outputs of unknown size.
        """
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        check(self._library.cuStreamBeginCapture_v2(self._stream, _THREAD_LOCAL), "cuStreamBeginCapture")
        try:
            work()
            refused = False
        except StepError:
            refused = True
        status = self._library.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        if refused or status or not graph.value:
            if graph.value:
                self._library.cuGraphDestroy(graph)
            yield None
            return
        try:
            status = self._library.cuGraphInstantiateWithFlags(ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
            check(status, "cuGraphInstantiate")
            try:
                yield lambda: check(self._library.cuGraphLaunch(ready, self._stream), "cuGraphLaunch")
            finally:
                self._library.cuGraphExecDestroy(ready)
        finally:
            self._library.cuGraphDestroy(graph)

    def release(self) -> None:
        """Give back the buffers, the stream and the context."""
        for address in self._buffers:
            self._library.cuMemFree_v2(address)
        self._buffers.clear()
        for pinned in self._pinned:
            self._library.cuMemFreeHost(pinned)
        self._pinned.clear()
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
