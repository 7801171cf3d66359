"""Stand-ins for what needs a GPU: the driver's library, whose device memory is this process's, and a runtime.

The runtime's engine has one input, `x`, and one output, `y`, twice the input; its profiles are given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeCuda:
    """libcuda as far as convkit calls it. Arguments that CUDA fills are what `ctypes.byref` makes."""

    def __init__(
        self,
        *,
        initialized: int = 0,
        devices: int = 1,
        fails: str = "",
        name: str = "NVIDIA Fake",
        capability: str = "8.9",
    ) -> None:
        self.name = name
        self.capability = capability
        self.initialized = initialized
        self.devices = devices
        self.fails = fails
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.contexts = 0
        self.streams = 0
        self.pinned: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.recording: list[Callable[[], object]] | None = None
        self.graphs: dict[int, list[Callable[[], object]]] = {}
        self.launches = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name == object.__getattribute__(self, "fails"):
            return lambda *_: 2  # CUDA_ERROR_OUT_OF_MEMORY
        return object.__getattribute__(self, name)

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.initialized

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, _: Any) -> int:  # noqa: N802
        name.value = self.name.encode()[:size]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, _: Any) -> int:  # noqa: N802
        value._obj.value = int(self.capability.split(".")[which - 75])
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, _: int) -> int:  # noqa: N802
        context._obj.value = 1
        self.contexts += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, _: int) -> int:  # noqa: N802
        self.contexts -= 1
        return 0

    def cuCtxSetCurrent(self, _: Any) -> int:  # noqa: N802
        return 0

    def cuStreamCreate(self, stream: Any, _: int) -> int:  # noqa: N802
        stream._obj.value = 7
        self.streams += 1
        return 0

    def cuStreamDestroy_v2(self, _: Any) -> int:  # noqa: N802
        self.streams -= 1
        return 0

    def cuStreamSynchronize(self, _: Any) -> int:  # noqa: N802
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.memory[address.value]
        return 0

    def cuMemAllocHost_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        buffer = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(buffer)
        self.pinned[ctypes.addressof(buffer)] = buffer
        return 0

    def cuMemFreeHost(self, address: Any) -> int:  # noqa: N802
        del self.pinned[address.value]
        return 0

    def cuMemcpyHtoDAsync_v2(self, target: Any, source: Any, size: Any, _: Any) -> int:  # noqa: N802
        return self.cuMemcpyHtoD_v2(target, source, size)

    def cuMemcpyDtoHAsync_v2(self, target: Any, source: Any, size: Any, _: Any) -> int:  # noqa: N802
        return self.cuMemcpyDtoH_v2(target, source, size)

    def do(self, work: Callable[[], object]) -> None:
        """What an engine puts on the stream: done at once, or recorded."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def cuStreamBeginCapture_v2(self, _: Any, mode: int) -> int:  # noqa: N802
        assert mode == 1
        self.recording = []
        return 0

    def cuStreamEndCapture(self, _: Any, graph: Any) -> int:  # noqa: N802
        assert self.recording is not None
        graph._obj.value = len(self.graphs) + 1
        self.graphs[graph._obj.value], self.recording = self.recording, None
        return 0

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, _: Any) -> int:  # noqa: N802
        ready._obj.value = graph.value
        return 0

    def cuGraphLaunch(self, ready: Any, _: Any) -> int:  # noqa: N802
        self.launches += 1
        for work in self.graphs[ready.value]:
            work()
        return 0

    def cuGraphExecDestroy(self, _: Any) -> int:  # noqa: N802
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        del self.graphs[graph.value]
        return 0

    def everything_is_given_back(self) -> bool:
        """Tell whether nothing is held any more."""
        return not (self.memory or self.pinned or self.graphs or self.contexts or self.streams)

    def cuMemcpyHtoD_v2(self, target: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, target: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return 0


Shape = tuple[int, ...]


class FakeEngine:
    """Float32 `x` to `y` = 2 x, of the same shape; with `data_dependent` only the rows that begin above 0 are in it.

    Args:
        profiles: the shapes that it takes.
        data_dependent: how many rows `y` has shows as it runs.
        cuda: on whose stream it runs; else at once.
        fails: when recorded, it refuses.
    """

    num_io_tensors = 2

    def __init__(
        self,
        profiles: list[tuple[Shape, Shape, Shape]],
        *,
        data_dependent: bool = False,
        cuda: FakeCuda | None = None,
        fails: bool = False,
    ) -> None:
        self.cuda = cuda
        self.fails = fails
        self.runs = 0
        self.profiles = profiles
        self.num_optimization_profiles = len(profiles)
        self.data_dependent = data_dependent
        self.used_profiles: list[int] = []
        self.used_rows: list[int] = []

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"x": "INPUT", "y": "OUTPUT"}[name]

    def get_tensor_dtype(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_location(self, _: str) -> str:
        return "DEVICE"

    def get_tensor_profile_shape(self, _: str, profile: int) -> tuple[Shape, Shape, Shape]:
        return self.profiles[profile]

    def get_tensor_profile_values(self, profile: int, _: str) -> tuple[Shape, ...]:
        del profile
        return ()

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self)


class FakeContext:
    """What runs a `FakeEngine`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: Shape | None = None
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}

    def set_optimization_profile_async(self, profile: int, _: int) -> bool:
        self.engine.used_profiles.append(profile)
        return True

    def set_input_shape(self, _: str, shape: Shape) -> bool:
        self.shape = shape
        self.engine.used_rows.append(shape[0])
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape is not None else ["x"]

    def get_tensor_shape(self, _: str) -> Shape:
        assert self.shape is not None
        return (-1, *self.shape[1:]) if self.engine.data_dependent else self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self.engine.cuda
        if self.engine.fails and cuda is not None and cuda.recording is not None:
            return False
        if cuda is not None:
            cuda.do(lambda: self.work(stream))
        else:
            self.work(stream)
        return True

    def work(self, stream: int) -> None:
        assert self.shape is not None
        self.engine.runs += 1
        x = self.floats(self.addresses["x"], int(np.prod(self.shape))).reshape(self.shape)
        found = 2 * x
        if self.engine.data_dependent:
            found = found[found[:, 0] > 0]
            allocator = self.allocators["y"]
            self.addresses["y"] = allocator.reallocate_output_async("y", 0, found.nbytes, 256, stream)
            allocator.notify_shape("y", found.shape)
        if found.size:
            self.floats(self.addresses["y"], found.size)[:] = found.ravel()

    @staticmethod
    def floats(address: int, size: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_float * size).from_address(address))


class FakeTensorRT:
    """The module. It has no ComputeCapability, so that its builder wants a GPU; opening one is counted."""

    __version__ = "11.4.0.106"
    ILogger = object
    IOutputAllocator = object
    TensorIOMode = SimpleNamespace(INPUT="INPUT")
    TensorLocation = SimpleNamespace(HOST="HOST")

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine
        self.opened: list[str] = []

    def Builder(self, _: object) -> None:  # noqa: N802
        self.opened.append("builder")

    def Runtime(self, _: object) -> SimpleNamespace:  # noqa: N802
        self.opened.append("runtime")
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self.engine if plan == b"plan" else None)
