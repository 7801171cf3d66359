"""What an engine really runs: its layers after fusion, and in which precision each ONNX node's products ended up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from convkit.graph.work import LOW, NodeWork, Work


class EngineLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a built engine. Types are convkit's names: ``fp32``, ``int8``; empty where they were not told."""

    name: str
    kind: str
    """As the runtime calls it, such as ``correlation`` or ``CaskConvolution``; empty where it was not told."""
    nodes: tuple[str, ...] = ()
    """The ONNX nodes that are fused in it."""
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """Return what its products run in: the wider of data and weights; weights of 4 bits count as ``int4``."""
        weights = self.weights[0] if self.weights else ""
        if "int4" in (*self.inputs, *self.weights):
            return "int4"
        told = [name for name in (*self.inputs[:1], weights) if name]
        return max(told, key=lambda name: LOW.get(name, 32), default="")

    @property
    def is_product(self) -> bool:
        """Tell whether it is a kernel for convolutions or matrix products, not one generated for what lies between."""
        return self.kind not in _BETWEEN


_BETWEEN = {"", "kgen", "shape_call", "Reformat", "NoOp", "Constant", "PointWise", "ElementWise", "Shuffle", "Scale"}
"""Kinds of layers that hold a product only where nothing else claims it."""


class EngineLayers(msgspec.Struct, frozen=True, kw_only=True):
    """All layers of an engine, in the order in which they run, and what memory it takes."""

    layers: tuple[EngineLayer, ...]
    seen_by: str
    """Who built the engine, such as ``TensorRT 11.4.0.106``."""
    told_by: str
    """``the engine inspector`` or ``the build's log``."""
    memory: dict[str, int] = {}
    """Bytes on the GPU: ``weights``, ``activations``, and ``scratch`` of the layer that wants most."""

    @property
    def fused(self) -> int:
        """Return the number of layers in which several ONNX nodes run."""
        return sum(len(layer.nodes) > 1 for layer in self.layers)


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where one ONNX node's products run."""

    node: str
    layer: str
    macs: int
    asked: str
    """The precision that the graph asks for."""
    runs_in: str

    @property
    def fell_back(self) -> bool:
        """Tell whether it runs in more bits than asked for."""
        return LOW.get(self.runs_in, 32) > LOW.get(self.asked, 32)


def place(work: Mapping[str, NodeWork], found: EngineLayers) -> tuple[Placed, ...]:
    """Find, for every ONNX node that multiplies, the layer that does it; nodes that no layer names are left out.

    A node is named by the layer of its product and by those that took over its bias or what follows it: the one that
    is called after it wins, then the one whose kind is a product's.
    """
    by_node: dict[str, list[EngineLayer]] = {}
    for layer in found.layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    return tuple(_placed(node, each, by_node[node]) for node, each in work.items() if node in by_node)


def _placed(node: str, work: NodeWork, layers: list[EngineLayer]) -> Placed:
    best = max(layers, key=lambda layer: (_is_called(layer, node), layer.is_product))  # the first of equals
    return Placed(node=node, layer=best.name, macs=work.macs, asked=work.precision, runs_in=best.precision)


def _is_called(layer: EngineLayer, node: str) -> bool:
    return node in _parts(layer.name)


def _parts(name: str) -> Iterator[str]:
    for part in name.split("+"):
        part = part.strip()
        yield part
        yield part.partition("_myl")[0]


def work_of(placed: tuple[Placed, ...], found: EngineLayers) -> Work | None:
    """Add up what runs in which precision; None where the layers do not say what they run in."""
    macs: dict[str, int] = {}
    for each in placed:
        if each.runs_in:
            macs[each.runs_in] = macs.get(each.runs_in, 0) + each.macs
    ordered = {name: macs[name] for name in (*LOW, "fp32") if name in macs}
    return Work(macs=ordered, seen_by=found.seen_by) if ordered else None
