"""How fast it is, before and after: the models that a conversion times beside one another."""

from __future__ import annotations

from convkit.graph.model import Model
from convkit.graph.session import LARGE
from convkit.measure.latency import PLANS, measure_latency
from convkit.order import Order
from convkit.pipeline.allowance import cores
from convkit.pipeline.events import Warned
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.report.assemble import Dossier
from convkit.report.speeds import Speeds
from convkit.rivals import find_rivals
from convkit.spec.options import MeasureMode
from convkit.targets.cuda_driver import gpu_name
from convkit.targets.onnxruntime import time_onnxruntime

_NO_SELF_CHECK = (
    "a model above 1 GB is timed with no other one in memory, its session opened anew in every round, and not against "
    "itself: what the machine's own scatter makes of two equal models is not known for it"
)


_BUSY = (
    "speeds were measured while others used the machine: {load} processes wanted to run on {cores} cores in the minute "
    "before; a library that waits for its threads may look many times as slow as it is"
)
_BUSY_FROM = 3
"""From so many processes for each core on they are not convkit's own."""


def busy(load: float | None) -> bool:
    """Tell whether a load average, in processes that want to run, is more than convkit's own."""
    return load is not None and load > _BUSY_FROM * cores()


def time_models(
    order: Order, run: Runner, dossier: Dossier, baseline: Model, final: Model, *, fresh: bool = False
) -> Speeds:
    """Time the source framework, the FP32 graph, the final model, and the FP32 graph once more, in alternation.

    A graph above 1 GB is not timed once more.

    Args:
        order: what is asked for.
        run: runs and remembers the measurement.
        dossier: what the models are called; the exported model and its samples, and what the target made of it.
        baseline: the FP32 graph.
        final: the graph that the target was given.
        fresh: measure whatever is remembered.
    """
    mode = order.request.measure.mode
    exported = dossier.exported
    if mode is MeasureMode.NONE or exported is None:
        return Speeds()
    seconds = PLANS[mode].seconds
    contenders: dict[str, Contender[Timing]] = {}
    if (of_source := order.source.contender(exported, seconds=seconds)) is not None:
        contenders[exported.framework] = _beside_the_engine(of_source, dossier)
    samples = exported.samples
    contenders |= _rivals(order, run, dossier, baseline, contenders.get(exported.framework))
    contenders[dossier.baseline_label] = Contender(time_onnxruntime, baseline, inputs=samples, seconds=seconds)
    if dossier.compiled is not None and dossier.compiled.timed is not None:
        contenders[dossier.final_label] = dossier.compiled.timed(samples, seconds)
    elif not order.target.emulated:
        contenders[dossier.final_label] = Contender(time_onnxruntime, final, inputs=samples, seconds=seconds)
    again = None
    if baseline.files.bytes <= LARGE:
        again = (
            dossier.baseline_label,
            Contender(time_onnxruntime, baseline, inputs=samples, seconds=seconds, session=1),
        )
    else:
        run.observe(Warned(code="measure.no-self-check", message=_NO_SELF_CHECK))
    measurement = measure_latency(run, contenders, mode, again=again, fresh=fresh)
    if busy(load := measurement.conditions.load_before):
        run.observe(Warned(code="measure.busy", message=_BUSY.format(load=f"{load:.1f}", cores=cores())))
    alone = None
    if dossier.compiled is not None and dossier.compiled.timed_alone is not None:
        contender = dossier.compiled.timed_alone(samples, seconds)
        alone = measure_latency(run, {dossier.final_label: contender}, mode, fresh=fresh)
    how = dossier.compiled.timed_how if dossier.compiled is not None else ("", "")
    return Speeds(measurement, final=dossier.final_label, batch=dossier.batch, mode=mode, alone=alone, timed_how=how)


def _rivals(
    order: Order, run: Runner, dossier: Dossier, baseline: Model, of_source: Contender[Timing] | None
) -> dict[str, Contender[Timing]]:
    """Return what else is timed, with `--measure full` alone; the dossier has a sentence on each, timed or not."""
    mode, exported = order.request.measure.mode, dossier.exported
    if mode is not MeasureMode.FULL or exported is None:
        return {}
    found = find_rivals(
        run,
        of_source,
        baseline,
        exported.samples,
        target=order.target.name,
        framework=exported.framework,
        seconds=PLANS[mode].seconds,
    )
    dossier.rivals = tuple(rival for rival, _ in found)
    return {rival.label: contender for rival, contender in found if contender is not None}


def _beside_the_engine(of_source: Contender[Timing], dossier: Dossier) -> Contender[Timing]:
    """Let a framework that can run on the GPU do so where the engine does: the step that times it takes a `gpu`."""
    on = gpu_name()
    runs_here = dossier.compiled is not None and dossier.compiled.timed_alone is not None
    if runs_here and on is not None and "gpu" in of_source.arguments:
        of_source.arguments["gpu"] = on
    return of_source
