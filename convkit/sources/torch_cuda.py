"""A PyTorch module timed on a GPU, as a caller sees it: inputs from host memory, outputs back in it.

Unmeasured: needs a GPU. Tested with the CPU in the GPU's place.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from convkit.pipeline import events
from convkit.pipeline.stopwatch import Timing, time_calls

if TYPE_CHECKING:
    import torch

WARM_UP_S = 0.2
"""As engines are warmed up: kernels are chosen and loaded at the first calls."""


def cuda_device(gpu: str | None) -> str | None:
    """Return the device to time on; None where no GPU was named, or this torch cannot use it, which is warned of."""
    import torch

    if gpu is None:
        return None
    if torch.cuda.is_available():
        return "cuda"
    events.warn(
        "measure.framework-on-cpu",
        f"torch {torch.__version__} cannot use the {gpu}: the framework is timed on the CPU, the engine on the GPU",
    )
    return None


def time_moved(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    keywords: dict[str, torch.Tensor],
    seconds: float,
    device: str,
) -> Timing:
    """Time a module on a device, copies of inputs and outputs included. It stays there."""
    from torch.utils._pytree import tree_leaves

    module.to(device)

    def call() -> list[Any]:
        moved = [tensor.to(device, non_blocking=True) for tensor in arguments]
        named = {name: tensor.to(device, non_blocking=True) for name, tensor in keywords.items()}
        found = module(*moved, **named)
        return [leaf.cpu() for leaf in tree_leaves(found) if hasattr(leaf, "cpu")]  # waits for the GPU

    until = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < until:
        call()
    return time_calls(call, seconds)
