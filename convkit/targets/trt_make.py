"""A plan for a model: another one's that stands, refitted with its weights, where that gives the right numbers; else a
new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from convkit.errors import StepError
from convkit.graph.model import Model, Tensors
from convkit.pipeline.artifact import gather
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Runner
from convkit.targets.build_plan import BuildPlan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.here import Here
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_build import Engine, build_tensorrt
from convkit.targets.trt_refit import refit_tensorrt
from convkit.targets.trt_run import run_tensorrt

REFITTED = "The engine is another version's, refitted with these weights."
"""What the report says of it."""


class Refittable(NamedTuple):
    """A plan that runs here, of another version with the same structure."""

    file: Path
    version: str
    """The TensorRT that built it."""


class Refitting(NamedTuple):
    """What a target has to know to refit instead of building: it sees no repository, and judges no numbers."""

    find: Callable[[BuildPlan, Here], Refittable | None]
    """Finds a plan that may take the weights."""
    holds: Callable[[Tensors], bool]
    """Tells whether answers for the samples are the source framework's, within the tolerance."""


class Made(NamedTuple):
    """A plan, and what it answers for the samples."""

    engine: Engine
    answers: Tensors
    refitted: bool


def make_plan(
    run: Runner,
    model: Model,
    plan: BuildPlan,
    samples: Tensors,
    *,
    candidate: Refittable | None,
    holds: Callable[[Tensors], bool],
    on: Gpu,
) -> Made:
    """Refit where there is something to refit and its numbers hold, else build, with a warning that says why.

    What a plan answers that was built is for the caller to judge.

    Raises:
        StepError: TensorRT could not build it.
    """
    if candidate is not None:
        engine = _refitted(run, candidate, model, plan, on=on)
        if engine is not None:
            answers = run(run_tensorrt, engine.files, samples)
            if holds(answers):
                return Made(engine, answers, True)
            wrong = "the refitted engine is not used: its outputs are not the source framework's; it is built anew"
            run.observe(Warned(code="build.refit", message=wrong))
    engine = run(build_tensorrt, model, plan.profiles, plan.options, on=on)
    return Made(engine, run(run_tensorrt, engine.files, samples), False)


def _refitted(run: Runner, candidate: Refittable, model: Model, plan: BuildPlan, *, on: Gpu) -> Engine | None:
    """Refit a plan with a model's weights; None, and a warning, where it does not take them."""
    file = candidate.file
    try:
        made = run(refit_tensorrt, gather(file.parent, [file.name]), model, on=on)
    except StepError as error:
        run.observe(Warned(code="build.refit", message=f"{error.message}; the engine is built anew"))
        return None
    return Engine(
        files=made.files,
        flavour=Flavour.TENSORRT,
        version=candidate.version,
        compute_capabilities=(on.compute_capability,),
        gpu=on,
        layers=0,
        profiles=plan.profiles,
        options=plan.options,
        inspected=made.inspected,
    )
