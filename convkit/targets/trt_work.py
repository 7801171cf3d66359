"""What an engine runs in which precision, held against what its graph asks for: a build that fell back is seen."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from convkit.graph.engine_layers import EngineLayers, Placed, place, work_of
from convkit.graph.model import Model
from convkit.graph.work import NodeWork, Work, node_work
from convkit.pipeline.events import Observer, Warned
from convkit.pipeline.runner import Runner
from convkit.spec.options import Precision
from convkit.targets.target import Compiled, Job

_NAMED = 3


def with_work(run: Runner, model: Model, job: Job) -> Job:
    """Return the job with the work of each node, where there is low precision that an engine could leave.

    Raises:
        StepError: ONNX Runtime refuses the model or the inputs.
    """
    if job.precision is Precision.NONE:
        return job
    return msgspec.structs.replace(job, work=run(node_work, model, samples=job.samples, runnable=job.runnable))


def with_layers(observe: Observer, built: Compiled, layers: EngineLayers | None, job: Job) -> Compiled:
    """Return what was built with its layers, and what they run in which precision where they tell; see `executed`."""
    if layers is None:
        return built
    placed = place(job.work, layers)
    return msgspec.structs.replace(built, layers=layers, placed=placed, work=executed(observe, layers, job.work))


def executed(observe: Observer, layers: EngineLayers | None, work: Mapping[str, NodeWork]) -> Work | None:
    """Add up what an engine runs in which precision, and warn of what runs in more bits than its graph asks for.

    Args:
        observe: is told of the warning.
        layers: what `trt_build.Engine.inspected` holds.
        work: the multiply-accumulates of each node, as `node_work` or build.json has them.

    Returns nothing where the layers do not say what they run in: then nothing is known.
    """
    if layers is None:
        return None
    placed = place(work, layers)
    fell = [each for each in placed if each.fell_back and each.runs_in]
    if fell:
        observe(Warned(code="tensorrt.fell-back", message=_told(layers, placed, fell)))
    return work_of(placed, layers)


def _told(layers: EngineLayers, placed: tuple[Placed, ...], fell: list[Placed]) -> str:
    total = sum(each.macs for each in placed)
    share = sum(each.macs for each in fell) / total if total else 0.0
    largest = sorted(fell, key=lambda each: each.macs, reverse=True)
    named = ", ".join(f"{each.node} ({each.runs_in} for {each.asked})" for each in largest[:_NAMED])
    more = f" and {len(fell) - _NAMED} more" if len(fell) > _NAMED else ""
    return (
        f"{layers.seen_by} fell back: {100 * share:.0f} % of the multiply-accumulates run in a wider type than the "
        f"graph asks for: {named}{more}"
    )
