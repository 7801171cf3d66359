"""Machines with a GPU, stood in for: what `convkit build` finds in a container that was given one.

The driver's library is made up, and so is TensorRT's runtime; its parser and builder are TensorRT-RTX's. Running an
engine is ONNX Runtime on the ONNX model that it was built from (see `tensorrt_stand_in`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from e2e.command import OURS, PROGRAM, Command

TESTS = Path(__file__).resolve().parents[1]
HEAVY = ("onnx", "onnxruntime", "onnxscript", "onnxsim", "onnxslim", "torch", "tensorflow", "ml_dtypes")

_SITE = f"""
import os, sys
if os.environ.get("STAND_IN_LIGHT"):
    sys.modules |= dict.fromkeys({HEAVY!r})
if os.environ.get("STAND_IN_GPU"):
    from convkit.targets import cuda_driver
    from fake_nvidia import FakeCuda
    library = FakeCuda(name=os.environ["STAND_IN_GPU"], capability=os.environ["STAND_IN_CC"])
    cuda_driver.driver = lambda: library
"""


class Machine(NamedTuple):
    """A GPU and the TensorRT of a container."""

    gpu: str = "NVIDIA L4"
    capability: str = "8.9"
    tensorrt: str = "10.16.1.11"


L4 = Machine()
H100 = Machine(gpu="NVIDIA H100", capability="9.0")
NEXT = Machine(tensorrt="11.0.0.114")


def stand_in(machine: Machine, folder: Path) -> dict[str, str]:
    """Lay out a machine's libraries below a folder, and return the environment in which Python finds them."""
    place = folder / f"tensorrt-{machine.tensorrt}"
    if not place.exists():
        place.mkdir(parents=True)
        shutil.copy(TESTS / "deferred" / "tensorrt_stand_in.py", place / "tensorrt.py")
        shutil.copy(TESTS / "targets" / "fake_nvidia.py", place)
        (place / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
        packed = place / f"tensorrt-{machine.tensorrt}.dist-info"
        packed.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {machine.tensorrt}\n"
        (packed / "METADATA").write_text(metadata, encoding="utf-8")
    return {
        "PYTHONPATH": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "STAND_IN_GPU": machine.gpu,
        "STAND_IN_CC": machine.capability,
        "STAND_IN_VERSION": machine.tensorrt,
    }


class Container:
    """`convkit` on one of the machines, with a cache of its own."""

    def __init__(self, machine: Machine, folder: Path, cache: str = "cache") -> None:
        self.variables = stand_in(machine, folder)
        cache_folder = folder / cache
        cache_folder.mkdir(exist_ok=True)
        self.command = Command(cache_folder, self.variables)

    def start(self, *arguments: str | Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `convkit` and go on."""
        inherited = {k: v for k, v in os.environ.items() if k not in OURS and not k.startswith("CONVKIT_")}
        own = {"CONVKIT_CACHE_DIR": str(self.command.cache), **self.variables, **(variables or {})}
        return subprocess.Popen(
            [sys.executable, PROGRAM, *map(str, arguments)],
            env={**inherited, **own},
            cwd=self.command.cache,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
