"""Stand-ins for what needs a GPU: the driver's library, whose device memory is this process's, and a runtime.

The runtime's engine has one input, `x`, and one output, `y`, twice the input; its profiles are given.
"""

from __future__ import annotations

import ctypes
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

    def cuMemcpyHtoD_v2(self, target: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, target: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(target.value, source.value, size.value)
        return 0


Shape = tuple[int, ...]


class FakeEngine:
    """Float32 `x` to `y` = 2 x, of the same shape, or of one that depends on the data."""

    num_io_tensors = 2

    def __init__(self, profiles: list[tuple[Shape, Shape, Shape]], *, data_dependent: bool = False) -> None:
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

    def get_tensor_profile_shape(self, _: str, profile: int) -> tuple[Shape, Shape, Shape]:
        return self.profiles[profile]

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self)


class FakeContext:
    """What runs a `FakeEngine`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: Shape | None = None
        self.addresses: dict[str, int] = {}

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

    def execute_async_v3(self, _: int) -> bool:
        assert self.shape is not None
        size = int(np.prod(self.shape))
        x, y = (np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name])) for name in "xy")
        y[:] = 2 * x
        return True


class FakeTensorRT:
    """The module. It has no ComputeCapability, so that its builder wants a GPU; opening one is counted."""

    __version__ = "11.4.0.106"
    ILogger = object
    TensorIOMode = SimpleNamespace(INPUT="INPUT")

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine
        self.opened: list[str] = []

    def Builder(self, _: object) -> None:  # noqa: N802
        self.opened.append("builder")

    def Runtime(self, _: object) -> SimpleNamespace:  # noqa: N802
        self.opened.append("runtime")
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self.engine if plan == b"plan" else None)
