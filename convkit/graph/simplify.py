"""Fewer nodes, the same numbers: constant folding and fusion of an ONNX graph."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import StepError
from convkit.graph.census import Census, take_census
from convkit.graph.custom_ops import foreign_operators
from convkit.graph.external import load_light, save_with_data
from convkit.graph.model import EXTERNAL_ABOVE, Model, load_model
from convkit.graph.names import name_nodes, strip_origins, subgraphs, undefined
from convkit.pipeline import events
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import step
from convkit.spec.options import Simplifier

if TYPE_CHECKING:
    import onnx

_NOTHING = "the graph has nothing to fold or fuse"
_FOLDABLE = frozenset({"Identity", "Dropout"})
_FUSES_INTO = {"BatchNormalization": {"Conv", "ConvTranspose", "Gemm"}, "Add": {"MatMul"}}
_LARGE = 4096
"""Elements above which a weight is no shape or other small constant."""
_WIDEST = 16
"""Bytes of the largest element."""
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_SIMPLER_IN_RUNS = 3
"""The time of one simplifier, in times of one run of a model."""
_MANY_ROUNDS = 100_000
_ON_SHAPES = "arithmetic on shapes"
_SHAPE_ARITHMETIC = frozenset({"Shape", "Size", "ConstantOfShape", "NonZero", "Range"})


class Simplified(msgspec.Struct, frozen=True, kw_only=True):
    """A graph with no more nodes than it had, and what was tried on it."""

    model: Model
    before: Census
    after: Census
    applied: tuple[str, ...]
    """What each simplifier of the chain did, a sentence each."""


@step(version=2, stage="simplify", title="Simplify the graph", needs="onnx", libraries=("onnxsim", "onnxslim"))
def simplify(model: Model, *, chain: tuple[Simplifier, ...]) -> Simplified:
    """Simplify an ONNX model, and never hand on a larger one.

    Each simplifier of `chain` works on the smallest graph so far, and is left out where the graph has nothing that
    it could fold or fuse. Inputs and outputs keep their names, types and order; whether the numbers held is the
    business of the check that follows.
    """
    outline = load_model(model, weights=False)
    before = take_census(outline)
    reason = _reason_to_leave_it(outline)
    if not chain or reason:
        applied = tuple(f"{simplifier.value}: left out, {reason}" for simplifier in chain)
        return Simplified(model=model, before=before, after=before, applied=applied)
    return _simplified(load_light(model, most=_LARGE * _WIDEST), model, chain, before)


def _reason_to_leave_it(proto: onnx.ModelProto) -> str | None:
    """Say why no simplifier may touch the graph, or need not; None where they may."""
    if proto.graph.sparse_initializer:
        return "they lose sparse weights"
    if any(node.op_type in _RANDOM for graph in subgraphs(proto.graph) for node in graph.node):
        return "they take two random numbers for the same"
    if foreign := foreign_operators(proto):
        return f"they do not know {', '.join(foreign[:3])}"
    return None if something_to_simplify(proto) else _NOTHING


def _is_long_loop_of_constants(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Tell whether a simplifier would compute a loop whose rounds are many, or not to be read off."""
    from onnx import numpy_helper

    if node.op_type != "Loop":
        return False
    weights = {tensor.name: tensor for tensor in graph.initializer}
    values = {each.output[0]: each.attribute[0] for each in graph.node if each.op_type == "Constant"}
    if not all(name in weights or name in values for name in node.input if name):
        return False
    count = weights.get(node.input[0])
    if count is None and (value := values.get(node.input[0])) is not None and value.HasField("t"):
        count = value.t
    return count is None or bool((numpy_helper.to_array(count) > _MANY_ROUNDS).any())


