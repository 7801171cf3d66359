"""A built engine's layers as sections of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from convkit.report import units
from convkit.report.document import Report
from convkit.report.engine import EngineInside, LayerRow
from convkit.report.section import Section, Table, facts

SHOWN = 40
"""Rows of the table; report.json has every layer."""
_LONGEST = 60


def engine_sections(report: Report) -> Iterator[Section]:
    """Lay out what the engine runs: in short, and layer by layer, those that multiply most first."""
    inside = report.inside
    if inside is None:
        return
    fell = [layer for layer in inside.layers if layer.fell_back]
    lines = tuple(f"FAILED to stay in low precision: {_short(layer.name)} runs in {layer.precision}." for layer in fell)
    yield Section(key="engine", title="Engine", lines=lines[:SHOWN], table=_facts(inside))
    yield Section(
        key="layers",
        title="Layers of the engine",
        lines=_left_out(inside),
        table=Table(
            columns=("layer", "kind", "precision", "MACs", "ONNX nodes"),
            rows=tuple(_row(layer) for layer in _most_work_first(inside)),
            align="lllrl",
        ),
        detail=True,
    )


def _facts(inside: EngineInside) -> Table:
    precisions = Counter(layer.precision for layer in inside.layers if layer.precision)
    return facts(
        ("layers", f"{len(inside.layers)}, of which {inside.fused} hold several ONNX nodes"),
        ("layers by precision", ", ".join(f"{count} {name}" for name, count in precisions.most_common())),
        ("weights", units.size(inside.weights_bytes) if inside.weights_bytes is not None else None),
        ("activations", units.size(inside.activations_bytes) if inside.activations_bytes is not None else None),
        ("most scratch of a layer", units.size(inside.scratch_bytes) if inside.scratch_bytes is not None else None),
        ("told by", f"{inside.told_by} of {inside.seen_by}"),
    )


def _most_work_first(inside: EngineInside) -> list[LayerRow]:
    return sorted(inside.layers, key=lambda layer: layer.macs, reverse=True)[:SHOWN]


def _left_out(inside: EngineInside) -> tuple[str, ...]:
    left = len(inside.layers) - SHOWN
    return (f"{left} more layers multiply less or nothing; report.json has all.",) if left > 0 else ()


def _row(layer: LayerRow) -> tuple[str, ...]:
    nodes = ", ".join(layer.nodes)
    macs = units.count(layer.macs) if layer.macs else units.NOTHING
    return _short(layer.name), layer.kind, layer.precision or units.NOTHING, macs, _short(nodes)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
