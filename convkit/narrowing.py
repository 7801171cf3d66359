"""The precision stage: the simplified graph in the number format that was asked for."""

from __future__ import annotations

import msgspec

from convkit.graph.model import Model
from convkit.graph.opset import raise_opset
from convkit.graph.precision import to_sixteen_bits
from convkit.order import Order
from convkit.pipeline.runner import Runner
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.dynamic import quantize_dynamic
from convkit.quantize.ranges import Ranges
from convkit.quantize.result import Quantized
from convkit.quantize.static import quantize_static
from convkit.quantize.weight_only import quantize_weights
from convkit.sources.exported import Exported
from convkit.spec.options import CalibrationMethod, Precision

LATER_SCALES, INT4_IN_ONNX = 19, 21
"""The opsets from which on QuantizeLinear has FP16 scales and FP8, and DequantizeLinear blocks of INT4."""


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """The model as the target will be given it."""

    model: Model
    judged: Model
    """What ONNX Runtime can run of it here: the model itself, or the same numbers in types that it has kernels for."""
    quantized: Quantized | None = None
    """Where the scales come from; None where none were needed."""


def narrow(order: Order, run: Runner, model: Model, exported: Exported) -> Narrowed:
    """Write a graph in the precision asked for.

    Raises:
        UsageError: nothing in the graph can be written so.
        StepError: a weight or an activation cannot be, or a library failed.
    """
    options, profile = order.request.quantize, order.profile
    match order.precision:
        case Precision.NONE | Precision.AUTO:
            return Narrowed(model=model, judged=model)
        case Precision.FP16 | Precision.BF16:
            return _in_sixteen_bits(run, model, exported, order.precision)
        case Precision.DYNAMIC:
            dynamic = run(quantize_dynamic, model)
            return Narrowed(model=dynamic.model, judged=dynamic.model, quantized=dynamic)
        case Precision.INT4:
            assert profile.four_bits is not None, "refused before anything ran"
            if profile.four_bits == "DequantizeLinear":
                model = run(raise_opset, model, opset=INT4_IN_ONNX)
            four = run(quantize_weights, model, form=profile.four_bits)
            return Narrowed(model=four.model, judged=four.model, quantized=four)
        case Precision.INT8 | Precision.INT8_FP16 | Precision.FP8:
            model, ranges = calibrated(order, run, model)
            return finished(order, run, model, exported, ranges=ranges, method=options.method)


def calibrated(order: Order, run: Runner, model: Model) -> tuple[Model, Ranges]:
    """Collect the ranges of a model's activations; return them with the graph, in an opset that will do.

    Raises:
        InputError: the calibration data do not fit.
        StepError: the model cannot be run on them.
    """
    options = order.request.quantize
    if order.precision in (Precision.INT8_FP16, Precision.FP8):
        model = run(raise_opset, model, opset=LATER_SCALES)
    return model, run(collect_ranges, model, data=order.calibration, samples=options.samples)


def finished(
    order: Order,
    run: Runner,
    model: Model,
    exported: Exported,
    *,
    ranges: Ranges,
    method: CalibrationMethod,
    keep: tuple[str, ...] = (),
) -> Narrowed:
    """Quantize a graph whose ranges are known, as the target's profile wants it; the nodes of `keep` stay in FP32.

    Raises:
        UsageError: nothing in the graph can be quantized.
        StepError: a weight or a range is not finite.
    """
    static = run(quantize_static, model, ranges=ranges, profile=order.profile, method=method, keep=keep)
    if order.precision is not Precision.INT8_FP16:
        return Narrowed(model=static.model, judged=static.model, quantized=static)
    rest = _in_sixteen_bits(run, static.model, exported, Precision.FP16)
    return msgspec.structs.replace(rest, quantized=static)


def _in_sixteen_bits(run: Runner, model: Model, exported: Exported, precision: Precision) -> Narrowed:
    done = run(to_sixteen_bits, model, precision=precision, samples=exported.samples)
    return Narrowed(model=done.model, judged=done.emulation or done.model)
