"""The seam between the pipeline and a runtime: what every target says of itself, and the list of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from convkit.errors import UsageError
from convkit.graph.engine_layers import EngineLayers, Placed
from convkit.graph.model import Model, Tensors
from convkit.graph.quant_profile import QuantProfile
from convkit.graph.simplify import Simplified
from convkit.graph.work import NodeWork, Work
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.spec.entry_points import entry_points, load
from convkit.spec.options import CheckOptions, EngineMode, GateOptions, Precision
from convkit.spec.wording import did_you_mean
from convkit.targets.build_plan import AccuracyGate
from convkit.targets.trt_profiles import Profile

if TYPE_CHECKING:
    from convkit.targets.trt_make import Refitting

TARGETS: dict[str, str] = {
    "onnxruntime": "convkit.targets.onnxruntime:OnnxRuntime",
    "openvino": "convkit.targets.openvino:OpenVINO",
    "tensorrt": "convkit.targets.tensorrt:TensorRT",
    "tensorrt-rtx": "convkit.targets.tensorrt:TensorRTRTX",
}
"""Every target of convkit's own and the class that is it."""

GROUP = "convkit.targets"
"""The entry points of those that others have written; one with the name of convkit's own is never looked at."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a target cannot run a precision, and the nearest thing that works."""

    reason: str
    instead: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a target is asked to do with a checked model."""

    precision: Precision
    engine: EngineMode
    options: object
    """The target's table of the recipe; None where it has none."""
    check: CheckOptions
    """The tolerance that an engine built elsewhere is held to."""
    gates: GateOptions = GateOptions()
    """The gates that an engine built elsewhere is held to."""
    accuracy: AccuracyGate | None = None
    """How much accuracy it may lose; None where nothing was asked for."""
    evaluation: Mapping[str, Path] = {}
    """The files that `accuracy` names, by those names."""
    samples: Tensors
    references: Tensors
    """Inputs, and the source framework's outputs for them."""
    recorded: Tensors | None = None
    """The inputs where they are the user's own, whose shapes are those that will come; None: they were drawn."""
    runnable: Model | None = None
    """A graph of the same nodes that ONNX Runtime runs here, where it has no kernels for the model's own."""
    work: Mapping[str, NodeWork] = {}
    """The work of each node of the model, where that was counted."""
    refitting: Refitting | None = None
    """How an engine of the same structure that stands is found, and judged once it has the model's weights."""


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """What Triton's backend hands the graph to, in Triton's words: one of its `execution_accelerators`."""

    name: str
    gpu: bool
    parameters: Mapping[str, str] = {}
    warm_largest_batch: bool = False
    """Whether the warm-up is to run the largest batch too, since something is built for the shapes that it sees."""


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """What a target makes of a checked ONNX model."""

    engine: str
    """``none``, ``built`` or ``deferred``."""
    files: Mapping[str, Path | bytes]
    """What goes into the version's directory: relative names, to a path to copy or the bytes themselves."""
    profiles: tuple[Profile, ...] = ()
    """The shapes that an engine is built for; empty where they are fixed, or nothing is built."""
    served_bytes: int | None = None
    """Size of what the runtime loads; None where that is the model's own size, or not known yet."""
    answers: Tensors | None = None
    """What a built engine gives for the job's samples, where it runs on this machine."""
    answered: Callable[[Artifact, tuple[str, ...], int | None], Tensors] | None = None
    """What the runtime gives for evaluation data, where it runs on this machine: of ``.npz`` files of rows, the outputs
    that are wanted, and at most so many rows, to a set of outputs for each batch of `batch_rows` rows. Without it the
    ONNX graph's accuracy stands for the result's."""
    timed: Callable[[Tensors, float], Contender[Timing]] | None = None
    """How a built engine is timed on inputs for so many seconds, where it runs on this machine."""
    timed_alone: Callable[[Tensors, float], Contender[Timing]] | None = None
    """The same without the copies to its device and back, where it has one."""
    timed_how: tuple[str, str] = ("", "")
    """How `timed` and `timed_alone` measure, in a few words."""
    work: Work | None = None
    """What the runtime's compiled graph runs in which precision, where that can be seen here."""
    layers: EngineLayers | None = None
    """The layers of a built engine, where it tells them."""
    placed: tuple[Placed, ...] = ()
    """Where in them the model's nodes run."""
    parameters: Mapping[str, str] = {}
    """Triton's `parameters` for the backend."""
    accelerator: Accelerator | None = None
    """What Triton's backend is to hand the graph to."""
    facts: tuple[str, ...] = ()
    """Sentences for the report: who parsed or built it, and what was found."""


