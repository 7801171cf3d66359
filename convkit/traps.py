"""What is known to go wrong with what is installed, told by metadata and files alone."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from convkit.installed import OTHERS, installed_version, release, unmet
from convkit.report.checkup import CacheFacts, Isolation, Trap
from convkit.targets.cuda_driver import Gpu

_CORE = ("convkit", "onnx", "onnxruntime", "onnxslim")
"""What every conversion needs."""
_ALL = (
    *_CORE,
    *("torch", "torchvision", "onnxscript", "onnx-ir", "onnxsim"),
    *("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "ml_dtypes", "h5py"),
    *("openvino", "nncf", "onnxruntime-gpu", "tritonclient", "tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx"),
)
_TOLD_OF = re.compile(r"numpy|protobuf|onnx|onnxruntime|onnx[-_]ir|ml[-_]dtypes|tensorflow|keras|torch|flatbuffers")
"""Requirements that break conversions where they are not met; whoever installs against others is told of no more."""
_LITTLE_SPACE, _LITTLE_MEMORY = 5 << 30, 2 << 30


def find_traps(*, gpu: Gpu | None, cache: CacheFacts, isolation: Isolation, memory_bytes: int) -> Iterator[Trap]:
    """Yield what is known to go wrong here."""
    yield from _conflicts()
    yield from _twice()
    yield from _old_tf2onnx()
    yield from _cuda_torch(gpu)
    yield from _slow_protobuf()
    yield from _machine(cache, isolation, memory_bytes)


def _conflicts() -> Iterator[Trap]:
    for each in unmet(_ALL):
        name = each.wanted.split()[0]
        if not _TOLD_OF.fullmatch(name):
            continue
        found = f"{name} {each.found} is installed" if each.found else f"{name} is not installed"
        yield Trap(
            name="requirement",
            what=f"{each.by} asks for {each.wanted}, and {found}",
            hint=f'pip install "{each.wanted.replace(" ", "")}", or another version of {each.by.split()[0]}',
            severe=each.by.split()[0] in _CORE,
        )


def _twice() -> Iterator[Trap]:
    """Two distributions with one module: the files of whichever was installed last are used, the other's break."""
    for name in ("onnxruntime", "tensorflow-cpu"):
        here = [each for each in (name, *OTHERS[name]) if installed_version(each) is not None]
        if len(here) > 1:
            yield Trap(
                name="twice",
                what=f"{' and '.join(here)} are installed, and bring the same files",
                hint=f"pip uninstall {' '.join(here)}, and install the one that is meant",
                severe=False,
            )


def _old_tf2onnx() -> Iterator[Trap]:
    version = installed_version("tf2onnx")
    if version is not None and release(version) < (1, 17):
        yield Trap(
            name="tf2onnx",
            what=f"tf2onnx {version} fails with numpy 2 and protobuf 5 and later",
            hint='pip install "tf2onnx>=1.17"',
            severe=False,
        )


def _cuda_torch(gpu: Gpu | None) -> Iterator[Trap]:
    cuda = _cuda_of_torch()
    if cuda is None:
        return
    if gpu is None:
        yield Trap(
            name="torch-cuda",
            what=f"torch is built for CUDA {cuda}, and there is no GPU here: it works, and takes gigabytes for nothing",
            hint="torch's CPU build does the same for convkit",
            severe=False,
        )
    elif release(cuda)[:1] > release(gpu.cuda)[:1]:
        yield Trap(
            name="torch-cuda",
            what=f"torch is built for CUDA {cuda}, and the driver serves CUDA {gpu.cuda}: torch sees no GPU",
            hint="update the driver, or install a torch built for an older CUDA",
            severe=False,
        )


def _cuda_of_torch() -> str | None:
    """Read for which CUDA torch was built from its own file; None for the CPU, or where there is no torch."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / "version.py"
        match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", _text(file), re.MULTILINE)
        if match is not None:
            return match[1]
    return None


def _slow_protobuf() -> Iterator[Trap]:
    if os.environ.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION") == "python":
        yield Trap(
            name="protobuf-python",
            what="PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python: reading a large graph takes minutes",
            hint="unset the variable",
            severe=False,
        )


def _machine(cache: CacheFacts, isolation: Isolation, memory_bytes: int) -> Iterator[Trap]:
    if not cache.writable:
        yield Trap(
            name="cache",
            what=f"the cache cannot be written: {cache.path}",
            hint="name a writable folder in the environment variable CONVKIT_CACHE_DIR",
            severe=True,
        )
    elif cache.free_bytes is not None and cache.free_bytes < _LITTLE_SPACE:
        yield Trap(
            name="space",
            what=f"{cache.free_bytes / 2**30:.1f} GiB are free where the cache is: a model is held there several times",
            hint="convkit cache makes room, and CONVKIT_CACHE_DIR names another folder",
            severe=False,
        )
    if memory_bytes < _LITTLE_MEMORY:
        yield Trap(
            name="memory",
            what=f"{memory_bytes / 2**30:.1f} GiB of memory: importing TensorFlow and converting takes more",
            hint="give the container more memory",
            severe=False,
        )
    if isolation.off or not (isolation.writes and isolation.network):
        reach = "CONVKIT_ISOLATION=off leaves" if isolation.off else "this system leaves"
        yield Trap(
            name="isolation",
            what=f"{reach} code that runs under --trust free to write, or to use the network",
            hint="trust only what you know, or run convkit where Landlock and user namespaces are allowed",
            severe=False,
        )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