def _simplified(proto: onnx.ModelProto, model: Model, chain: tuple[Simplifier, ...], before: Census) -> Simplified:
    smallest = proto
    applied: list[str] = []
    for simplifier in chain:
        reason = _reason_to_skip(simplifier, smallest, first=not applied)
        if reason:
            applied.append(f"{simplifier.value}: left out, {reason}")
            continue
        candidate = _tried(simplifier, smallest)
        if candidate is None or not _same_interface(candidate, proto) or _nodes(candidate) >= _nodes(smallest):
            applied.append(f"{simplifier.value}: nothing gained")
        elif (lost := undefined(candidate.graph)) is not None:
            applied.append(f"{simplifier.value}: left out, it would lose '{lost}'")
        else:
            applied.append(f"{simplifier.value}: {_nodes(smallest)} nodes became {_nodes(candidate)}")
            smallest = candidate
    if smallest is proto:
        return Simplified(model=model, before=before, after=before, applied=tuple(applied))
    _keep_form(smallest, proto)
    return Simplified(
        model=save_with_data(smallest, model.interface, model.path.parent),
        before=before,
        after=take_census(smallest),
        applied=tuple(applied),
    )


def _tried(simplifier: Simplifier, proto: onnx.ModelProto) -> onnx.ModelProto | None:
    try:
        with one_run(f"{simplifier.value} on this graph", times=_SIMPLER_IN_RUNS):
            return SIMPLIFIERS[simplifier](proto)
    except Exception as error:
        raise StepError(
            f"{simplifier.value} fails on this graph: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
            hint="leave it out: --set 'simplify.chain=[]' leaves the graph as it was exported",
            code="simplify.failed",
        ) from error


