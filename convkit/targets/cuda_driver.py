"""What NVIDIA's driver tells of this machine's GPU, asked through libcuda alone.

TensorRT's builder and runtime can end the process where there is no driver, so they are asked for only after this.
The library is the driver's own: nothing has to be installed for it, and a container has it only where it was given
a GPU.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import msgspec

from convkit.errors import StepError

LIBRARY = "libcuda.so.1"
KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_SUCCESS = 0
_COMPUTE_CAPABILITY_MAJOR = 75  # CUdevice_attribute in cuda.h
_COMPUTE_CAPABILITY_MINOR = 76
_NAME_BYTES = 256


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU that a plan is built for: what decides whether the plan runs elsewhere."""

    name: str
    compute_capability: str
    """Such as ``9.0``."""
    cuda: str
    """The newest CUDA version that the driver serves, such as ``13.0``."""


@functools.cache
def driver() -> ctypes.CDLL | None:
    """Return libcuda, initialized; None where it is absent, refuses, or sees no GPU."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    if library.cuInit(0) != _SUCCESS:
        return None
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS or count.value < 1:
        return None
    return library


def driver_present() -> bool:
    """Tell whether a GPU can be used here: the driver's library loads, initializes, and sees a device."""
    return driver() is not None


def why_absent() -> str:
    """Say, as the end of a sentence, what is missing where `driver_present` is false."""
    if KERNEL_MODULE.exists():
        return f"the kernel has NVIDIA's driver, but {LIBRARY} is not here or sees no GPU"
    return f"{LIBRARY} is not here or sees no GPU"


@functools.cache
def gpu() -> Gpu | None:
    """Describe the first GPU that the driver shows (CUDA_VISIBLE_DEVICES chooses); None without one."""
    library = driver()
    if library is None:
        return None
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    version = ctypes.c_int()
    check(library.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    check(library.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    check(library.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    major, minor = (
        _attribute(library, which, device) for which in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
    )
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major}.{minor}",
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def gpu_name() -> str | None:
    """Return the first GPU's name, such as ``NVIDIA L4``; None without one."""
    found = gpu()
    return found.name if found else None


def _attribute(library: ctypes.CDLL, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    check(library.cuDeviceGetAttribute(ctypes.byref(value), which, device), "cuDeviceGetAttribute")
    return value.value


def check(status: int, call: str) -> None:
    """Pass when a call of the driver's library returned CUDA_SUCCESS.

    Raises:
        StepError: it returned anything else.
    """
    if status != _SUCCESS:
        raise StepError(
            f"NVIDIA's driver failed: {call} returned CUresult {status}",
            hint="see that nvidia-smi works here and that other processes leave the GPU enough memory",
            code="gpu.driver",
        )
