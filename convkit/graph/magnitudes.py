"""How large the numbers in a graph become: what decides whether 16 bits can hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convkit.errors import StepError
from convkit.graph.model import Model, load_model
from convkit.graph.session import session_options

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
    import onnxruntime

    proto = load_model(model, weights=False)
    names = _floats(proto)
    options = session_options(plain=True)
    if len(model.files.files) > 1:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", model.files.path)
    file = model.path.read_bytes() + _reductions(names)  # a message that comes twice is merged
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        largest = dict.fromkeys(names, 0.0)
        for case in cases:
            results = session.run([_PREFIX + name for name in names], dict(case))
            for name, result in zip(names, results, strict=True):
                value = float(result)
                largest[name] = largest[name] if math.isnan(value) else max(largest[name], value)
    except Exception as error:
        raise StepError(
            f"ONNX Runtime {onnxruntime.__version__} cannot look into the model: {' '.join(str(error).split())}",
            hint="the message names the node; --quantize none shows whether the model runs at all",
            code="onnxruntime.refused",
        ) from error
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
