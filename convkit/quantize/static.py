"""Static INT8 and FP8: weights rounded, Q/DQ pairs placed as the target wants, from ranges of calibration data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convkit.errors import UsageError
from convkit.graph.model import Model
from convkit.graph.names import name_nodes, strip_origins, subgraphs
from convkit.graph.opset import raise_opset
from convkit.graph.quant_profile import Number, QuantProfile
from convkit.graph.weights import Weights
from convkit.pipeline import events
from convkit.pipeline.step import step
from convkit.quantize.grid import LEVELS
from convkit.quantize.known import Known
from convkit.quantize.moments import Moment, Moments, MomentTable, open_moments
from convkit.quantize.outline import read_outline, write_outline
from convkit.quantize.placement import Kept
from convkit.quantize.qdq import insert_qdq
from convkit.quantize.ranges import Ranges, RangeTable, open_ranges
from convkit.quantize.result import Quantized
from convkit.quantize.rewrites import rewrite
from convkit.spec.options import CalibrationMethod

if TYPE_CHECKING:
    import numpy as np
    import onnx

LEAST_OPSET = {Number.INT8: 13, Number.FP8: 19}
"""From where on QuantizeLinear has one scale for each channel, and these numbers."""


@step(version=5, stage="quantize", title="Quantize to 8 bits", needs="onnx")
def quantize_static(
    model: Model,
    *,
    ranges: Ranges,
    profile: QuantProfile,
    method: CalibrationMethod,
    keep: tuple[str, ...] = (),
    moments: Moments | None = None,
) -> Quantized:
    """Quantize weights and activations to 8 bits with Q/DQ pairs placed as `profile` wants them.

    Weights are read and rounded one at a time; those that stay are copied from file to file.

    Args:
        model: the simplified FP32 graph.
        ranges: what calibration saw of its activations.
        profile: what the target takes.
        method: how a range is chosen from that.
        keep: names of nodes that stay in floating point.
        moments: of what small weights are multiplied with: those are rounded for the least error, not to the nearest.

    Raises:
        UsageError: nothing in the graph can be quantized, or it is quantized already.
        StepError: a weight or a range is not finite, or the graph cannot be brought to the opset that it needs.
    """
    from onnx import numpy_helper

    model = raise_opset(model, opset=LEAST_OPSET[profile.number])
    weights = Weights(model)
    proto = read_outline(model, weights)
    _refuse_quantized(proto, profile.number)
    name_nodes(proto.graph)

    def read(tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
        return weights.array(tensor.name) if tensor.name in weights else numpy_helper.to_array(tensor)

    fitting = None if moments is None else open_moments(moments)
    known = Known(_Chosen(open_ranges(ranges), profile, method, fitting), profile, read)
    rewrite(proto, profile, known, keep=frozenset(keep))
    inserted = insert_qdq(proto, known, profile, keep=frozenset(keep), tied=known.tied, read=read)
    if not inserted.quantized:
        raise _nothing_to_do(inserted.kept, profile.number)
    _warn_of_inner_weights(proto.graph, profile)
    strip_origins(proto)
    proto.producer_name, proto.producer_version = "", ""
    proto.graph.ClearField("value_info")
    return Quantized(
        model=write_outline(proto, weights, model.interface),
        method=method.value,
        samples=ranges.samples,
        nodes=(*inserted.products, *known.merged),
        kept=tuple(each.node for each in inserted.kept),
    )


class _Chosen:
    """Ranges chosen by one method for one profile."""

    def __init__(
        self, table: RangeTable, profile: QuantProfile, method: CalibrationMethod, moments: MomentTable | None
    ) -> None:
        self._table = table
        self._moments = moments
        self._symmetric = profile.symmetric_activations
        self._method = method
        self._known: dict[str, tuple[float, float] | None] = {}

    def range(self, name: str) -> tuple[float, float] | None:
        if name not in self._known:
            self._known[name] = self._choose(name) if name in self._table else None
        return self._known[name]

    def _choose(self, name: str) -> tuple[float, float]:
        levels = LEVELS - 1 if self._symmetric else LEVELS
        return self._table.choose(name, self._method, levels=levels, symmetric=self._symmetric)

    def channel_mean(self, name: str) -> np.ndarray[Any, Any] | None:
        return self._table.channel_mean(name) if name in self._table else None

    def moment(self, node: str) -> Moment | None:
        return None if self._moments is None else self._moments.of(node)


def _refuse_quantized(proto: onnx.ModelProto, number: Number) -> None:
    operators = {node.op_type for graph in subgraphs(proto.graph) for node in graph.node}
    found = sorted(each for each in operators if each.startswith(("Quantize", "Dequantize", "QLinear", "DynamicQ")))
    if found:
        raise UsageError(
            f"static {number.upper()} of a graph that is quantized already: it has {', '.join(found)}",
            hint="leave --quantize out: the graph is served as it is; or start from the FP32 model",
            code="quantize.already",
        )


def _nothing_to_do(kept: tuple[Kept, ...], number: Number) -> UsageError:
    reasons = "; ".join(f"{each.node}: {each.why}" for each in kept[:5])
    return UsageError(
        f"static {number.upper()} found nothing to quantize: the target has no kernel for any of the model's "
        "operators, or gains nothing from those it has" + (f" ({reasons})" if reasons else ""),
        hint="use --quantize fp16, or leave --quantize out",
        code="quantize.nothing-to-do",
    )


def _warn_of_inner_weights(graph: onnx.GraphProto, profile: QuantProfile) -> None:
    """Say that what loops and branches compute stays as it is: calibration does not look into them."""
    inner = sum(
        profile.product(node.op_type) is not None
        for each in subgraphs(graph)
        if each is not graph
        for node in each.node
    )
    if inner:
        events.warn(
            "quantize.inner-graphs",
            f"{inner} convolutions or products inside loops and branches stay in FP32: calibration sees only the "
            "outermost graph",
        )
