"""Refit instead of build: which engine can take a retrained model's weights, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from convkit.building_work import Task, find_tasks
from convkit.errors import StepError
from convkit.graph.model import Model
from convkit.pipeline.artifact import gather
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Runner
from convkit.serving.publish import RECORDS
from convkit.targets.build_plan import BuildPlan
from convkit.targets.cuda_driver import Gpu
from convkit.targets.engine_records import find_standing, read_engines
from convkit.targets.here import Here
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_build import Engine
from convkit.targets.trt_refit import refit_tensorrt


class Refittable(NamedTuple):
    """A plan that runs here, of another version with the same structure."""

    file: Path
    version: str
    """The TensorRT that built it."""


def find_refittable(task: Task, here: Here) -> Refittable | None:
    """Find the newest version whose plan can take this one's weights; None where the recipe does not ask for that.

    Its graph is the same but for the weights, and it was built with the same profiles and options, for this GPU by this
    TensorRT.
    """
    if not task.plan.options.refit or task.plan.structure is None:
        return None
    models = dict.fromkeys((task.model, task.source))
    others = find_tasks([model for model in models if model.is_dir()], task.target, everything=True)
    for other in sorted(others, key=lambda each: each.number, reverse=True):
        if other.pending or other.digest == task.digest or not _is_alike(other.plan, task.plan):
            continue
        folder = other.source / str(other.number)
        engine = find_standing(folder, read_engines(folder / RECORDS).of(other.digest), other.plan, here)
        if engine is not None:
            return Refittable(folder / engine.file, engine.tensorrt)
    return None


def refitted(run: Runner, candidate: Refittable, model: Model, plan: BuildPlan, *, on: Gpu) -> Engine | None:
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


def _is_alike(one: BuildPlan, other: BuildPlan) -> bool:
    keys = ("structure", "interface", "profiles", "options", "precision")
    return all(getattr(one, key) == getattr(other, key) for key in keys)
