"""The accuracy budget: a search for the least precise model that is still accurate enough.

In order, and no further than needed:

1. the model as it was asked for;
2. other calibration methods, and repairs that leave the FP32 numbers as they are: the channels of convolutions
   equalized (Nagel et al. 2019), the activations of transformers smoothed (Xiao et al. 2023). They are ordered by the
   noise that they leave in the outputs, which costs no evaluation, and judged by the metric in that order;
3. precision given back: nodes ordered by the noise that each brings in alone; how many have to stay in FP32 is found by
   doubling their number until the metric holds, and halving the interval then.

Every model that is made, measured and judged is a remembered step, so that an interrupted search goes on where it was.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import msgspec

from convkit.evaluation import Evaluation
from convkit.graph.model import Model
from convkit.narrowing import Narrowed, calibrated, finished
from convkit.order import Order
from convkit.pipeline.runner import Contender, Runner
from convkit.pipeline.step import Step
from convkit.pipeline.stopwatch import Timing
from convkit.quantize.equalize import equalize
from convkit.quantize.ranges import Ranges
from convkit.quantize.sensitivity import Noise, measure_noise, rank_nodes
from convkit.quantize.smooth import smooth
from convkit.report.document import Trial
from convkit.sources.exported import Exported
from convkit.spec.options import CalibrationMethod
from convkit.targets.onnxruntime import time_onnxruntime

EVALUATIONS = 24
"""Models that are judged by the metric at most, where the user names no other number."""
CANDIDATES = 3
"""Models of the second stage that are judged before precision is given back."""
_SECONDS = 0.15


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One way of quantizing the model."""

    method: CalibrationMethod
    repair: str = ""
    """``equalized``, ``smoothed``; empty: none."""
    keep: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.method.value, *([self.repair] if self.repair else [])]
        if self.keep:
            words.append(f"{len(self.keep)} {'node' if len(self.keep) == 1 else 'nodes'} in FP32")
        return ", ".join(words)


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the search, before the metric has judged it."""

    recipe: Recipe
    narrowed: Narrowed
    noise: Noise


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
        self._order, self._run, self._model = order, run, model
        self._exported, self._evaluation = exported, evaluation
        self._most = order.request.accuracy.budget_evals or EVALUATIONS
        self._max_drop = order.request.accuracy.max_drop_points or 0.0
        self._method = order.request.quantize.method
        self._repaired: dict[str, tuple[Model, Ranges]] = {}
        self.trials: list[Trial] = []
        self.best: tuple[float, _Made]
        self._best_at = 0

    def run(self) -> None:
        """Search until a model holds, nothing is left to try, or the evaluations are spent (`_Spent`)."""
        first = self._make(Recipe(method=self._method))
        if self._holds(first):
            return
        made = [first, *(self._make(recipe) for recipe in self._alternatives())]
        ordered = sorted(made, key=lambda each: -_decibels(each.noise))
        for candidate in ordered[:CANDIDATES]:
            if candidate is not first and self._holds(candidate):
                return
        self._give_back(ordered[0] if self._is_close(ordered[0]) else self.best[1])

    def _alternatives(self) -> Iterator[Recipe]:
        """Go through the other methods, as the model is and repaired; a repair that changes nothing is left out."""
        repairs = [name for name in REPAIRS if self._repair(name)[0].files.digest != self._model.files.digest]
        for repair in ("", *repairs):
            for method in self._order.precision.methods:
                if repair or method is not self._method:
                    yield Recipe(method=method, repair=repair)

    def _give_back(self, start: _Made) -> None:
        """Keep the nodes in FP32 that hurt most, as few as the metric allows."""
        model, ranges = self._repair(start.recipe.repair)
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
            return self._holds(self._make(msgspec.structs.replace(start.recipe, keep=names[:count])))

        fewest(len(names) - 1, holds)

    def _quantized(self, made: _Made) -> tuple[str, ...]:
        assert made.narrowed.quantized is not None
        return made.narrowed.quantized.nodes

    def _repair(self, name: str) -> tuple[Model, Ranges]:
        if name not in self._repaired:
            model, ranges = calibrated(self._order, self._run, self._model)
            if name:
                repaired = self._run(REPAIRS[name], model, ranges=ranges)
                model, ranges = calibrated(self._order, self._run, repaired)
            self._repaired[name] = (model, ranges)
        return self._repaired[name]

    def _make(self, recipe: Recipe) -> _Made:
        model, ranges = self._repair(recipe.repair)
        narrowed = finished(
            self._order, self._run, model, self._exported, ranges=ranges, method=recipe.method, keep=recipe.keep
        )
        noise = self._run(measure_noise, narrowed.judged, reference=self._model, data=self._order.calibration)
        return _Made(recipe=recipe, narrowed=narrowed, noise=noise)

    def _holds(self, made: _Made) -> bool:
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

    def _is_close(self, made: _Made) -> bool:
        """Tell whether a model that leaves the least noise is also about the best by the metric."""
        judged = {trial.what: trial.value for trial in self.trials}
        return judged.get(str(made.recipe), -math.inf) >= self.best[0] - self._max_drop

    def _latency(self, made: _Made) -> float | None:
        """Time a model for a moment, where the server's runtime is the one that runs here."""
        if self._order.target.name != "onnxruntime" or self._order.request.measure.mode.value == "none":
            return None
        contender: Contender[Timing] = Contender(
            time_onnxruntime, made.narrowed.model, inputs=self._exported.samples, seconds=_SECONDS
        )
        [rounds] = self._run.alternate([contender], rounds=3, title="Time the candidate")
        calls = sorted(latency for timing in rounds for latency in timing.latencies_ns)
        return calls[len(calls) // 2] / 1e6


REPAIRS: dict[str, Step[..., Model]] = {"equalized": equalize, "smoothed": smooth}
"""What makes an FP32 model easier to quantize, by what the report calls it."""


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


def _decibels(noise: Noise) -> float:
    return math.inf if noise.sqnr_db is None else noise.sqnr_db
