"""Where Q/DQ pairs go: a decision from the graph's structure and the target's profile, before anything is changed.

The words: a tensor is *low* where an INT8 operator writes it (or a view of such a tensor); *wanted* where a quantized
operator reads it. Products are quantized for their own sake, joins where they lie between low and wanted, views carry
a scale on from the one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.names import subgraphs
from convkit.graph.quant_profile import Product, QuantProfile, Written
from convkit.quantize.constants import Constants
from convkit.quantize.scores import are_scores

if TYPE_CHECKING:
    import onnx


TABLE_ELEMENTS = 1 << 16
"""A smaller embedding table is not worth the three operators more that it would take."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A Q/DQ pair behind a tensor."""

    root: str
    """The tensor whose range it has: the tensor itself, or what it is a view of."""
    everyone: bool
    """Every reader reads the dequantized numbers, not only those that want them."""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """The constant weights of a product."""

    input: int
    axis: int | None
    """Of the output channels; None: one scale for the whole tensor."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A product that stays in floating point, and why."""

    node: str
    why: str


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a graph. Nodes are named by their number in it."""

    products: dict[int, Weight | None]
    """Quantized products, with their weights; None: two activations."""
    joins: tuple[int, ...]
    reads: dict[int, tuple[int, ...]]
    """For each node its inputs that are dequantized, constants among them; without a product's weights and bias."""
    pairs: dict[str, Pair]
    centred: frozenset[str]
    """Those whose grid is int8 around zero, whatever the others are (`Product.scores`)."""
    tables: tuple[int, ...]
    """Lookups in embedding tables."""
    kept: tuple[Kept, ...]


class Reads(msgspec.Struct, frozen=True):
    """One input of one node."""

    node: int
    input: int


def place(
    graph: onnx.GraphProto,
    profile: QuantProfile,
    constants: Constants,
    *,
    observed: Callable[[str], bool],
    keep: frozenset[str] = frozenset(),
    tied: Collection[str] = frozenset(),
) -> Placement:
    """Decide what is quantized.

    Args:
        graph: in topological order, its nodes named. Inner graphs are left alone.
        profile: what the target takes.
        constants: the graph's constants.
        observed: whether the range of a tensor is known; a node that would need another stays as it is.
        keep: names of nodes that stay in floating point.
        tied: names of joins whose inputs all lie on one grid, whatever writes them.
    """
    return _Placer(graph, profile, constants, observed, keep, tied).place()


