"""Small graphs with Q/DQ pairs put in, and what is to be seen of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from sources.onnx_files import FLOAT, model, value

from convkit.graph.names import name_nodes
from convkit.graph.quant_profile import QuantProfile
from convkit.quantize.known import Known
from convkit.quantize.qdq import Inserted, insert_qdq
from convkit.quantize.rewrites import rewrite
from convkit.targets.onnxruntime_profile import PROFILE


def weight(name: str, *shape: int, scale: float = 0.2) -> onnx.TensorProto:
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) * scale
    return numpy_helper.from_array(drawn.astype(np.float32), name)


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: list[onnx.TensorProto],
    **more: Any,
) -> onnx.ModelProto:
    """A model of float tensors whose nodes have names."""
    values = [[value(name, FLOAT, dims) for name, dims in each.items()] for each in (inputs, outputs)]
    proto = model(nodes, *values, weights, **more)
    name_nodes(proto.graph)
    return proto


class Seen:
    """What a graph's activations did on some inputs: the statistics that calibration would give."""

    def __init__(self, proto: onnx.ModelProto, feeds: dict[str, np.ndarray], *, unseen: tuple[str, ...] = ()) -> None:
        import onnxruntime

        constants = {tensor.name for tensor in proto.graph.initializer}
        names = [name for node in proto.graph.node for name in node.output if node.op_type != "Constant"]
        bare = onnx.ModelProto()
        bare.CopyFrom(proto)
        del bare.graph.output[:]
        bare.graph.output.extend(value(name, FLOAT, None) for name in names)
        session = onnxruntime.InferenceSession(bare.SerializeToString(), providers=["CPUExecutionProvider"])
        found = dict(zip(names, session.run(names, feeds), strict=True)) | feeds
        self.values = {name: array for name, array in found.items() if name not in {*constants, *unseen}}

    def range(self, name: str) -> tuple[float, float] | None:
        if name not in self.values:
            return None
        return float(self.values[name].min()), float(self.values[name].max())

    def channel_mean(self, name: str) -> np.ndarray | None:
        array = self.values[name]
        if array.ndim not in (3, 4):
            return None
        mean: np.ndarray = array.mean(axis=(0, 2, 3) if array.ndim == 4 else (0, 1))
        return mean

    def moment(self, node: str) -> None:
        return None


def feeds_for(proto: onnx.ModelProto, *, seed: int = 0) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(seed)
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {
        each.name: numbers.standard_normal([dim.dim_value or 3 for dim in each.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for each in proto.graph.input
        if each.name not in constants
    }


def quantized(
    proto: onnx.ModelProto, profile: QuantProfile = PROFILE, *, unseen: tuple[str, ...] = (), **options: Any
) -> tuple[onnx.ModelProto, Inserted]:
    """A quantized copy, which ONNX's checker takes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    inserted = insert_qdq(copy, Seen(proto, feeds_for(proto), unseen=unseen), profile, **options)
    onnx.checker.check_model(copy, full_check=True)
    return copy, inserted


def sqnr_db(proto: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """How far the answers of the second are from those of the first, in ONNX Runtime, over all outputs."""
    one, two = (
        np.concatenate([array.ravel() for array in answers(each)]).astype(np.float64) for each in (proto, other)
    )
    return float(10 * np.log10((one**2).sum() / max(((one - two) ** 2).sum(), 1e-30)))


def pairs(proto: onnx.ModelProto) -> set[str]:
    """The tensors behind which there is a Q/DQ pair, under the names that they had."""
    found = (each.input[0] for each in proto.graph.node if each.op_type == "QuantizeLinear")
    return {name.removesuffix("__float") for name in found}


def reads(proto: onnx.ModelProto, name: str) -> list[str]:
    """What a node's inputs come from: ``dequantized``, or a tensor's name."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    [node] = [node for node in proto.graph.node if node.name == name]
    return [
        "dequantized" if each in makers and makers[each].op_type == "DequantizeLinear" else each for each in node.input
    ]


def scale_of(proto: onnx.ModelProto, tensor: str) -> float:
    """The scale of the pair behind a tensor."""
    scales = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    [pair] = [
        node
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0].removesuffix("__float") == tensor
    ]
    return float(scales[pair.input[1]])


def run_as(proto: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators of the graph that ONNX Runtime makes of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def initializers(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def rewritten(
    proto: onnx.ModelProto, profile: QuantProfile = PROFILE, *, keep: frozenset[str] = frozenset()
) -> tuple[onnx.ModelProto, Known]:
    """A copy in the form that the runtime fuses well, and what is known of its new tensors. It computes what it did."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = Known(Seen(proto, feeds_for(proto)), profile)
    rewrite(copy, profile, known, keep=keep)
    onnx.checker.check_model(copy, full_check=True)
    for before, after in zip(answers(proto), answers(copy), strict=True):
        assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()
    return copy, known


def finished(proto: onnx.ModelProto, profile: QuantProfile = PROFILE, **options: Any) -> onnx.ModelProto:
    """A copy that is rewritten and quantized."""
    copy, known = rewritten(proto, profile, **options)
    insert_qdq(copy, known, profile, tied=known.tied, **options)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def answers(proto: onnx.ModelProto) -> list[np.ndarray]:
    """What ONNX Runtime makes of a graph's own random inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feeds_for(proto))
    return found