class Target(Protocol):
    """A runtime. One class for each, which can be made without arguments."""

    name: str
    title: str
    """As people write it: ``ONNX Runtime``."""
    profile: QuantProfile
    refusals: Mapping[Precision, Refusal]
    """Precisions that it cannot run; without INT4 and FP8 where its profile already says so."""
    backend: str | None
    """Triton's name for the runtime; None where Triton does not load what it makes."""
    filename: str
    """What Triton loads, in the version's directory."""
    gpu: bool
    emulated: bool
    """Whether its models cannot run here, so that checks run the ONNX graph in ONNX Runtime instead."""

    def require(self, engine: EngineMode) -> None:
        """Make sure that what it needs on this machine is there.

        Raises:
            MissingError: an extra or a GPU is missing.
            UsageError: it has no engine to build or to defer.
        """

    def compile(self, run: Runner, model: Model, job: Job) -> Compiled:
        """Turn a checked ONNX model into what the runtime loads.

        Raises:
            StepError: the runtime refuses the model; the nodes are named.
        """


@runtime_checkable
class BuildsHere(Protocol):
    """A target whose engine takes long, and is built on this machine; convkit's TensorRT-RTX does, others may."""

    def begin(self, run: Runner, model: Model, options: object, recorded: Tensors | None) -> None:
        """Let it begin (`Runner.begin`) what `compile` then waits for; the arguments are those that a `Job` has."""


def open_target(name: str) -> Target:
    """Return the target of that name.

    Raises:
        UsageError: there is none.
        MissingError: it is someone else's, and cannot be loaded.
    """
    if name in TARGETS:
        module, _, attribute = TARGETS[name].partition(":")
        built_in: Target = getattr(importlib.import_module(module), attribute)()
        return built_in
    others = entry_points(GROUP)
    if name not in others:
        known = [*TARGETS, *others]
        raise UsageError(
            f"there is no target '{name}'",
            hint=did_you_mean(name, known) + f"convkit knows {', '.join(known)}",
            code="usage.target",
        )
    target: Target = load(GROUP, name)()
    return target


def fitted(target: Target, run: Runner, simplified: Simplified) -> Simplified:
    """Return a simplified graph as a target wants it: one with wishes has a method ``rewritten(run, simplified)``."""
    rewritten = getattr(target, "rewritten", None)
    if rewritten is None:
        return simplified
    otherwise: Simplified = rewritten(run, simplified)
    return otherwise


def fitted_ahead(target: Target, run: Runner, simplified: Simplified) -> Simplified | None:
    """Return what `fitted` is going to, for what begins ahead; None: it fails there, or that cannot be known yet.

    A target with wishes that `BuildsHere` has a method ``rewritten_ahead(run, simplified)`` for this.
    """
    if getattr(target, "rewritten", None) is None:
        return simplified
    rewritten_ahead = getattr(target, "rewritten_ahead", None)
    otherwise: Simplified | None = rewritten_ahead(run, simplified) if rewritten_ahead is not None else None
    return otherwise


def refuse_engine(engine: EngineMode, why: str) -> None:
    """Refuse a wish for an engine, for a target that has none; `why` is a sentence.

    Raises:
        UsageError: an engine was asked for.
    """
    if engine is not EngineMode.AUTO:
        raise UsageError(
            f"--engine {engine.value}: the target has no engine: {why}",
            hint="leave --engine out, or choose --to tensorrt",
            code="usage.no-engine",
        )


def refusal_of(target: Target, precision: Precision) -> Refusal | None:
    """Return why a target cannot run a precision: it says so, or its profile does not say how. None: it can."""
    if precision in target.refusals:
        return target.refusals[precision]
    if precision is Precision.FP8 and not target.profile.fp8:
        return Refusal(
            reason=f"{target.title} takes no FP8", instead="--quantize int8 with the same data, or --to tensorrt"
        )
    if precision is Precision.INT4 and target.profile.four_bits is None:
        return Refusal(reason=f"{target.title} reads no INT4 weights", instead="--quantize int8, or --to onnxruntime")
    return None


def refuse_impossible(target: Target, precision: Precision) -> None:
    """Refuse a precision that the target cannot run.

    Raises:
        UsageError: with the reason and the nearest thing that works.
    """
    refusal = refusal_of(target, precision)
    if refusal is not None:
        raise UsageError(
            f"--quantize {precision.value} --to {target.name}: {refusal.reason}",
            hint=refusal.instead,
            code="quantize.impossible",
        )
