"""What else the model could run in, for the columns before the final one: OpenVINO, torch.compile.

A figure to compare with, measured with ``--measure full`` alone. What cannot run is said in a sentence, and stops
nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TypeAlias

from convkit.errors import ConvkitError
from convkit.graph.model import Model, Tensors
from convkit.graph.session import LARGE
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.report.assemble import Rival
from convkit.sources.torch import time_torch
from convkit.sources.torch_compile import compile_torch, find_compiler, time_compiled
from convkit.targets.openvino_model import (
    OpenVINOOptions,
    convert_to_openvino,
    run_openvino,
    time_openvino,
    unservable,
)

_LONGEST = 300
"""Characters of a library's reason in a report."""
_Found: TypeAlias = tuple[Rival, Contender[Timing] | None]


def find_rivals(
    run: Runner,
    of_source: Contender[Timing] | None,
    baseline: Model,
    samples: Tensors,
    *,
    target: str,
    framework: str,
    seconds: float,
) -> list[_Found]:
    """Make ready what the final model is compared with besides the source framework and the FP32 graph.

    Args:
        run: runs and remembers.
        of_source: what times the source framework; None where it is not timed.
        baseline: the FP32 graph.
        samples: the inputs that all are timed on.
        target: what is converted to: that is no rival.
        framework: the source framework's name and version.
        seconds: what each gets in a round.

    Returns each with what times it, where it can be timed.
    """
    if baseline.files.bytes > LARGE:
        return []
    libraries = set(run.libraries)
    found = [
        *_torch(run, of_source, framework, seconds),
        *_openvino(run, baseline, samples, target, seconds),
    ]
    run.libraries.intersection_update(libraries)  # the result does not depend on what is timed beside it
    return found


def _torch(run: Runner, of_source: Contender[Timing] | None, framework: str, seconds: float) -> Iterator[_Found]:
    if of_source is None or of_source.step is not time_torch or of_source.arguments.get("gpu") is not None:
        return
    label, problem = f"{framework}, compiled", "there is no C++ compiler here"
    given = {name: value for name, value in of_source.arguments.items() if name not in ("gpu", "seconds")}
    arguments = compile_torch.decode_arguments(given)
    if find_compiler() is not None:
        try:
            compiled = run(compile_torch, **arguments)
        except ConvkitError as error:
            run.end_worker(compile_torch.needs)  # whatever is left of it
            problem = error.message
        else:
            if compiled.problem is None:
                said = f"{label}: torch.compile as it comes; compiling for these shapes took {compiled.seconds:.0f} s."
                yield Rival(label, said, is_timed=True), Contender(time_compiled, **arguments, seconds=seconds)
                return
            problem = compiled.problem
    yield Rival(label, f"torch.compile was not measured: {_short(problem)}.", is_timed=False), None


def _openvino(run: Runner, baseline: Model, samples: Tensors, target: str, seconds: float) -> Iterator[_Found]:
    if target == "openvino" or importlib.util.find_spec("openvino") is None:
        return
    label, options = "OpenVINO FP32", OpenVINOOptions()
    problem = unservable(baseline.interface)
    if problem is None:
        try:
            converted = run(convert_to_openvino, baseline)
            run(run_openvino, converted, samples=samples, options=options)
        except ConvkitError as error:
            run.end_worker(run_openvino.needs)
            problem = error.message
        else:
            contender = Contender(time_openvino, converted, inputs=samples, seconds=seconds, options=options)
            said = f"{label}: OpenVINO {converted.version} with the FP32 graph, in f32."
            yield Rival(label, said, is_timed=True, file_bytes=converted.files.bytes), contender
            return
    yield Rival(label, f"OpenVINO was not measured: {_short(problem)}.", is_timed=False), None


def _short(text: str) -> str:
    one_line = " ".join(text.split()).rstrip(".")
    return one_line if len(one_line) <= _LONGEST else f"{one_line[:_LONGEST]}…"