class _Placer:
    def __init__(
        self,
        graph: onnx.GraphProto,
        profile: QuantProfile,
        constants: Constants,
        observed: Callable[[str], bool],
        keep: frozenset[str],
        tied: Collection[str],
    ) -> None:
        self.nodes = list(graph.node)
        self.profile = profile
        self.constants = constants
        self.observed = observed
        self.keep = keep
        self.tied = tied
        self.readers: dict[str, list[Reads]] = {}
        self.maker = {name: number for number, node in enumerate(self.nodes) for name in node.output if name}
        for number, node in enumerate(self.nodes):
            for index, name in enumerate(node.input):
                self.readers.setdefault(name, []).append(Reads(number, index))
        self.outside = {value.name for value in graph.output}
        for inner in subgraphs(graph):
            if inner is not graph:
                self.outside |= {name for node in inner.node for name in node.input}
                self.outside |= {value.name for value in inner.output}
        self.low: dict[str, str] = {}
        self.products: dict[int, Weight | None] = {}
        self.joins: dict[int, str] = {}
        self.free: dict[int, int] = {}
        self.views: set[int] = set()
        self.tables: list[int] = []
        self.kept: list[Kept] = []
        self.centred: set[str] = set()
        self._wanted: dict[str, bool] = {}

    def place(self) -> Placement:
        for number, node in enumerate(self.nodes):
            if node.domain not in ("", "ai.onnx"):
                continue
            product = self.profile.product(node.op_type)
            if product is not None:
                self._take_product(number, node, product)
            elif node.name in self.keep:
                continue
            elif self.profile.tables and is_table(node, self.constants):
                self.tables.append(number)
            elif node.op_type in self.profile.views:
                self._take_view(number, node)
            elif node.op_type in self.profile.joins:
                self._take_join(number, node)
        return self._decided()

    # Forwards: what can be quantized, and what comes low

    def _take_product(self, number: int, node: onnx.NodeProto, product: Product) -> None:
        weight = self._weight(node, product)
        if weight is None and not self._takes_activations(node, product):
            return
        written = self.absorbed(node.output[0])
        why = self._unfit(node, product, weight, written)
        if why:
            self.kept.append(Kept(node=node.name, why=why))
            return
        self.products[number] = weight
        if weight is None and product.constant_weights_only:
            self.centred.update(node.input)
        if product.writes is not Written.FLOAT:
            self.low[written] = written

    def _takes_activations(self, node: onnx.NodeProto, product: Product) -> bool:
        if any(name in self.constants for name in node.input):
            return False
        if not product.constant_weights_only:
            return True
        alone = all(len(self.readers[name]) == 1 and name not in self.low for name in node.input)
        return product.scores and alone and are_scores(node.output[0], self._nodes_reading)

    def _nodes_reading(self, name: str) -> list[onnx.NodeProto]:
        return [] if name in self.outside else [self.nodes[read.node] for read in self.readers.get(name, ())]

    def _weight(self, node: onnx.NodeProto, product: Product) -> Weight | None:
        for index in product.weights:
            if index < len(node.input) and self.constants.is_float32(node.input[index]):
                shape = self.constants.shape(node.input[index]) or ()
                return Weight(input=index, axis=channel_axis(node, index, shape) if self.profile.per_channel else None)
        return None

    def _unfit(self, node: onnx.NodeProto, product: Product, weight: Weight | None, written: str) -> str:
        """Say why a product stays as it is; empty where it does not."""
        if node.name in self.keep:
            return "asked for"
        for index in self._activations(weight):
            if not self.observed(self.low.get(node.input[index], node.input[index])):
                return f"calibration saw nothing of its input '{node.input[index]}'"
        if product.writes is Written.PAIR and not self.observed(written):
            return f"calibration saw nothing of its output '{written}'"
        if weight is None:
            return ""
        shape = self.constants.shape(node.input[weight.input]) or ()
        if 0 in shape:
            return "its weight is empty"
        if node.op_type in ("MatMul", "Gemm"):
            if len(shape) < 2 or (self.profile.skip_matrix_vector and min(shape[-2:]) == 1):
                return "a product with a vector gains nothing"
        elif min(channels(node, shape)) < self.profile.min_conv_channels:
            return f"fewer than {self.profile.min_conv_channels} channels gain nothing"
        elif self._is_thin(node, shape, written):
            return "so few products in each sum, of numbers that come in floating point, gain little"
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and self.profile.quantize_bias and not self._bias_fits(node, bias):
            return f"its bias '{bias}' is not one constant for each channel"
        return ""

    def _is_thin(self, node: onnx.NodeProto, shape: tuple[int, ...], written: str) -> bool:
        """Tell whether a convolution at the graph's entry is not worth it (`QuantProfile.thin_sums`)."""
        if node.op_type != "Conv" or written in self.outside or node.input[0] in self.low:
            return False
        readers = [self.nodes[read.node] for read in self.readers.get(written, ())]
        pooled = bool(readers) and all(self._is_pool_before_relu(reader) for reader in readers)
        if not pooled and any(reader.op_type != "Conv" for reader in readers):
            return False
        return is_thin(shape, self.profile, pooled=pooled)

    def _is_pool_before_relu(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "MaxPool" and all(
            self.nodes[read.node].op_type == "Relu" for name in node.output for read in self.readers.get(name, ())
        )

    def _bias_fits(self, node: onnx.NodeProto, bias: str) -> bool:
        dims = self.constants.shape(bias)
        if dims is None or not self.constants.is_float32(bias):
            return False
        return node.op_type != "Gemm" or all(dim == 1 for dim in dims[:-1])

    def _activations(self, weight: Weight | None) -> tuple[int, ...]:
        return tuple(index for index in (0, 1) if weight is None or index != weight.input)

    def _take_view(self, number: int, node: onnx.NodeProto) -> None:
        if node.input and node.input[0] in self.low and _moves_only(node):
            self.views.add(number)
            self.low.update({name: self.low[node.input[0]] for name in node.output if name})

    def _take_join(self, number: int, node: onnx.NodeProto) -> None:
        written = self.absorbed(node.output[0])
        if len(node.output) != 1 or (self.profile.joins_write is Written.PAIR and not self.observed(written)):
            return
        if node.op_type == "Add" and self.profile.residual_branch_only:
            if not self._take_residual(number, node):
                return
        else:
            given = [name for name in self._tensors(node) if name not in self.constants]
            if not given or not (node.name in self.tied or all(name in self.low for name in given)):
                return
            if not all(self.constants.is_float32(name) for name in self._tensors(node) if name in self.constants):
                return
        self.joins[number] = written
        self.low[written] = written

    def _tensors(self, node: onnx.NodeProto) -> list[str]:
        """Return a join's inputs that are tensors of its own kind, not parameters: a Clip's bounds, a PRelu's slope."""
        return list(node.input) if node.op_type in MANY_TENSORS else list(node.input[:1])

    def _take_residual(self, number: int, node: onnx.NodeProto) -> bool:
        """Take an Add one of whose inputs comes straight, and for it alone, from a convolution; mark that one."""
        for index, name in enumerate(node.input):
            other = node.input[1 - index]
            straight = self.maker.get(name) in self.products and len(self.readers[name]) == 1
            if straight and name in self.low and name not in self.outside and self.observed(self.low.get(other, other)):
                self.free[number] = index
                return True
        return False

    def absorbed(self, name: str) -> str:
        """Return the tensor behind the Relu or Clip that does nothing but continue `name`."""
        while name not in self.outside and len(self.readers.get(name, ())) == 1:
            node = self.nodes[self.readers[name][0].node]
            if node.op_type not in self.profile.absorbed or node.input[0] != name or node.name in self.keep:
                break
            if any(bound and bound not in self.constants for bound in node.input[1:]):
                break
            name = node.output[0]
        return name

    # Backwards: what is worth it

    def wanted(self, name: str) -> bool:
        """Tell whether a quantized operator reads a tensor, or a view of it."""
        if name not in self._wanted:
            self._wanted[name] = False
            self._wanted[name] = any(self._wants(read) for read in self.readers.get(name, ()))
        return self._wanted[name]

    def _wants(self, read: Reads) -> bool:
        number, node = read.node, self.nodes[read.node]
        if number in self.products:
            return read.input in self._activations(self.products[number])
        if number in self.joins:
            return self._is_worth_it(number) and self.free.get(number) != read.input
        return number in self.views and read.input == 0 and any(self.wanted(name) for name in node.output if name)

    def _is_worth_it(self, number: int) -> bool:
        return number in self.free or self.wanted(self.joins[number])

    def _decided(self) -> Placement:
        joins = tuple(number for number in sorted(self.joins) if self._is_worth_it(number))
        reads: dict[int, tuple[int, ...]] = {}
        for number, weight in self.products.items():
            reads[number] = self._activations(weight)
        for number in joins:
            tensors = range(len(self._tensors(self.nodes[number])))
            reads[number] = tuple(index for index in tensors if index != self.free.get(number))
        for number in self.views:
            if any(self.wanted(name) for name in self.nodes[number].output if name):
                reads[number] = (0,)
        pairs = {}
        for number, inputs in reads.items():
            for name in (self.nodes[number].input[index] for index in inputs):
                if name not in self.constants:
                    pairs[name] = self._pair(name)
        for number in self.products:
            product = self.profile.product(self.nodes[number].op_type)
            if product is not None and product.writes is Written.PAIR:
                written = self.absorbed(self.nodes[number].output[0])
                pairs[written] = self._pair(written)
        return Placement(
            products=self.products,
            joins=joins,
            reads=reads,
            pairs=pairs,
            centred=frozenset(self.centred),
            tables=tuple(self.tables),
            kept=tuple(self.kept),
        )

    def _pair(self, name: str) -> Pair:
        root = self.low.get(name, name)
        return Pair(root=root, everyone=name in self.low and self._written(root) is Written.PAIR)

    def _written(self, root: str) -> Written:
        """Return how the operator behind a low tensor, before what it absorbs, writes it."""
        node = self.nodes[self.maker[root]]
        while self.maker[node.output[0]] not in self.products and self.maker[node.output[0]] not in self.joins:
            node = self.nodes[self.maker[node.input[0]]]
        product = self.profile.product(node.op_type)
        return product.writes if product is not None else self.profile.joins_write


MANY_TENSORS = ("Add", "Sub", "Mul", "Div", "Concat", "Sum", "Min", "Max", "Mean")
"""Joins all of whose inputs are tensors of the same kind."""


def is_thin(shape: tuple[int, ...], profile: QuantProfile, *, pooled: bool) -> bool:
    """Tell whether weights of that shape have few channels in a group, and sum few products (`thin_sums`).

    `pooled`: a MaxPool reads the sums, before their Relu.
    """
    sums = profile.pooled_sums if pooled else profile.thin_sums
    return shape[1] < profile.thin_channels and math.prod(shape[1:]) < sums


def is_table(node: onnx.NodeProto, constants: Constants) -> bool:
    """Tell whether a node looks up rows of a large constant matrix."""
    if node.op_type != "Gather" or any(attribute.i for attribute in node.attribute if attribute.name == "axis"):
        return False
    shape = constants.shape(node.input[0]) or ()
    return len(shape) == 2 and shape[0] * shape[1] >= TABLE_ELEMENTS and constants.is_float32(node.input[0])


def _moves_only(node: onnx.NodeProto) -> bool:
    """Tell whether an operator of a kind that moves numbers does no more here: a Resize may also mix neighbours."""
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    return node.op_type != "Resize" or modes in ([], [b"nearest"])


def channel_axis(node: onnx.NodeProto, index: int, shape: tuple[int, ...]) -> int | None:
    """Return the axis of a weight that belongs to the output's channels; None where no single scale fits a channel."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if len(shape) != 2:
        return None
    turned = node.op_type == "Gemm" and attribute(node, "transB" if index == 1 else "transA", 0)
    return (0 if turned else 1) if index == 1 else (1 if turned else 0)


def channels(node: onnx.NodeProto, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return a convolution's channels, first those that the weight's first axis counts."""
    return shape[0], shape[1] * int(attribute(node, "group", 1))


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """Return a number among a node's attributes."""
    import onnx

    for each in node.attribute:
        if each.name == name:
            return float(each.f) if each.type == onnx.AttributeProto.FLOAT else int(each.i)
    return default
