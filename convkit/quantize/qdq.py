"""Q/DQ pairs written into a graph."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.quant_profile import QuantProfile
from convkit.quantize.constants import Constants
from convkit.quantize.draft import Draft
from convkit.quantize.grid import Grid, grid_of, round_to
from convkit.quantize.known import Statistics
from convkit.quantize.placement import Kept, Placement, place
from convkit.quantize.products import Products, Read, not_finite
from convkit.quantize.tables import write_table

if TYPE_CHECKING:
    import onnx

    from convkit.quantize.constants import Reader


class Inserted(msgspec.Struct, frozen=True, kw_only=True):
    """What was quantized, by the names of the nodes."""

    quantized: tuple[str, ...]
    products: tuple[str, ...]
    """Those of them that are quantized for their own sake."""
    kept: tuple[Kept, ...]


def insert_qdq(
    proto: onnx.ModelProto,
    statistics: Statistics,
    profile: QuantProfile,
    *,
    keep: frozenset[str] = frozenset(),
    tied: Collection[str] = frozenset(),
    read: Reader | None = None,
) -> Inserted:
    """Write weights in 8 bits and Q/DQ pairs into a graph, as a target's profile wants them.

    Biases, and constants that are added to a MatMul, take back what rounding the weights adds on average, where the
    mean of a product's input is known.

    Args:
        proto: an FP32 model of opset 13 (FP8: 19) or later, its nodes named and in topological order; it is changed.
        statistics: of its activations.
        profile: what the target takes.
        keep: names of nodes that stay in floating point.
        tied: names of joins whose inputs all lie on one grid, whatever writes them.
        read: gives the values of an initializer whose data are left out of `proto`.

    Raises:
        StepError: a range or a weight holds NaN or infinity.
    """
    graph = proto.graph
    constants = Constants(graph, read)

    def observed(name: str) -> bool:
        return statistics.range(name) is not None

    placement = place(graph, profile, constants, observed=observed, keep=keep, tied=tied)
    names = [node.name for node in graph.node]
    if placement.products:
        _Inserter(graph, profile, constants, placement, statistics).write()
    return Inserted(
        quantized=tuple(names[number] for number in sorted({*placement.products, *placement.joins})),
        products=tuple(names[number] for number in sorted(placement.products)),
        kept=placement.kept,
    )


class _Inserter:
    def __init__(
        self,
        graph: onnx.GraphProto,
        profile: QuantProfile,
        constants: Constants,
        placement: Placement,
        statistics: Statistics,
    ) -> None:
        self.profile = profile
        self.constants = constants
        self.placement = placement
        self.statistics = statistics
        self.draft = Draft(graph)
        joins = {graph.node[number].name for number in placement.joins}
        self.products = Products(
            self.draft, constants, quantize_bias=profile.quantize_bias, number=profile.number, joins=joins
        )
        self.grids: dict[str, Grid] = {}
        self.points: dict[str, tuple[str, str]] = {}
        self.dequantized: dict[str, str] = {}
        """What the readers that want it read in a tensor's stead."""

    def write(self) -> None:
        graph = self.draft.graph
        for value in graph.input:
            self._pair_beside(value.name)
        for number, node in enumerate(graph.node):
            if number in self.placement.tables:
                self._pair_beside(write_table(self.draft, self.constants, node))
                continue
            self._quantize(number, node)
            self.draft.nodes.append(node)
            for index, name in enumerate(node.output):
                self._pair_behind(node, index, name)
        self.draft.finish()

    # Pairs

    def _pair_behind(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Write the pair of a node's output; where everyone reads it, the dequantized tensor takes the name."""
        pair = self.placement.pairs.get(name)
        if pair is None or not pair.everyone:
            self._pair_beside(name)
            return
        node.output[index] = self.draft.new(f"{name}__float")
        self._pair(name, node.output[index], name)

    def _pair_beside(self, name: str) -> None:
        """Write the pair of a tensor that others go on reading as it is."""
        if name in self.placement.pairs:
            self.dequantized[name] = self.draft.new(f"{name}__dequantized")
            self._pair(name, name, self.dequantized[name])

    def _pair(self, name: str, source: str, target: str) -> None:
        root = self.placement.pairs[name].root
        if root not in self.points:
            self.points[root] = self._write_grid(root, self._grid(root))
        scale, zero_point = self.points[root]
        whole = self.draft.new(f"{name}__quantized")
        self.draft.node("QuantizeLinear", [source, scale, zero_point], whole, f"{name}__quantize")
        self.draft.node("DequantizeLinear", [whole, scale, zero_point], target, f"{name}__dequantize")

    def _grid(self, root: str) -> Grid:
        if root not in self.grids:
            low, high = self.statistics.range(root) or (0.0, 0.0)
            centred = root in self.placement.centred
            self.grids[root] = self._spanning(low, high, f"the activation '{root}'", centred=centred)
        return self.grids[root]

    def _spanning(self, low: float, high: float, what: str, *, centred: bool = False) -> Grid:
        profile = self.profile
        try:
            return grid_of(
                low,
                high,
                signed=centred or profile.signed_activations,
                symmetric=centred or profile.symmetric_activations,
                number=profile.number,
            )
        except ValueError as error:
            raise not_finite(what, str(error)) from error

    def _write_grid(self, name: str, grid: Grid) -> tuple[str, str]:
        """Write the scale and the zero point of a grid, and return what they are called."""
        import numpy as np

        zero_point = np.array(grid.zero_point, grid.dtype)
        return (
            self.draft.tensor(f"{name}__scale", np.array(grid.scale, np.float32)),
            self.draft.tensor(f"{name}__zero_point", zero_point),
        )

    # Nodes

    def _quantize(self, number: int, node: onnx.NodeProto) -> None:
        """Let a node read what is dequantized: activations, constants, weights."""
        reads = self.placement.reads.get(number, ())
        weight = self.placement.products.get(number)
        if weight is not None:
            activation = node.input[reads[0]]
            scale = self._grid(self.placement.pairs[activation].root).scale
            mean, moment = self.statistics.channel_mean(activation), self.statistics.moment(node.name)
            self.products.write(node, weight, Read(scale, mean, moment))
        for index in reads:
            name = node.input[index]
            if name in self.constants:
                node.input[index] = self._constant(name)
            elif not self.placement.pairs[name].everyone:
                node.input[index] = self.dequantized[name]

    def _constant(self, name: str) -> str:
        """Write a constant that stands where an activation could, and return what is read of it."""
        if name not in self.dequantized:
            values = self.constants.value(name)
            ends = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
            grid = self._spanning(*ends, f"the constant '{name}'")
            scale, zero_point = self._write_grid(name, grid)
            whole = self.draft.tensor(f"{name}__quantized", round_to(values, grid))
            self.dequantized[name] = self.draft.new(f"{name}__dequantized")
            self.draft.node(
                "DequantizeLinear", [whole, scale, zero_point], self.dequantized[name], f"{name}__dequantize"
            )
        self.draft.replace(name)
        return self.dequantized[name]
