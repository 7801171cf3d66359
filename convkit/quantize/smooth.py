"""Smoothing: outliers of single channels moved from activations into the weights that multiply them.

Xiao, Lin, Seznec, Wu, Demouth and Han (2023), "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.model import Model
from convkit.pipeline.step import step
from convkit.quantize.equalize import LARGEST, observed
from convkit.quantize.ranges import Ranges, open_ranges
from convkit.quantize.rescale import Rescaling

if TYPE_CHECKING:
    from convkit.quantize.constants import Array

PRODUCTS = ("MatMul", "Gemm")
OUTLIER = 8.0
"""Channels so many times above the median are worth a Mul."""


@step(version=1, stage="quantize", title="Smooth the activations", needs="onnx")
def smooth(model: Model, *, ranges: Ranges, alpha: float = 0.5, restore: bool = False) -> Model:
    """Divide the channels that matrix products read by s_j = max|X_j|^α / max|W_j|^(1-α), and multiply W_j by it.

    By default only where that costs nothing: s goes into the constants of what makes X, a LayerNormalization, a
    product with a vector, or another matrix product, and whatever reads X is a matrix product with constant weights.
    (Between convolutions `equalize` does better: it looks at the weights on both sides.) The model computes what it
    did, within the rounding of float32. Tensors keep their names, but hold other numbers: ranges must be collected
    anew. Where nothing can be done the model itself is returned.

    Args:
        model: the simplified floating point graph.
        ranges: what calibration saw of its activations.
        alpha: 0 to 1: how much of the difficulty moves from the activations into the weights.
        restore: smooth also an X that others read too, such as BERT's shortcuts, which begin behind a norm. They read
            s·X then, which costs a Mul; so only where a channel is `OUTLIER` times above the median.

    Raises:
        InputError: a weight's external data cannot be read.
    """
    import numpy as np

    rescaling = Rescaling(model)
    joints, rescaled = rescaling.joints, rescaling.rescaled
    table = open_ranges(ranges)
    for joint in joints.before_products(PRODUCTS, restore=restore):
        convolved = any("Conv" in joints.nodes[side.node].op_type for side in joint.writers)
        seen = None if joint.bounds or convolved else observed(joint, table)
        if seen is not None and (not joint.restored or seen.max() > OUTLIER * np.median(seen)):
            rescaled.scale(joint, smoothing_scales(seen, rescaled.largest(joint.readers), alpha))
    return rescaling.finished()


def smoothing_scales(seen: Array, weights: Array, alpha: float) -> Array:
    """Return s (float64) for each channel from the largest magnitudes of activations and weights; 1 for dead ones."""
    import numpy as np

    alive = (seen > 0) & (weights > 0) & np.isfinite(seen) & np.isfinite(weights)
    scales = np.ones(len(seen))
    if alive.any():
        found = seen[alive] ** alpha / weights[alive] ** (1 - alpha)
        scales[alive] = np.clip(found / np.exp(np.log(found).mean()), 1 / LARGEST, LARGEST)
    return scales
