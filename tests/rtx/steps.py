"""A graph brought into a precision by convkit's own steps, in this process, and built by TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from convkit.graph.feed import batches
from convkit.graph.model import Model, Tensors, save_tensors
from convkit.narrowing import narrow
from convkit.order import Order
from convkit.pipeline.artifact import Artifact
from convkit.spec.options import Precision, QuantizeOptions
from convkit.targets.tensorrt import TensorRTRTX
from convkit.targets.trt_build import Engine, build_rtx
from convkit.targets.trt_options import TensorRTOptions, only_with_fp8
from convkit.targets.trt_profiles import profiles_for

PRECISIONS = tuple(Precision(name) for name in ("none", "fp16", "bf16", "int8", "int8+fp16", "fp8", "int4"))
"""Every precision that the TensorRT family takes."""


def narrowed(model: Model, precision: Precision, data: Artifact | None = None) -> Model:
    """Write a simplified FP32 graph in a precision, as `convkit convert --to tensorrt-rtx` does.

    `data` are calibration inputs; None draws random ones, as the interface says.
    """
    order: Any = SimpleNamespace(
        request=SimpleNamespace(quantize=QuantizeOptions(precision=precision, samples=8)),
        precision=precision,
        target=TensorRTRTX(),
        calibration=data,
    )
    order.profile = Order.profile.fget(order)  # type: ignore[attr-defined]
    order.method = Order.method.fget(order)  # type: ignore[attr-defined]
    run: Any = _call
    exported: Any = SimpleNamespace(samples=samples_of(model, data))
    return narrow(order, run, model, exported).model


def _call(step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Stand in for a runner: steps are functions."""
    return step(*arguments, **options)


def samples_of(model: Model, data: Artifact | None) -> Tensors:
    return save_tensors([next(iter(batches(model.interface, data, size=2, at_most=2)))])


def build(model: Model, precision: Precision) -> Engine:
    """Build a model for every GPU that the target builds for by default and that has the precision.

    Raises:
        StepError: TensorRT-RTX does not take it.
    """
    options = only_with_fp8(TensorRTOptions()) if precision is Precision.FP8 else TensorRTOptions()
    return build_rtx(model, profiles_for(model.interface, options), options)
