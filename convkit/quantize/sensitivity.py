"""How much noise a quantized model's outputs carry, and which of its nodes brings it in."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import UsageError
from convkit.graph.feed import batches
from convkit.graph.model import Model
from convkit.graph.quant_profile import QuantProfile
from convkit.graph.session import open_session, run_session
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import step
from convkit.quantize.ranges import Ranges
from convkit.quantize.static import quantize_static
from convkit.spec.options import CalibrationMethod

if TYPE_CHECKING:
    import numpy as np

    Answers = list[dict[str, np.ndarray]]

ROWS = 32
"""Samples on which noise is measured: it settles long before a metric does."""


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """What quantization did to the outputs."""

    sqnr_db: float | None
    """10 log10 of the signal over the noise, of the output that has the least; None where there is no noise at all."""


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What quantizing one node alone does to the outputs."""

    node: str
    sqnr_db: float | None
    """As `Noise.sqnr_db`."""


@step(version=1, stage="quantize", title="Measure the noise", needs="onnx")
def measure_noise(model: Model, *, reference: Model, data: Artifact | None, rows: int = ROWS) -> Noise:
    """Hold a model's outputs against those of the FP32 graph on calibration data, in ONNX Runtime.

    Args:
        model: the quantized graph, or what stands for it here.
        reference: the FP32 graph.
        data: calibration inputs; None draws random ones.
        rows: at most so many samples.

    Raises:
        StepError: ONNX Runtime refuses one of them.
        InputError: the data do not fit.
    """
    return Noise(sqnr_db=_noise(_answers(model, data, rows), _answers(reference, data, rows)))


@step(version=1, stage="quantize", title="Find what quantization hurts most", needs="onnx")
def rank_nodes(
    model: Model,
    *,
    nodes: tuple[str, ...],
    ranges: Ranges,
    profile: QuantProfile,
    method: CalibrationMethod,
    data: Artifact | None,
    rows: int = ROWS,
) -> tuple[Sensitivity, ...]:
    """Quantize one node at a time, and order them by the noise that each brings into the outputs, the most first.

    Args:
        model: the FP32 graph.
        nodes: the nodes that are quantized when none is kept.
        ranges: what calibration saw of its activations.
        profile: what the target takes.
        method: how a range is chosen.
        data: calibration inputs; None draws random ones.
        rows: at most so many samples.
    """
    wanted = _answers(model, data, rows)
    found: list[Sensitivity] = []
    for number, node in enumerate(nodes):
        events.progress(number, len(nodes), "nodes")
        others = tuple(name for name in nodes if name != node)
        try:
            alone = quantize_static(model, ranges=ranges, profile=profile, method=method, keep=others).model
        except UsageError:  # it is quantized only between others that are
            continue
        found.append(Sensitivity(node=node, sqnr_db=_noise(_answers(alone, data, rows), wanted)))
        shutil.rmtree(Path(alone.files.path))
    return tuple(sorted(found, key=lambda each: math.inf if each.sqnr_db is None else each.sqnr_db))


def _answers(model: Model, data: Artifact | None, rows: int) -> Answers:
    session = open_session(model.path)
    names = tuple(spec.name for spec in model.interface.outputs if spec.dtype.is_float)
    fed = batches(model.interface, data, size=rows, at_most=rows)
    return [run_session(session, names, batch) for batch in fed]


def _noise(found: Answers, wanted: Answers) -> float | None:
    """Return the least SQNR of any output; None where nothing differs."""
    import numpy as np

    ratios: list[float] = []
    for name in wanted[0] if wanted else ():
        signal = noise = 0.0
        for ours, theirs in zip(found, wanted, strict=True):
            a, b = (case[name].astype(np.float64) for case in (ours, theirs))
            signal += float(np.square(b).sum())
            noise += float(np.square(a - b).sum())
        if noise:
            ratios.append(10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf)
    return max(min(ratios), -999.0) if ratios else None
