"""Which engine can take a retrained model's weights, so that it is refitted instead of built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from convkit.building_work import Task, find_tasks
from convkit.errors import InputError
from convkit.graph.model import Tensors
from convkit.pipeline.artifact import digest_bytes
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Runner
from convkit.serving.publish import RECORDS
from convkit.targets.build_plan import BuildPlan, encode_build_plan
from convkit.targets.engine_records import find_standing, read_engines
from convkit.targets.here import Here
from convkit.targets.trt_make import Refittable, Refitting


def find_refittable(task: Task, here: Here) -> Refittable | None:
    """Find what `convkit build` can refit; None where there is nothing, or the recipe does not ask for that."""
    return _newest_alike(task.plan, task.digest, dict.fromkeys((task.model, task.source)), task.target, here)


def while_converting(run: Runner, model: Path, holds: Callable[[Tensors], bool]) -> Refitting:
    """Return what `convkit convert` can refit where it builds at once.

    Args:
        run: is told why, where nothing can.
        model: the model's folder in the repository; there may be none yet.
        holds: tells whether answers for the samples are the source framework's.
    """

    def find(plan: BuildPlan, here: Here) -> Refittable | None:
        try:
            return _newest_alike(plan, digest_bytes(encode_build_plan(plan)), [model], model.parent, here)
        except InputError as error:  # of another version, which this one does not need
            run.observe(Warned(code="build.refit", message=f"{error.message}; the engine is built anew"))
            return None

    return Refitting(find, holds)


def _newest_alike(plan: BuildPlan, digest: str, models: Iterable[Path], target: Path, here: Here) -> Refittable | None:
    """Find the newest version whose plan can take this one's weights.

    Its graph is the same but for the weights, and it was built with the same profiles and options, for this GPU by this
    TensorRT.

    Raises:
        InputError: a build.json is damaged.
    """
    if not plan.options.refit or plan.structure is None:
        return None
    others = find_tasks([model for model in models if model.is_dir()], target, everything=True)
    for other in sorted(others, key=lambda each: each.number, reverse=True):
        if other.pending or other.digest == digest or not _is_alike(other.plan, plan):
            continue
        folder = other.source / str(other.number)
        engine = find_standing(folder, read_engines(folder / RECORDS).of(other.digest), other.plan, here)
        if engine is not None:
            return Refittable(folder / engine.file, engine.tensorrt)
    return None


def _is_alike(one: BuildPlan, other: BuildPlan) -> bool:
    keys = ("structure", "interface", "profiles", "options", "precision")
    return all(getattr(one, key) == getattr(other, key) for key in keys)
