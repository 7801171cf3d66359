"""What a report says of a built engine's inside: its layers after fusion, their precision, its memory."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from convkit.graph.engine_layers import EngineLayers, Placed


class LayerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One layer that the engine runs."""

    name: str
    kind: str = ""
    """As the runtime calls it."""
    precision: str | None = None
    """What it computes in, such as ``int8``; None where the runtime does not tell."""
    nodes: tuple[str, ...] = ()
    """The ONNX nodes that are fused in it."""
    macs: int = 0
    """Multiply-accumulates of one call; 0 also where they were not counted."""
    fell_back: bool = False
    """It multiplies in a wider type than the graph asks for."""


class EngineInside(msgspec.Struct, frozen=True, kw_only=True):
    """A built engine's layers, in the order in which they run."""

    seen_by: str
    """Who built it, such as ``TensorRT 11.4.0.106``."""
    told_by: str
    """``the engine inspector``, of the engine as it was loaded, or ``the build's log``."""
    layers: tuple[LayerRow, ...]
    fused: int
    """Layers in which several ONNX nodes run."""
    weights_bytes: int | None = None
    activations_bytes: int | None = None
    scratch_bytes: int | None = None
    """What the layer that wants most of it takes."""


def engine_inside(found: EngineLayers | None, placed: Sequence[Placed]) -> EngineInside | None:
    """Put an engine's layers together with what of the model runs in them; None where they are not known."""
    if found is None:
        return None
    by_layer: dict[str, list[Placed]] = {}
    for each in placed:
        by_layer.setdefault(each.layer, []).append(each)
    rows = (
        LayerRow(
            name=layer.name,
            kind=layer.kind,
            precision=layer.precision or None,
            nodes=layer.nodes,
            macs=sum(each.macs for each in by_layer.get(layer.name, ())),
            fell_back=any(each.fell_back and each.runs_in for each in by_layer.get(layer.name, ())),
        )
        for layer in found.layers
    )
    return EngineInside(
        seen_by=found.seen_by,
        told_by=found.told_by,
        layers=tuple(rows),
        fused=found.fused,
        weights_bytes=found.memory.get("weights"),
        activations_bytes=found.memory.get("activations"),
        scratch_bytes=found.memory.get("scratch"),
    )