def _onnxslim(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Run onnxslim; where no weight can be folded, on the graph without its large weights: copies are spared."""
    import onnxslim

    if _folds_weights(proto):
        return onnxslim.slim(_copy(proto), verbose=False)
    light, weights = _lightened(proto)
    return _restored(onnxslim.slim(light, verbose=False), weights)


def _folds_weights(proto: onnx.ModelProto) -> bool:
    large = {weight.name for weight in proto.graph.initializer if _elements(weight) > _LARGE}
    constants = {weight.name for weight in proto.graph.initializer}
    return any(
        node.op_type == "BatchNormalization"
        or (any(name in large for name in node.input) and all(name in constants for name in node.input if name))
        for node in proto.graph.node
    )


def _elements(weight: onnx.TensorProto) -> int:
    return math.prod(weight.dims)


def _lightened(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """Return the graph with its large weights as inputs, and those weights."""
    import onnx

    light, graph = onnx.ModelProto(), proto.graph
    light.ir_version = proto.ir_version
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    light.graph.name = graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(graph, field))
    light.graph.initializer.extend(weight for weight in graph.initializer if _elements(weight) <= _LARGE)
    weights = [weight for weight in graph.initializer if _elements(weight) > _LARGE]
    light.graph.input.extend(onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    return light, weights


def _restored(light: onnx.ModelProto, weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    """Undo `_lightened`; weights that no node reads any more are left out."""
    names = {weight.name for weight in weights}
    inputs = [value for value in light.graph.input if value.name not in names]
    read = {name for graph in subgraphs(light.graph) for node in graph.node for name in node.input}
    read |= {value.name for value in light.graph.output}
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    light.graph.initializer.extend(weight for weight in weights if weight.name in read)
    return light


def _onnxsim(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    import onnxsim

    simplified, holds = onnxsim.simplify(_copy(proto), check_n=0)
    return simplified if holds else None


SIMPLIFIERS: dict[Simplifier, Callable[[onnx.ModelProto], onnx.ModelProto | None]] = {
    Simplifier.ONNXSLIM: _onnxslim,
    Simplifier.ONNXSIM: _onnxsim,
}


def _reason_to_skip(simplifier: Simplifier, proto: onnx.ModelProto, *, first: bool) -> str | None:
    if importlib.util.find_spec(simplifier.value) is None:
        events.warn("simplify.missing", f"{simplifier.value} is not installed: pip install {simplifier.value}")
        return "not installed"
    is_large = take_census(proto).weight_bytes > EXTERNAL_ABOVE
    if is_large and (simplifier is not Simplifier.ONNXSLIM or _folds_weights(proto)):
        return "the model is too large to be held in memory several times"
    if any(_is_long_loop_of_constants(node, proto.graph) for node in proto.graph.node):
        return "it would compute a loop of constants that is long, or has no count"
    what = something_to_simplify(proto)
    if what is None:
        return _NOTHING
    must_import_torch = "torch" not in sys.modules and importlib.util.find_spec("torch") is not None
    if simplifier is Simplifier.ONNXSIM and must_import_torch and not first and what.startswith(_ON_SHAPES):
        return f"it would import torch for what is left: {what}"
    return None


def something_to_simplify(proto: onnx.ModelProto) -> str | None:
    """Say what a simplifier could fold or fuse in the graph; None where it is minimal already.

    Looked for: nodes that do nothing, nodes whose inputs are all constant, normalizations and additions that the
    node before can take in, arithmetic on shapes, the same node twice, transposes in a row.
    """
    for graph in subgraphs(proto.graph):
        constants = {tensor.name for tensor in graph.initializer}
        constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
        producer = {name: node for node in graph.node for name in node.output}
        consumers = Counter(name for node in graph.node for name in node.input)
        seen: set[bytes] = set()
        for node in graph.node:
            if found := _opportunity(node, constants, producer, consumers):
                return found
            alike = b"|".join([node.op_type.encode(), *sorted(a.SerializeToString() for a in node.attribute)])
            alike += "|".join(node.input).encode()
            if alike in seen and node.input:
                return "the same node twice"
            seen.add(alike)
    return None


def _opportunity(
    node: onnx.NodeProto, constants: set[str], producer: dict[str, onnx.NodeProto], consumers: Counter[str]
) -> str | None:
    inputs = [name for name in node.input if name]
    if node.op_type in _FOLDABLE:
        return f"a node that does nothing ({node.op_type})"
    if inputs and all(name in constants for name in inputs) and not node.op_type.startswith("Random"):
        return f"a constant expression ({node.op_type})"
    if node.op_type in _SHAPE_ARITHMETIC:
        return f"{_ON_SHAPES} ({node.op_type})"
    before = producer.get(inputs[0]) if inputs else None
    if before is None or consumers[inputs[0]] != 1:
        return None
    if node.op_type == "Transpose" and before.op_type == "Transpose":
        return "transposes in a row"
    if before.op_type in _FUSES_INTO.get(node.op_type, ()):
        if node.op_type == "BatchNormalization":
            return "a normalization to fuse"
        return None  # MatMul and Add are two kernels or one as the runtime likes: onnxslim's Gemm needs 2-D inputs
    return None


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _nodes(proto: onnx.ModelProto) -> int:
    return sum(len(graph.node) for graph in subgraphs(proto.graph))


def _same_interface(candidate: onnx.ModelProto, proto: onnx.ModelProto) -> bool:
    return all(
        [(value.name, value.type.tensor_type.elem_type) for value in theirs]
        == [(value.name, value.type.tensor_type.elem_type) for value in ours]
        for theirs, ours in (
            (candidate.graph.input, proto.graph.input),
            (candidate.graph.output, proto.graph.output),
        )
    )


def _keep_form(candidate: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Give back what a simplifier may have touched besides nodes: shapes, IR version, no origins, names of nodes."""
    for theirs, ours in ((candidate.graph.input, proto.graph.input), (candidate.graph.output, proto.graph.output)):
        for value, original in zip(theirs, ours, strict=True):
            value.CopyFrom(original)
    candidate.ir_version = proto.ir_version
    candidate.graph.ClearField("value_info")
    strip_origins(candidate)
    name_nodes(candidate.graph)
