"""What takes longest begins first: an engine that is built here, beside the checks of its graph."""

from __future__ import annotations

import contextlib

from convkit.errors import ConvkitError
from convkit.graph.model import Model, Tensors
from convkit.graph.simplify import simplify
from convkit.order import Order
from convkit.pipeline.runner import Runner
from convkit.report.html import page_template
from convkit.request import target_options
from convkit.sources.exported import Exported
from convkit.sources.source import GraphFirst
from convkit.spec.options import Precision
from convkit.targets.target import BuildsHere, fitted_ahead


class Beginning:
    """Lets the target begin to build; once.

    Should the graph then not be what the source is, or not be taken, its engine is thrown away with it.
    """

    def __init__(self, order: Order, run: Runner) -> None:
        self._order = order
        self._run = run
        self._builder = order.target if isinstance(order.target, BuildsHere) else None
        self._has_begun = False

    def with_graph(self) -> None:
        """Let it begin as soon as the source's graph stands, while the framework still answers.

        Not where the profiles are still to be found in the user's inputs. What is wrong with the target's options is
        said by `after_export`.
        """
        order, source = self._order, self._order.source
        if self._builder is None or order.precision is not Precision.NONE or order.samples is not None:
            return
        if isinstance(source, GraphFirst) and self._run.has_room(order.source.files):
            source.hand_graph(self._begin_early)

    def after_export(self, exported: Exported) -> None:
        """Let it begin where nothing but simplifying comes before it; see `convkit.pipeline.ahead`.

        Raises:
            UsageError: the target's options cannot be.
        """
        if not self._has_begun:
            self._begin(exported.model, exported.samples if self._order.samples is not None else None)

    def _begin_early(self, graph: Model) -> None:
        with contextlib.suppress(ConvkitError):
            self._begin(graph, None)
            self._has_begun = True

    def _begin(self, graph: Model, recorded: Tensors | None) -> None:
        order, run = self._order, self._run
        if self._builder is None or order.precision is not Precision.NONE:
            return
        simplified = run.ahead(simplify, graph, chain=order.request.simplify.chain)
        if simplified is not None and (fit := fitted_ahead(order.target, run, simplified)) is not None:
            self._builder.begin(run, fit.model, target_options(order.request, order.target.name), recorded)
            run.meanwhile(page_template)
