"""Whether every GPU that an engine is for multiplies in FP8: what `--quantize auto` has to know."""

from __future__ import annotations

from convkit.spec.options import EngineMode
from convkit.targets.cuda_driver import gpu
from convkit.targets.trt_api import Flavour, installed
from convkit.targets.trt_options import FP8_SINCE, RTX_COMPUTE_CAPABILITIES, TensorRTOptions, has_fp8


def why_no_fp8(target: str, options: object, engine: EngineMode) -> str | None:
    """Return why FP8 is not for a target's engine; None where nothing speaks against it.

    Args:
        target: its name; of others than TensorRT and TensorRT-RTX nothing is known here.
        options: the target's table of the recipe; None where it has none.
        engine: whether the engine is built here.
    """
    if target == Flavour.TENSORRT_RTX.value:
        asked = options.compute_capabilities if isinstance(options, TensorRTOptions) else ()
        without = [each for each in asked or RTX_COMPUTE_CAPABILITIES if not has_fp8(each)]
        if not without:
            return None
        which = f"compute capability {', '.join(without)}, for which the engine is built, has none"
        return which if asked else f'{which} ([tensorrt-rtx] compute_capabilities = ["{FP8_SINCE}", …] leaves it out)'
    if target == Flavour.TENSORRT.value:
        here = gpu() if engine is not EngineMode.DEFER and installed(Flavour.TENSORRT) else None
        if here is None:
            return f"which GPU will build the engine is not known, and those before {FP8_SINCE} have none"
        if not has_fp8(here.compute_capability):
            return f"{here.name} is of compute capability {here.compute_capability}, which has none"
    return None
