"""Running an engine on recorded inputs, with TensorRT and the driver alone.

Unmeasured: needs a GPU. The flow is tested against stand-ins for the runtime and for the driver's library.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from convkit.graph.model import Tensors, save_tensors
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import observation
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.spec.tensor import Interface
from convkit.targets.answering import answers_to
from convkit.targets.cuda_driver import Gpu
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_session import loaded

WARM_UP_S = 0.2
"""How long an engine runs before it is timed, as trtexec does it."""

WITH_COPIES = "copies to the GPU and back included, without a CUDA graph, as trtexec 10 measures"
ON_DEVICE = "without copies, as a CUDA graph, as trtexec 11 measures"


@observation(version=1, stage="check", title="Run the TensorRT plan", needs="tensorrt")
def run_tensorrt(engine: Artifact, samples: Tensors) -> Tensors:
    """Return a plan's outputs for every case of `samples`, under their wire names.

    Raises:
        MissingError: TensorRT is not installed, or there is no GPU here.
        StepError: the engine cannot be loaded here, or refuses an input's shape.
    """
    return _run(engine, samples, Flavour.TENSORRT)


@observation(version=1, stage="check", title="Run the TensorRT-RTX engine", needs="tensorrt-rtx")
def run_rtx(engine: Artifact, samples: Tensors) -> Tensors:
    """Return a TensorRT-RTX engine's outputs; everything else as `run_tensorrt`."""
    return _run(engine, samples, Flavour.TENSORRT_RTX)


@observation(version=1, stage="measure", title="Ask the TensorRT plan for its answers", needs="tensorrt")
def answer_tensorrt(
    engine: Artifact, *, interface: Interface, data: Artifact, outputs: tuple[str, ...], at_most: int | None, on: Gpu
) -> Tensors:
    """Return what a plan gives for evaluation data: some outputs, a set for each batch of `batch_rows` rows.

    Args:
        engine: the plan.
        interface: what the model takes.
        data: ``.npz`` files of rows. A batch that no profile takes as a whole is run in portions.
        outputs: the wire names of the outputs that are wanted.
        at_most: rows to use; None: all.
        on: this machine's GPU, so that no answers of another one are taken for its own.

    Raises:
        InputError: the data do not fit the model, or an output has no row for each sample.
        MissingError, StepError: as `run_tensorrt`.
    """
    del on
    with loaded(engine.file(), Flavour.TENSORRT) as session:
        return save_tensors(
            answers_to(interface, data, outputs, at_most, lambda inputs: session.answer(inputs, outputs)), digits=6
        )


@observation(version=2, stage="measure", title="Time the TensorRT plan", needs="tensorrt")
def time_tensorrt(engine: Artifact, *, inputs: Tensors, seconds: float, on: Gpu) -> Timing:
    """Time one execution context on the first case of `inputs`, `WITH_COPIES`: what a caller waits for.

    Args:
        engine: the plan.
        inputs: recorded inputs; the first case is used.
        seconds: how long, after `WARM_UP_S` that do not count.
        on: this machine's GPU, so that no measurement of another one is taken for its own.

    Raises:
        MissingError, StepError: as `run_tensorrt`.
    """
    del on
    with loaded(engine.file(), Flavour.TENSORRT) as session, session.bound(next(iter(inputs))) as call:
        _warm_up(call)
        return time_calls(call, seconds)


@observation(version=1, stage="measure", title="Time the TensorRT plan on the GPU alone", needs="tensorrt")
def time_on_device(engine: Artifact, *, inputs: Tensors, seconds: float, on: Gpu) -> Timing:
    """Time the same `ON_DEVICE`: what the GPU takes; an engine that no CUDA graph can hold runs without one.

    Args:
        engine: the plan.
        inputs: recorded inputs; the first case is used.
        seconds: how long, after `WARM_UP_S` that do not count.
        on: this machine's GPU, so that no measurement of another one is taken for its own.

    Raises:
        MissingError, StepError: as `run_tensorrt`.
    """
    del on
    with loaded(engine.file(), Flavour.TENSORRT) as session, session.bound(next(iter(inputs))) as binding:
        binding()  # the inputs are there from now on, and TensorRT has made what it makes at the first run
        with binding.on_device() as (call, is_graph):
            if not is_graph:
                events.warn("tensorrt.no-cuda-graph", "the engine cannot be a CUDA graph: it is timed without one")
            _warm_up(call)
            return time_calls(call, seconds)


def _warm_up(call: Callable[[], object]) -> None:
    until = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < until:
        call()


def _run(engine: Artifact, samples: Tensors, flavour: Flavour) -> Tensors:
    with loaded(engine.file(), flavour) as session:
        return save_tensors([session.run(case) for case in samples])
