"""What a plan has to match to run on this machine: the GPU, and TensorRT's version. No worker has to run for that."""

from __future__ import annotations

import functools
import subprocess
import sys

import msgspec

from convkit.pipeline.identity import library_version
from convkit.targets.cuda_driver import Gpu, gpu
from convkit.targets.trt_api import Flavour, installed, no_gpu, not_installed


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """This machine, as a plan sees it."""

    gpu: Gpu
    tensorrt: str
    """TensorRT's version, such as ``10.16.1.11``."""


def machine_here() -> Here:
    """Return this machine's GPU and TensorRT.

    Raises:
        MissingError: one of them is not here.
    """
    if not installed(Flavour.TENSORRT):
        raise not_installed(Flavour.TENSORRT, "it is not installed, so that its engines cannot be built")
    on = gpu()
    if on is None:
        raise no_gpu("TensorRT builds on a GPU only")
    return Here(gpu=on, tensorrt=tensorrt_version())


@functools.cache
def tensorrt_version() -> str:
    """Return the version of the TensorRT that is installed; asked of the module itself where no package names it.

    Raises:
        MissingError: it cannot be imported.
    """
    named = library_version("tensorrt")
    if named != "absent":
        return named
    module = Flavour.TENSORRT.module
    question = f"import {module}; print({module}.__version__)"  # not here: it loads a gigabyte of libraries
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1:] or [f"exit status {answer.returncode}"]
        raise not_installed(Flavour.TENSORRT, last[0])
    return answer.stdout.strip()
