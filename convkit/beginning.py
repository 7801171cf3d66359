"""What takes longest begins first: an engine that is built here, beside the checks of its graph."""

from __future__ import annotations

from convkit.graph.simplify import simplify
from convkit.order import Order
from convkit.pipeline.runner import Runner
from convkit.report.html import page_template
from convkit.request import target_options
from convkit.sources.exported import Exported
from convkit.spec.options import Precision
from convkit.targets.target import BuildsHere


def begin_engine(order: Order, run: Runner, exported: Exported) -> None:
    """Let the target begin to build where nothing but simplifying comes before it; see `convkit.pipeline.ahead`.

    Should the graph then not be what the source is, its engine is thrown away with it.
    """
    target, request = order.target, order.request
    if order.precision is not Precision.NONE or not isinstance(target, BuildsHere):
        return
    simplified = run.ahead(simplify, exported.model, chain=request.simplify.chain)
    if simplified is not None:
        recorded = exported.samples if order.samples is not None else None
        target.begin(run, simplified.model, target_options(request, target.name), recorded)
        run.meanwhile(page_template)
