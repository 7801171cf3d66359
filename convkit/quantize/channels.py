"""Where the channels of a graph may be scaled: constants that make them, constants that take them up again.

A `Joint` is a set of tensors that hold the same channels. If every writer's channel i is divided by s_i > 0 and every
reader's multiplied by it, the model computes what it did: all that lies between maps s·x to s·f(x), channel by channel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.names import subgraphs
from convkit.quantize.constants import Constants
from convkit.quantize.passing import Passing, Place
from convkit.quantize.sides import Side, bias_sides, is_product, product_side, shift_side

if TYPE_CHECKING:
    import onnx

_GAINS = ("Mul", "Div")
_SUMS = ("Add", "Sub", "Sum")


class Joint(NamedTuple):
    """Tensors that hold the same channels, and every constant that scales with them."""

    channels: int
    tensors: dict[str, Place]
    """Where each tensor has its channels."""
    writers: tuple[Side, ...]
    """Weights, or a norm's factors, of what makes the channels: to be divided."""
    shifts: tuple[Side, ...]
    """What is added on the way, biases: to be divided too."""
    readers: tuple[Side, ...]
    """Weights of what takes the channels up: to be multiplied."""
    bounds: dict[str, float]
    """What Clip from 0 to a number has written on the way, and the number."""
    start: str
    """The tensor that the walk began at."""
    restored: tuple[int, ...]
    """Nodes that must read the start as it was: multiplied by the scales."""


