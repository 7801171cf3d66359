"""What this machine can do, and what to install for the rest. Nothing heavy is imported: metadata are read."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from convkit import __version__
from convkit.errors import ConvkitError, ExitStatus
from convkit.installed import wanted_by_extra, who_brings
from convkit.pipeline.allowance import cores, memory
from convkit.pipeline.home import default_root
from convkit.pipeline.identity import cpu_name
from convkit.pipeline.isolation import SWITCH, can_confine_writes, can_leave_network
from convkit.report.checkup import CacheFacts, Checkup, Isolation, Part, Reader, Server, System
from convkit.serving.program import find_program
from convkit.serving.releases import of_onnxruntime, release
from convkit.targets.cuda_driver import Gpu, gpu, why_absent
from convkit.traps import find_traps

_PARTS = {
    "onnx": "ONNX models; --to onnxruntime; every check",
    "torch": "PyTorch models",
    "tensorflow": "TensorFlow and Keras models",
    "openvino": "--to openvino",
    "tensorrt-rtx": "--to tensorrt-rtx; preflights for tensorrt without a GPU",
    "tensorrt": "building TensorRT engines here, on a GPU",
    "images": "calibration and evaluation on image files",
    "remote": "models and data named by URL",
    "sign": "signed manifests",
}
_RELEASE_VARIABLE = "NVIDIA_TRITON_SERVER_VERSION"
"""Triton's containers are named by it."""


def examine() -> Checkup:
    """Look at this machine, at what is installed, and at what is known to go wrong with it.

    Returns exit status 6 where nothing can be converted.
    """
    parts = tuple(_part(name, does) for name, does in _PARTS.items())
    cache = _cache()
    isolation = Isolation(writes=can_confine_writes(), network=can_leave_network(), off=os.environ.get(SWITCH) == "off")
    memory_here = memory()
    here = gpu_or_none()
    traps = tuple(find_traps(gpu=here, cache=cache, isolation=isolation, memory_bytes=memory_here.bytes))
    usable = parts[0].ready and not any(trap.severe for trap in traps)
    return Checkup(
        status="ok" if usable else "failed",
        exit_code=int(ExitStatus.DONE if usable else ExitStatus.MISSING),
        convkit=__version__,
        system=System(
            os=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            cpu=cpu_name(),
            cores=cores(),
            cores_of_machine=os.cpu_count() or cores(),
            memory_bytes=memory_here.bytes,
            memory_owner=memory_here.owner,
        ),
        isolation=isolation,
        gpu=here,
        gpu_absent=None if here is not None else why_absent(),
        parts=parts,
        readers=tuple(_readers()),
        server=_server(),
        cache=cache,
        traps=traps,
    )


def gpu_or_none() -> Gpu | None:
    """Return the first GPU; None where there is none, or the driver fails."""
    try:
        return gpu()
    except ConvkitError:
        return None


def _part(name: str, does: str) -> Part:
    installed: dict[str, str] = {}
    missing: list[str] = []
    for requirement in wanted_by_extra(name):
        brought = who_brings(requirement.name)
        if brought is None:
            missing.append(str(requirement))
            continue
        distribution, version = brought
        installed[distribution] = version
        if not requirement.takes(version):
            missing.append(f"{requirement} (here: {version})")
    if missing and name == "tensorrt" and importlib.util.find_spec("tensorrt") is not None:
        missing = []  # a container's own, which no distribution names
    return Part(
        name=name,
        does=does,
        ready=not missing,
        installed=installed,
        missing=tuple(missing),
        install=f'pip install "convkit[{name}]"' if missing else None,
    )


def _readers() -> Iterator[Reader]:
    if (brought := who_brings("onnxruntime")) is not None:
        distribution, version = brought
        known = of_onnxruntime(version)
        reads = "no ONNX file that convkit writes: it is too old"
        if known is not None:
            more = " at least" if known.onnxruntime != version else ""
            reads = f"ONNX IR version {known.ir_version}, opset {known.opset}{more}"
        yield Reader(name=distribution, version=version, reads=reads)
    if (brought := who_brings("openvino")) is not None:
        yield Reader(name="openvino", version=brought[1], reads="OpenVINO IR and ONNX; IR of older releases, too")
    if (brought := who_brings("tensorrt")) is not None:
        yield Reader(name="TensorRT", version=brought[1], reads=f"engines that it has built itself, {_COMPATIBLE}")
    if (brought := who_brings("tensorrt-rtx-cu13")) is not None:
        yield Reader(name="TensorRT-RTX", version=brought[1], reads="engines that it has built itself")


_COMPATIBLE = "and version compatible ones from 8.6 on; it builds what convkit has left pending from 10.0 on"


def _server() -> Server | None:
    try:
        program = find_program()
    except ConvkitError:
        return None
    name = os.environ.get(_RELEASE_VARIABLE) or None if program.wheel is None else None
    backends = _backends(program.wheel or program.path.resolve().parents[1])
    return Server(program=str(program.path), release=name, backends=backends, reads=_server_reads(name))


def _backends(root: Path) -> tuple[str, ...]:
    folder = root / "backends"
    return tuple(sorted(each.name for each in folder.iterdir() if each.is_dir())) if folder.is_dir() else ()


def _cache() -> CacheFacts:
    try:
        root = default_root()
    except ConvkitError as error:
        return CacheFacts(path=error.message, free_bytes=None, writable=False)
    there = next(path for path in (root, *root.parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        free = None
    return CacheFacts(path=str(root), free_bytes=free, writable=os.access(there, os.W_OK | os.X_OK))


def _server_reads(name: str | None) -> str | None:
    """Say what a Triton release reads; None where it is not known."""
    try:
        known = release(name or "")
    except ConvkitError:
        return None
    engines = f"; engines of TensorRT {known.tensorrt}" if known.tensorrt else ""
    return f"by ONNX Runtime {known.onnxruntime}: IR version {known.ir_version}, opset {known.opset}{engines}"
