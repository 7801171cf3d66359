"""The precision stage: the simplified graph in the number format that was asked for."""

from __future__ import annotations

from convkit.calibrating import Kitchen, in_sixteen_bits
from convkit.graph.model import Model
from convkit.graph.opset import raise_opset
from convkit.order import Order
from convkit.pipeline.runner import Runner
from convkit.quantize.dynamic import quantize_dynamic
from convkit.quantize.result import Narrowed
from convkit.quantize.weight_only import quantize_weights
from convkit.sources.exported import Exported
from convkit.spec.options import Precision

INT4_IN_ONNX = 21
"""The opset from which on DequantizeLinear has blocks of INT4."""


def narrow(order: Order, run: Runner, model: Model, exported: Exported) -> Narrowed:
    """Write a graph in the precision asked for.

    Raises:
        UsageError: nothing in the graph can be written so.
        StepError: a weight or an activation cannot be, or a library failed.
    """
    profile = order.profile
    match order.precision:
        case Precision.NONE | Precision.AUTO:
            return Narrowed(model=model, judged=model)
        case Precision.FP16 | Precision.BF16:
            return in_sixteen_bits(run, model, exported, order.precision)
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
            return Kitchen(order, run, model, exported).quietest(order.method).narrowed
