"""Building an engine of TensorRT-RTX while its model is still being checked."""

from __future__ import annotations

from convkit.graph.model import Model, Tensors
from convkit.graph.shape_inputs import shape_inputs
from convkit.pipeline.runner import Runner
from convkit.targets.trt_build import build_rtx
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_profiles import profiles_for


def begin_rtx(run: Runner, model: Model, options: TensorRTOptions, recorded: Tensors | None) -> None:
    """Let the build begin with the profiles that will be chosen for it; see `convkit.pipeline.ahead`.

    Where inputs hold shapes it does not: what it is built for is then found step by step.

    Args:
        run: runs it; `build_rtx` with the same arguments then waits for it.
        model: the graph.
        options: the recipe's table.
        recorded: the user's own inputs, where there are any.
    """
    if run.ahead(shape_inputs, model) != ():
        return
    profiles = run.ahead(profiles_for, model.interface, options, seen=recorded, shape_inputs=())
    if profiles is not None:
        run.begin(build_rtx, model, profiles, options)
