"""How models of the preflight's corpus are put together, and the list that they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, H, D, B = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL
I8, U8, I16, I32, I64 = (
    *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16),
    *(TensorProto.INT32, TensorProto.INT64),
)
Dims = list[int | str]
NUMBERS = np.random.default_rng(7)


class Broken(NamedTuple):
    """One model of the corpus."""

    name: str
    model: onnx.ModelProto
    node: str
    """What a right finding names: an ONNX node, or an input or output of the graph."""
    operator: str
    what: str
    profile: dict[str, tuple[Dims, Dims, Dims]]
    """By input: smallest, usual and largest shape, where it is the profile that cannot work."""
    mended: bool
    """Whether `--fix` makes a model of it that is taken."""


_MAKERS: list[tuple[Callable[[], onnx.ModelProto], str, str, bool, dict[str, Any]]] = []


def broken(
    node: str, operator: str, *, mended: bool = False, profile: dict[str, Any] | None = None
) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Add a model to the corpus; `node` and `operator` are what has to be named."""

    def add(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        _MAKERS.append((make, node, operator, mended, profile or {}))
        return make

    return add


def corpus() -> Iterator[Broken]:
    """Make every model."""
    for make, node, operator, mended, profile in _MAKERS:
        yield Broken(make.__name__, make(), node, operator, str(make.__doc__), profile, mended)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Dims]],
    outputs: dict[str, tuple[int, Dims]],
    weights: dict[str, Any] | None = None,
    *,
    opset: int = 20,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """Put a model together; inputs and outputs are given as element type and dims."""
    infos = [
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in side.items()]
        for side in (inputs, outputs)
    ]
    tensors = [
        each if isinstance(each, TensorProto) else numpy_helper.from_array(np.asarray(each), name)
        for name, each in (weights or {}).items()
    ]
    graph = helper.make_graph(nodes, "graph", *infos, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def node(operator: str, inputs: str, outputs: str, name: str, **attributes: Any) -> onnx.NodeProto:
    """Make a node; tensors are separated by blanks, ``-`` stands for one that is left out."""
    ins, outs = ([each if each != "-" else "" for each in text.split()] for text in (inputs, outputs))
    return helper.make_node(operator, ins, outs, name=name, **attributes)


def floats(*shape: int) -> np.ndarray:
    return NUMBERS.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def unary(
    operator: str, name: str, kind: int = F, *, out: int | None = None, opset: int = 20, **attributes: Any
) -> Any:
    """A model of one node from `x` to `y`, both [2, 6]."""
    return model(
        [node(operator, "x", "y", name, **attributes)],
        {"x": (kind, [2, 6])},
        {"y": (out or kind, [2, 6])},
        opset=opset,
    )
