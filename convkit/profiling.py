"""Where the time goes, before and after: a look at the operators, once everything has been timed."""

from __future__ import annotations

from collections.abc import Iterator

from convkit.graph.model import Model
from convkit.measure.operators import profile_onnxruntime
from convkit.order import Order
from convkit.pipeline.runner import Runner
from convkit.report.assemble import Dossier
from convkit.report.document import Profile
from convkit.sources.source import Profiling
from convkit.spec.options import MeasureMode

_SECONDS = {MeasureMode.QUICK: 0.1, MeasureMode.FULL: 0.5}
_QUICK_BYTES = 64_000_000
"""A larger model takes longer to be opened twice than a quick look may take."""


def profile_models(order: Order, run: Runner, dossier: Dossier, baseline: Model, final: Model) -> tuple[Profile, ...]:
    """Profile the source framework, the FP32 graph and the final model, where their runtimes tell.

    A quick measurement leaves out the source framework, and graphs that take long to open.

    Args:
        order: what is asked for.
        run: runs and remembers the profiles.
        dossier: what the models are called; the exported model and its samples, and what the target made of it.
        baseline: the FP32 graph.
        final: the graph that the target was given.
    """
    return tuple(_profiles(order, run, dossier, baseline, final))


def _profiles(order: Order, run: Runner, dossier: Dossier, baseline: Model, final: Model) -> Iterator[Profile]:
    mode, exported = order.request.measure.mode, dossier.exported
    if mode is MeasureMode.NONE or exported is None:
        return
    seconds, samples = _SECONDS[mode], exported.samples
    if mode is MeasureMode.FULL and isinstance(order.source, Profiling):
        times = order.source.profiled(run, exported, seconds=seconds)
        yield Profile(label=exported.framework, times=times)
    graphs = {dossier.baseline_label: baseline}
    timed_elsewhere = dossier.compiled is not None and dossier.compiled.timed is not None
    if not timed_elsewhere and not order.target.emulated:
        graphs[dossier.final_label] = final
    for label, graph in graphs.items():
        if mode is MeasureMode.FULL or graph.files.bytes <= _QUICK_BYTES:
            times = run(profile_onnxruntime, graph, inputs=samples, seconds=seconds)
            yield Profile(label=label, times=times)