class Joints:
    """Finds the joints of a graph's outermost level."""

    def __init__(self, proto: onnx.ModelProto, constants: Constants) -> None:
        """`proto` holds at least its small weights."""
        graph = proto.graph
        self.nodes = list(graph.node)
        self.constants = constants
        self.passing = Passing(proto, constants)
        self.maker = {name: number for number, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = {}
        for number, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(number)
        self.outside = {value.name for value in graph.output}
        for inner in subgraphs(graph):
            if inner is not graph:
                self.outside |= {name for node in inner.node for name in node.input}
                self.outside |= {value.name for value in inner.output}
        self._reads = Counter(name for node in self.nodes for name in node.input)
        self.hopeless: dict[str, Place] = {}
        """Where walks have ended without a joint."""

    def behind_products(self) -> list[Joint]:
        """Return the joints that products with constant weights write and read, in the graph's order."""
        starts = (node.output[0] for node in self.nodes if is_product(node, self.constants))
        return self._from(((name, self._written(name)) for name in starts), norms=False)

    def before_products(self, operators: tuple[str, ...], *, restore: bool = False) -> list[Joint]:
        """Return the joints that products of these types read, whoever writes them: also norms and factors.

        `restore`: also those of which other nodes read the products' input, too.
        """
        starts = (n.input[0] for n in self.nodes if n.op_type in operators and is_product(n, self.constants))
        return self._from(((name, self._last(name)) for name in dict.fromkeys(starts)), norms=True, restore=restore)

    def _from(self, starts: Iterable[tuple[str, Place | None]], *, norms: bool, restore: bool = False) -> list[Joint]:
        found: list[Joint] = []
        taken: set[str] = set()
        for name, place in starts:
            if place is None or name in taken:
                continue
            joint = self._walk(name, place, norms=norms, restore=False)
            if joint is None and restore:
                joint = self._walk(name, place, norms=norms, restore=True)
            if joint is not None and taken.isdisjoint(joint.tensors):
                taken.update(joint.tensors)
                found.append(joint)
        return found

    def _walk(self, name: str, place: Place, *, norms: bool, restore: bool) -> Joint | None:
        if not restore and self.hopeless.get(name) == place:
            return None
        walk = _Walk(self, norms=norms, restore=restore)
        joint = walk.from_tensor(name, place)
        if joint is None and walk.had_a_choice:
            joint = _Walk(self, norms=norms, restore=restore, last=True).from_tensor(name, place)
        return joint

    def is_shared(self, node: onnx.NodeProto) -> bool:
        """Tell whether a product's weights are those of another node, too."""
        return self._reads[node.input[1]] > 1 or node.input[1] in self.outside

    def _written(self, name: str) -> Place | None:
        axis = 1 if "Conv" in self.nodes[self.maker[name]].op_type else None
        return self._last(name) if axis is None else Place(axis)

    def _last(self, name: str) -> Place | None:
        rank = self.passing.rank(name)
        return None if not rank else Place(rank - 1)


class _Walk:
    """One walk over everything that is connected with a tensor."""

    def __init__(self, joints: Joints, *, norms: bool, restore: bool, last: bool = False) -> None:
        """Begin.

        `restore`: who reads the start and is no product with constant weights reads it as it was.
        `last`: of two activations that are multiplied the second holds the channels, where that is not known.
        """
        self.graph = joints
        self.norms = norms
        self.restore = restore
        self.last = last
        self.start = ""
        self.restored: list[int] = []
        self.had_a_choice = False
        self.tensors: dict[str, Place] = {}
        self.pending: list[tuple[str, Place]] = []
        self.gates: set[str] = set()
        self.sides: dict[str, dict[Side, None]] = {"writers": {}, "shifts": {}, "readers": {}}
        self.bounds: dict[str, float] = {}
        self.channels = 0

    def from_tensor(self, name: str, place: Place) -> Joint | None:
        self.start = name
        self.pending.append((name, place))
        while self.pending:
            name, place = self.pending.pop()
            known = self.tensors.get(name)
            if known is not None and known == place:
                continue
            if known is not None or not self._enter(name, place):
                if not self.had_a_choice and not self.restore:
                    self.graph.hopeless.update(self.tensors)
                return None
        if self.gates & self.tensors.keys() or not self.sides["writers"] or not self.sides["readers"]:
            return None
        if any(each in self.tensors for number in self.restored for each in self.graph.nodes[number].output):
            return None
        return Joint(
            channels=self.channels,
            tensors=self.tensors,
            writers=tuple(self.sides["writers"]),
            shifts=tuple(self.sides["shifts"]),
            readers=tuple(self.sides["readers"]),
            bounds=self.bounds,
            start=self.start,
            restored=tuple(self.restored),
        )

    def _enter(self, name: str, place: Place) -> bool:
        graph = self.graph
        count = graph.passing.count(name, place)
        if count is None or name in graph.outside or name not in graph.maker or count != (self.channels or count):
            return False
        self.channels = count
        self.tensors[name] = place
        return self._made_by(graph.maker[name], name, place) and all(
            self._read_by(number, name, place) for number in graph.readers.get(name, ())
        )

    def _made_by(self, number: int, name: str, place: Place) -> bool:
        """Take in what makes a tensor; False where the channels cannot be scaled there."""
        node = self.graph.nodes[number]
        if node.domain not in ("", "ai.onnx") or name != node.output[0]:
            return False
        if is_product(node, self.graph.constants):
            return self._written_by(number, name, place)
        if self.norms and self.tensors.keys().isdisjoint(node.input) and self._scaled_by(number, place):
            self.gates.update(node.input)  # scaled there, so not before
            return True
        if node.op_type in (*_SUMS, *_GAINS):
            return self._combined(number, place)
        before = self.graph.passing.backward(node, place)
        return before is not None and self._past(number, node.input[0], before)

    def _read_by(self, number: int, name: str, place: Place) -> bool:
        """Take in a reader of a tensor; False where it would see that the channels are scaled."""
        node = self.graph.nodes[number]
        if (
            self.restore
            and name == self.start
            and (name in node.input[1:] or not is_product(node, self.graph.constants))
        ):
            self.restored.append(number)
            return True
        if node.domain not in ("", "ai.onnx"):
            return False
        if node.op_type in _SUMS:
            return self._reach(node.output[0], place)
        if node.op_type in _GAINS:
            other = [each for each in node.input if each != name]
            divisor = node.op_type == "Div" and node.input[0] != name
            if divisor or len(other) != 1 or not self.graph.passing.alike(name, node.output[0], place):
                return False
            if other[0] not in self.graph.constants:
                self.gates.add(other[0])
            return self._reach(node.output[0], place)
        if name in node.input[1:]:
            return False
        if is_product(node, self.graph.constants):
            side = product_side(self.graph.nodes, number, self.graph.constants, reads=True, inner=place.inner)
            if side is None or self.graph.is_shared(node) or not self._reads_channels(node, name, place):
                return False
            self.sides["readers"][side] = None
            return True
        after = self.graph.passing.forward(node, place)
        return after is not None and self._past(number, node.output[0], after)

    def _reads_channels(self, node: onnx.NodeProto, name: str, place: Place) -> bool:
        if "Conv" in node.op_type:
            return place == Place(1)
        return place.axis + 1 == self.graph.passing.rank(name)

    def _written_by(self, number: int, name: str, place: Place) -> bool:
        node, constants = self.graph.nodes[number], self.graph.constants
        expected = Place(1) if "Conv" in node.op_type else Place((self.graph.passing.rank(name) or 0) - 1)
        side = product_side(self.graph.nodes, number, constants, reads=False)
        biases = bias_sides(self.graph.nodes, number, constants, index=2, channels=self.channels)
        if side is None or biases is None or self.graph.is_shared(node) or place != expected:
            return False
        self.sides["writers"][side] = None
        self.sides["shifts"].update(dict.fromkeys(biases))
        return True

    def _scaled_by(self, number: int, place: Place) -> bool:
        """Take in a norm, or a product with a vector, as what makes the channels: its factors are constants."""
        node, constants = self.graph.nodes[number], self.graph.constants
        rank = self.graph.passing.rank(node.output[0]) or 0
        last = place == Place(rank - 1)
        if node.op_type == "LayerNormalization" and last:
            scale = bias_sides(self.graph.nodes, number, constants, index=1, channels=self.channels)
            biases = bias_sides(self.graph.nodes, number, constants, index=2, channels=self.channels)
            if not scale or biases is None:
                return False
            self.sides["writers"].update(dict.fromkeys(scale))
            self.sides["shifts"].update(dict.fromkeys(biases))
            return True
        if node.op_type != "Mul":
            return False
        for index, name in enumerate(node.input):
            if name in constants and constants.shape(name) not in ((), (1,)):
                side = shift_side(self.graph.nodes, number, index, constants, place, rank, self.channels)
                if side is not None and side.shape == constants.shape(name):
                    self.sides["writers"][side] = None
                    return True
        return False

    def _combined(self, number: int, place: Place) -> bool:
        """Take in a sum or a product that makes a tensor: every term, or one factor, holds the channels."""
        node, constants, passing = self.graph.nodes[number], self.graph.constants, self.graph.passing
        rank = passing.rank(node.output[0]) or 0
        moving = [name for name in node.input if name not in constants]
        if node.op_type in _GAINS:
            return self._multiplied(node, moving, place)
        for index, name in enumerate(node.input):
            if name in constants:
                side = shift_side(self.graph.nodes, number, index, constants, place, rank, self.channels)
                if side is None:
                    return False
                self.sides["shifts"][side] = None
            elif not passing.alike(name, node.output[0], place):
                return False
        return all(self._reach(name, place) for name in moving)

    def _multiplied(self, node: onnx.NodeProto, moving: list[str], place: Place) -> bool:
        """Take in a product that makes a tensor: one factor holds the channels, the other must not."""
        fitting = [name for name in moving if self.graph.passing.alike(name, node.output[0], place)]
        if node.op_type == "Div":
            fitting = [name for name in fitting if name == node.input[0]]
        chosen = [name for name in fitting if name in self.tensors] or fitting
        if not chosen or node.input[0] == node.input[1]:
            return False
        self.had_a_choice |= len(chosen) > 1
        holder = chosen[-1 if self.last else 0]
        self.gates.update(name for name in moving if name != holder)
        return self._reach(holder, place)

    def _past(self, number: int, name: str, place: Place) -> bool:
        node = self.graph.nodes[number]
        if node.op_type == "Clip":
            bound = self.graph.passing.bound(node)
            if bound is None:
                return False
            if bound != math.inf:
                self.bounds[node.output[0]] = bound
        return self._reach(name, place)

    def _reach(self, name: str, place: Place) -> bool:
        self.pending.append((name, place))
        return True
