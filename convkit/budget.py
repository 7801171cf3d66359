"""The accuracy budget: a search for the least precise model that is still accurate enough.

In order, and no further than needed:

1. the model as it was asked for: the graph as it is, or repaired where that leaves less noise (`convkit.calibrating`);
2. the other calibration methods, with each repair and without, ordered by the noise that they leave in the outputs,
   which costs no evaluation, and judged by the metric in that order;
3. precision given back: nodes ordered by the noise that each brings in alone; how many have to stay in FP32 is found by
   doubling their number until the metric holds, and halving the interval then.

Every model that is made, measured and judged is a remembered step, so that an interrupted search goes on where it was.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import msgspec

from convkit.calibrating import Kitchen, Made, Recipe
from convkit.evaluation import Evaluation
from convkit.graph.model import Model
from convkit.order import Order
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.stopwatch import Timing
from convkit.quantize.result import Narrowed
from convkit.quantize.sensitivity import rank_nodes
from convkit.report.document import Trial
from convkit.sources.exported import Exported
from convkit.targets.onnxruntime import time_onnxruntime

EVALUATIONS = 24
"""Models that are judged by the metric at most, where the user names no other number."""
CANDIDATES = 3
"""Models of the second stage that are judged before precision is given back."""
_SECONDS = 0.15


class _Spent(Exception):  # noqa: N818 - no error: the search is over
    """As many models have been judged as were allowed."""


def within_budget(
    order: Order, run: Runner, model: Model, exported: Exported, evaluation: Evaluation
) -> tuple[Narrowed, tuple[Trial, ...]]:
    """Quantize the model so that it loses no more than `max_drop`, if that can be had.

    Returns:
        The first model found that keeps within the budget, else the most accurate one; and every model that was judged.

    Raises:
        ConvkitError: a model could not be made or judged at all.
    """
    search = _Search(order, run, model, exported, evaluation)
    with contextlib.suppress(_Spent):
        search.run()
    return search.best[1].narrowed, tuple(search.trials)


class _Search:
    def __init__(self, order: Order, run: Runner, model: Model, exported: Exported, evaluation: Evaluation) -> None:
        self._order, self._run = order, run
        self._exported, self._evaluation = exported, evaluation
        self._kitchen = Kitchen(order, run, model, exported)
        self._most = order.request.accuracy.budget_evals or EVALUATIONS
        self._max_drop = order.request.accuracy.max_drop_points or 0.0
        self.trials: list[Trial] = []
        self.best: tuple[float, Made]
        self._best_at = 0

    def run(self) -> None:
        """Search until a model holds, nothing is left to try, or the evaluations are spent (`_Spent`)."""
        first = self._kitchen.quietest(self._order.method)
        if self._holds(first):
            return
        others = [self._kitchen.make(recipe) for recipe in self._recipes() if recipe != first.recipe]
        others.sort(key=lambda each: -each.decibels)
        for candidate in others[:CANDIDATES]:
            if self._holds(candidate):
                return
        self._give_back(max((first, *others), key=lambda each: (self._is_close(each), each.decibels)))

    def _recipes(self) -> Iterator[Recipe]:
        """Go through every method, for the graph as it is and repaired."""
        for repair in ("", *self._kitchen.repairs()):
            for method in self._order.precision.methods:
                yield Recipe(method=method, repair=repair)

    def _give_back(self, start: Made) -> None:
        """Keep the nodes in FP32 that hurt most, as few as the metric allows."""
        model, ranges = self._kitchen.variant(start.recipe.repair)
        ranked = self._run(
            rank_nodes,
            model,
            nodes=self._quantized(start),
            ranges=ranges,
            profile=self._order.profile,
            method=start.recipe.method,
            data=self._order.calibration,
        )
        names = tuple(each.node for each in ranked)

        def holds(count: int) -> bool:
            return self._holds(self._kitchen.make(msgspec.structs.replace(start.recipe, keep=names[:count])))

        fewest(len(names) - 1, holds)

    def _quantized(self, made: Made) -> tuple[str, ...]:
        assert made.narrowed.quantized is not None
        return made.narrowed.quantized.nodes

    def _holds(self, made: Made) -> bool:
        """Judge a model by the metric, and tell whether it keeps within the budget."""
        if len(self.trials) >= self._most:
            raise _Spent
        found = self._evaluation.of(made.narrowed.judged)
        drop = self._evaluation.source.value - found.value
        kept = drop <= self._max_drop
        self.trials.append(
            Trial(
                what=str(made.recipe),
                value=found.value,
                drop=drop,
                sqnr_db=made.noise.sqnr_db,
                latency_ms=self._latency(made),
                kept=len(made.recipe.keep),
                passed=kept,
            )
        )
        if len(self.trials) == 1 or kept > self.trials[self._best_at].passed or self._is_better(found.value, kept=kept):
            self.best = (found.value, made)
            self._best_at = len(self.trials) - 1
        return kept

    def _is_better(self, value: float, *, kept: bool) -> bool:
        """Prefer, of models that hold, the one that keeps the fewest nodes in FP32; of others the most accurate."""
        best = self.trials[self._best_at]
        if kept and best.passed:
            return self.trials[-1].kept < best.kept
        return not best.passed and value > self.best[0]

    def _is_close(self, made: Made) -> bool:
        """Tell whether a model was judged, and is about as good as the best."""
        judged = {trial.what: trial.value for trial in self.trials}
        return judged.get(str(made.recipe), -math.inf) >= self.best[0] - self._max_drop

    def _latency(self, made: Made) -> float | None:
        """Time a model for a moment, where the server's runtime is the one that runs here."""
        if self._order.target.name != "onnxruntime" or self._order.request.measure.mode.value == "none":
            return None
        contender: Contender[Timing] = Contender(
            time_onnxruntime, made.narrowed.model, inputs=self._exported.samples, seconds=_SECONDS
        )
        [rounds] = self._run.alternate([contender], rounds=3, title="Time the candidate")
        calls = sorted(latency for timing in rounds for latency in timing.latencies_ns)
        return calls[len(calls) // 2] / 1e6


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest number from 1 to `most` that `holds`, if what holds for one number holds for larger ones.

    Numbers are doubled until one holds, and the interval halved then: about 2 log2(n) calls for the answer n. None
    where not even `most` holds.
    """
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, min(2 * high, most)
    if high >= most and (most < 1 or not holds(most)):
        return None
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
