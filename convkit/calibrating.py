"""Models that are quantized from calibration: as they are, and repaired so that they lose less by it."""

from __future__ import annotations

import math

import msgspec

from convkit.graph.model import Model
from convkit.graph.opset import raise_opset
from convkit.graph.precision import to_sixteen_bits
from convkit.order import Order
from convkit.pipeline.runner import Runner
from convkit.pipeline.step import Step
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.compose import compose
from convkit.quantize.equalize import equalize
from convkit.quantize.moments import Moments, collect_moments
from convkit.quantize.ranges import Ranges
from convkit.quantize.result import Narrowed
from convkit.quantize.sensitivity import Noise, measure_noise
from convkit.quantize.smooth import smooth
from convkit.quantize.static import quantize_static
from convkit.sources.exported import Exported
from convkit.spec.options import CalibrationMethod, Precision

LATER_SCALES = 19
"""The opset from which on QuantizeLinear has FP16 scales and FP8 values."""

REPAIRS: dict[str, Step[..., Model]] = {"equalized": equalize, "smoothed": smooth}
"""What makes an FP32 model easier to quantize and leaves its numbers as they are, by what the report calls it."""

CLEAR_DB = {"equalized": 0.25, "smoothed": 1.0}
"""A repair is taken where it leaves less noise by so much. Equalizing changes nothing but weights."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One way of quantizing the model."""

    method: CalibrationMethod
    repair: str = ""
    """A key of `REPAIRS`; empty: none."""
    keep: tuple[str, ...] = ()
    """Nodes that stay in floating point."""

    def __str__(self) -> str:
        words = [self.method.value, *([self.repair] if self.repair else [])]
        if self.keep:
            words.append(f"{len(self.keep)} {'node' if len(self.keep) == 1 else 'nodes'} in FP32")
        return ", ".join(words)


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was made by a recipe."""

    recipe: Recipe
    narrowed: Narrowed
    noise: Noise

    @property
    def decibels(self) -> float:
        """Return the signal over the noise, infinite where there is none."""
        return math.inf if self.noise.sqnr_db is None else self.noise.sqnr_db


class Kitchen:
    """Makes quantized models of one graph; everything that two recipes share is made once."""

    def __init__(self, order: Order, run: Runner, model: Model, exported: Exported) -> None:
        self._order, self._run, self._model, self._exported = order, run, model, exported
        self._variants: dict[str, tuple[Model, Ranges]] = {}
        self._fitting: dict[str, Moments] = {}

    def quietest(self, method: CalibrationMethod) -> Made:
        """Return the model that this method makes with the least noise: as the graph is, or repaired."""
        made = [self.make(Recipe(method=method, repair=repair)) for repair in ("", *self.repairs())]
        plain, *repaired = made
        clear = [each for each in repaired if each.decibels > plain.decibels + CLEAR_DB[each.recipe.repair]]
        return max(clear, key=lambda each: each.decibels, default=plain)

    def repairs(self) -> tuple[str, ...]:
        """Return the repairs that change something."""
        if not self._order.request.quantize.repair:
            return ()
        plain = self.variant("")[0].files.digest
        return tuple(name for name in REPAIRS if self.variant(name)[0].files.digest != plain)

    def variant(self, repair: str) -> tuple[Model, Ranges]:
        """Return the graph, repaired, and the ranges of its activations."""
        if repair not in self._variants:
            if repair:
                model, ranges = self.variant("")
                repaired = self._run(REPAIRS[repair], model, ranges=ranges)
                self._variants[repair] = self._calibrated(repaired)
            else:
                joined = self._order.request.quantize.repair
                self._variants[""] = self._calibrated(self._run(compose, self._model) if joined else self._model)
        return self._variants[repair]

    def make(self, recipe: Recipe) -> Made:
        """Quantize by a recipe, and measure the noise in the outputs on calibration data.

        Raises:
            UsageError: nothing in the graph can be quantized.
            StepError: a weight or a range is not finite.
        """
        model, ranges = self.variant(recipe.repair)
        profile, method = self._order.profile, recipe.method
        static = self._run(
            quantize_static,
            model,
            ranges=ranges,
            profile=profile,
            method=method,
            keep=recipe.keep,
            moments=self._moments(recipe.repair),
        )
        static = msgspec.structs.replace(static, method=str(recipe))
        narrowed = Narrowed(model=static.model, judged=static.model, quantized=static)
        if self._order.precision is Precision.INT8_FP16:
            rest = in_sixteen_bits(self._run, static.model, self._exported, Precision.FP16)
            narrowed = msgspec.structs.replace(rest, quantized=static)
        noise = self._run(measure_noise, narrowed.judged, reference=self._model, data=self._order.calibration)
        return Made(recipe=recipe, narrowed=narrowed, noise=noise)

    def _moments(self, repair: str) -> Moments | None:
        """Return what small weights are multiplied with, where they are to be rounded for that."""
        sums = self._order.profile.fitted_sums
        if not sums or self._order.precision is Precision.FP8 or not self._order.request.quantize.repair:
            return None
        if repair not in self._fitting:
            model, _ = self.variant(repair)
            self._fitting[repair] = self._run(collect_moments, model, data=self._order.calibration, sums=sums)
        return self._fitting[repair]

    def _calibrated(self, model: Model) -> tuple[Model, Ranges]:
        if self._order.precision in (Precision.INT8_FP16, Precision.FP8):
            model = self._run(raise_opset, model, opset=LATER_SCALES)
        samples = self._order.request.quantize.samples
        return model, self._run(collect_ranges, model, data=self._order.calibration, samples=samples)


def in_sixteen_bits(run: Runner, model: Model, exported: Exported, precision: Precision) -> Narrowed:
    """Write a graph, or what is not quantized of it, in FP16 or BF16."""
    done = run(to_sixteen_bits, model, precision=precision, samples=exported.samples)
    return Narrowed(model=done.model, judged=done.emulation or done.model)
