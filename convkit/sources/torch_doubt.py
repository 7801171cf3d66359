"""What can be held against an exported graph before it is handed on: other numbers, and random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convkit.errors import StepError
from convkit.graph.names import subgraphs
from convkit.graph.session import run_session, session_options
from convkit.sources.torch_blame import last_place
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np
    import onnx

_DRAWS = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
_STACK = "pkg.torch.onnx.stack_trace"
Case = Mapping[str, "np.ndarray"]


def disagreement(
    proto: onnx.ModelProto, wires: Sequence[str], wanted: Interface, cases: Sequence[Case], answers: Sequence[Case]
) -> str | None:
    """Run a graph on the cases, and say where it does not give the framework's answers; None: it does.

    Args:
        proto: the graph; its inputs stand in the order of `wires`, its outputs in that of `wanted`.
        wires: the inputs' wire names.
        wanted: the interface.
        cases: inputs by wire name.
        answers: the framework's outputs by wire name, for the same cases.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class
        return f"ONNX Runtime refuses its graph: {' '.join(str(error).split())[:300]}"
    graph_inputs = [value.name for value in proto.graph.input]
    if len(graph_inputs) != len(wires):
        return f"its graph has {len(graph_inputs)} inputs"
    outputs = tuple(value.name for value in proto.graph.output)
    for case, expected in zip(cases, answers, strict=True):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in case.items())
        fed = {name: case[wire] for name, wire in zip(graph_inputs, wires, strict=True)}
        try:
            found = run_session(session, outputs, fed)
        except StepError as error:
            return error.message
        named = {spec.name: found[name] for spec, name in zip(wanted.outputs, outputs, strict=True)}
        if not same(expected, named):
            return f"its graph gives other answers on {shapes}"
    return None


def same(expected: Case, found: Case) -> bool:
    """Tell whether the outputs are equal, but for the rounding of another order of summation."""
    import numpy as np

    return all(
        array.shape == found[name].shape
        and np.allclose(array.astype(np.float64), found[name].astype(np.float64), rtol=1e-3, atol=1e-4, equal_nan=True)
        for name, array in expected.items()
    )


def random_node(proto: onnx.ModelProto) -> str | None:
    """Return the operator of a node that draws random numbers, with the line it comes from; None: there is none."""
    nodes = [node for graph in subgraphs(proto.graph) for node in graph.node]
    for node in (*nodes, *(node for function in proto.functions for node in function.node)):
        if node.op_type in _DRAWS:
            stack = next((entry.value for entry in node.metadata_props if entry.key == _STACK), "")
            place = last_place(stack)
            return f"{node.op_type}, {place}" if place else str(node.op_type)
    return None
