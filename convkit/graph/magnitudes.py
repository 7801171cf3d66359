"""How large the numbers in a graph become: what decides whether 16 bits can hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convkit.graph.model import Model, load_model
from convkit.graph.session import run_session, session_options, start_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

_PREFIX = "convkit/largest/"


def magnitudes(model: Model, cases: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Return the largest magnitude of every fp32 tensor that a node of the main graph gives, over all cases.

    The graph itself reduces each tensor to one number, so that none has to be held. NaN does not count; a tensor that
    is infinite anywhere is infinite.

    Raises:
        StepError: ONNX Runtime refuses the model, or fails on a case.
    """
    proto = load_model(model, weights=False)
    names = _floats(proto)
    options = session_options(plain=True)
    file = model.path.read_bytes() + _reductions(names)  # a message that comes twice is merged
    session = start_session(model.path, options, content=file)
    largest = dict.fromkeys(names, 0.0)
    for case in cases:
        results = run_session(session, tuple(_PREFIX + name for name in names), dict(case))
        for name, result in zip(names, results.values(), strict=True):
            value = float(result)
            largest[name] = largest[name] if math.isnan(value) else max(largest[name], value)
    return largest


def _floats(proto: onnx.ModelProto) -> tuple[str, ...]:
    from onnx import TensorProto, shape_inference

    inferred = shape_inference.infer_shapes(proto, strict_mode=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    made = (name for node in proto.graph.node for name in node.output)
    return tuple(name for name in made if types.get(name) == TensorProto.FLOAT)


def _reductions(names: Iterable[str]) -> bytes:
    from onnx import ModelProto, TensorProto, helper

    more = ModelProto()
    for name in names:
        more.graph.node.append(helper.make_node("Abs", [name], [f"{_PREFIX}abs/{name}"]))
        more.graph.node.append(helper.make_node("ReduceMax", [f"{_PREFIX}abs/{name}"], [_PREFIX + name], keepdims=0))
        more.graph.output.append(helper.make_tensor_value_info(_PREFIX + name, TensorProto.FLOAT, []))
    return bytes(more.SerializeToString())
