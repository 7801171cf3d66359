"""torch.compile beside the model as it is: what PyTorch itself makes of it on this CPU, to compare speeds with."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.graph.model import Tensors
from convkit.graph.present import wanted_interface
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.torch_call import how_to_call
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_S = 90.0
"""How long compilation may take: a figure to compare with is not worth minutes."""
_AGAIN_S = 1.0
_COMPILERS = ("g++", "clang++", "c++")

_kept: dict[str, Callable[[], object]] = {}


class CompiledByTorch(msgspec.Struct, frozen=True, kw_only=True):
    """What came of torch.compile."""

    seconds: float
    problem: str | None = None
    """Why there is nothing to time."""


def find_compiler() -> str | None:
    """Return the C++ compiler that torch.compile's default backend would use on a CPU; None where there is none."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), *_COMPILERS)))), None)


@observation(version=1, stage="measure", title="Compile with torch.compile", needs="torch")
def compile_torch(
    source: TorchSource, *, metadata: Metadata, options: ExportOptions, inputs: Tensors
) -> CompiledByTorch:
    """Compile the module for the shapes of the first case of `inputs`, and run it once."""
    started, problem = time.perf_counter(), None
    try:
        importlib.import_module("torch._inductor.compile_fx")  # before its time runs: half an import breaks torch
        with _no_longer_than(LONGEST_S):
            _compiled(source, metadata, options, inputs)()
    except _TooLongError:
        problem = f"it takes longer than {LONGEST_S:g} s"
    except (RuntimeError, OSError, ImportError) as error:  # the compiler's own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        problem = " ".join(lines[:2]) or type(error).__name__
    return CompiledByTorch(seconds=time.perf_counter() - started, problem=problem)


@observation(version=1, stage="measure", title="Time torch.compile", needs="torch")
def time_compiled(
    source: TorchSource, *, metadata: Metadata, options: ExportOptions, inputs: Tensors, seconds: float
) -> Timing:
    """Time the compiled module in inference mode on the first case of `inputs`."""
    return time_calls(_compiled(source, metadata, options, inputs), seconds)


def _compiled(source: TorchSource, metadata: Metadata, options: ExportOptions, inputs: Tensors) -> Callable[[], object]:
    """Return the call of the compiled module; what the compiler writes goes into the worker's scratch space."""
    import torch

    key = f"{source.digest} {inputs.files.digest}"
    if key not in _kept:
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else a pool of processes that outlives the step
        module = load_module(source)
        wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
        arguments, keywords = how_to_call(module, wanted).given(next(iter(inputs)))
        compiled = torch.compile(module)

        def call() -> Any:
            with torch.inference_mode():
                return compiled(*arguments, **keywords)

        _kept[key] = call
    return _kept[key]


class _TooLongError(BaseException):
    """Its time is over. No Exception: importlib takes an OSError for a missing file, and torch goes on after others."""


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raise _TooLongError in what is done within, once so many seconds are over.

    Again every second until it has ended: what is raised while an object is taken down, Python passes over.
    """

    def end(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
