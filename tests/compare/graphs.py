"""Small graphs to be compared."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import DATA_FILE, MODEL_FILE, Model, Tensors, save_model, save_tensors
from convkit.graph.present import interface_of
from convkit.pipeline.artifact import gather, new_folder

BINARY = ("Add", "Sub", "Mul", "Div")


def chain(*operators: str, scale: float = 2.0, shift: float = 3.0, outputs: tuple[str, ...] = ()) -> onnx.ModelProto:
    """From `x` [batch, 4, 4] one node after the other, each making t0, t1 and so on; the last is the output.

    Mul and Div take the weight `scale`, Add and Sub the weight `shift`, the same for every element.
    """
    nodes, name = [], "x"
    for number, operator in enumerate(operators):
        weights = [] if operator not in BINARY else ["scale" if operator in ("Mul", "Div") else "shift"]
        output = f"t{number}"
        nodes.append(helper.make_node(operator, [name, *weights], [output], name=f"/{number}/{operator}"))
        name = output
    weights_of = {"scale": scale, "shift": shift}
    weights = [numpy_helper.from_array(np.full((4, 4), value, np.float32), key) for key, value in weights_of.items()]
    shape = ["batch", 4, 4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, None) for end in (*outputs, name)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized_chain(*operators: str, coarse: int | None = None) -> onnx.ModelProto:
    """The same with a Q/DQ pair behind every node but the last; `coarse`: one that keeps a few steps only."""
    model = chain(*operators)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for number, node in enumerate(nodes):
        model.graph.node.append(node)
        if number + 1 < len(nodes):
            scale = f"t{number}/scale"
            step = 8.0 if number == coarse else 0.1
            model.graph.initializer.append(numpy_helper.from_array(np.array(step, np.float32), scale))
            model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"t{number}/zero"))
            names = [scale, f"t{number}/zero"]
            output, kept = node.output[0], f"{node.output[0]}/rounded"
            pair = [("QuantizeLinear", output, f"{output}/int8"), ("DequantizeLinear", f"{output}/int8", kept)]
            model.graph.node.extend(
                helper.make_node(operator, [given, *names], [made], name=f"{output}/{operator.lower()[:-6]}")
                for operator, given, made in pair
            )
            nodes[number + 1].input[0] = kept
    return model


def saved(proto: onnx.ModelProto) -> Model:
    return save_model(proto, interface_of(proto))


def saved_beside(proto: onnx.ModelProto) -> Model:
    """The model with its weights in a file of their own."""
    folder = new_folder("beside")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, folder / MODEL_FILE, save_as_external_data=True, location=DATA_FILE, size_threshold=0)
    assert (folder / DATA_FILE).stat().st_size > 0
    return Model(files=gather(folder), interface=interface_of(proto))


def samples_of(proto: onnx.ModelProto, *, seed: int = 0) -> Tensors:
    """Standard normal inputs, one row and three."""
    rng = np.random.default_rng(seed)
    [value] = proto.graph.input
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
    return save_tensors([{value.name: rng.normal(size=(rows, *shape)).astype(np.float32)} for rows in (1, 3)])
