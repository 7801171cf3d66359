"""Models that TensorRT-RTX refuses, cannot build, or runs with other numbers; each says what a finding must name.

Every one was refused by the real parser or builder when it was added, and a test holds it to that. To grow the corpus,
add a function below: its name is the model's, its docstring says what is wrong.
"""

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


# Quantization -------------------------------------------------------------------------------------------------------


def pair(
    tensor: str, name: str, scale: float = 0.05, zero: np.generic | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Q and DQ of a tensor: the nodes, and their constants."""
    point = np.int8(0) if zero is None else zero
    consts = {f"{name}_s": np.float32(scale), f"{name}_z": np.asarray(point)}
    nodes = [
        node("QuantizeLinear", f"{tensor} {name}_s {name}_z", f"{name}_q", f"{name}_Q"),
        node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d", f"{name}_DQ"),
    ]
    return nodes, consts


def quantized_conv(
    zero: np.generic | None = None,
    weight: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    bias: str = "float",
) -> onnx.ModelProto:
    """Q/DQ, Conv with quantized weights, Relu."""
    nodes, consts = pair("x", "act", zero=zero)
    raw, scale, point = weight or (
        NUMBERS.integers(-127, 128, (8, 4, 3, 3)).astype(np.int8),
        np.full(8, 0.01, np.float32),
        np.zeros(8, np.int8),
    )
    consts |= {"w_q": raw, "w_s": scale, "w_z": point}
    axis = {"axis": 0} if np.ndim(scale) else {}
    nodes.append(node("DequantizeLinear", "w_q w_s w_z", "w_d", "weight_DQ", **axis))
    if bias == "int32":
        consts |= {
            "b_q": np.arange(8, dtype=np.int32),
            "b_s": np.full(8, 5e-4, np.float32),
            "b_z": np.zeros(8, np.int32),
        }
        nodes.append(node("DequantizeLinear", "b_q b_s b_z", "b", "bias_DQ", axis=0))
    else:
        consts["b"] = floats(8)
    nodes.append(node("Conv", "act_d w_d b", "c", "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    nodes.append(node("Relu", "c", "y", "relu"))
    return model(nodes, {"x": (F, [1, 4, 8, 8])}, {"y": (F, [1, 8, 8, 8])}, consts)


@broken("act_Q", "QuantizeLinear", mended=True)
def asymmetric_uint8_activations() -> onnx.ModelProto:
    """uint8 activations with a zero point of 128, as quantizers for CPUs write them."""
    return quantized_conv(zero=np.uint8(128))


@broken("act_Q", "QuantizeLinear", mended=True)
def asymmetric_int8_activations() -> onnx.ModelProto:
    """int8 activations with a zero point of -20."""
    return quantized_conv(zero=np.int8(-20))


@broken("act_Q", "QuantizeLinear", mended=True)
def uint8_activations_around_zero() -> onnx.ModelProto:
    """uint8 activations with a zero point of 0."""
    return quantized_conv(zero=np.uint8(0))


@broken("weight_DQ", "DequantizeLinear", mended=True)
def asymmetric_weights() -> onnx.ModelProto:
    """uint8 weights with zero points that differ by channel."""
    raw = NUMBERS.integers(0, 256, (8, 4, 3, 3)).astype(np.uint8)
    return quantized_conv(weight=(raw, np.full(8, 0.01, np.float32), np.arange(120, 128, dtype=np.uint8)))


@broken("bias_DQ", "DequantizeLinear", mended=True)
def int32_bias() -> onnx.ModelProto:
    """A bias as int32 with a DequantizeLinear, as ONNX Runtime's quantizer writes it."""
    return quantized_conv(bias="int32")


@broken("act_Q", "QuantizeLinear")
def int16_activations() -> onnx.ModelProto:
    """int16 activations."""
    nodes, consts = pair("x", "act", zero=np.int16(0))
    nodes.append(node("Relu", "act_d", "y", "relu"))
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 6])}, consts, opset=21)


@broken("act_Q", "QuantizeLinear", mended=True)
def scale_of_zero() -> onnx.ModelProto:
    """A scale of 0: a dead channel's range, as some calibrations write it."""
    nodes, consts = pair("x", "act", scale=0.0)
    nodes.append(node("Relu", "act_d", "y", "relu"))
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 6])}, consts)


@broken("weight_DQ", "DequantizeLinear", mended=True)
def scales_along_another_axis() -> onnx.ModelProto:
    """Scales for 8 channels along an axis of 4."""
    made = quantized_conv()
    [dq] = [each for each in made.graph.node if each.name == "weight_DQ"]
    dq.attribute[0].i = 1
    return made


@broken("dynamic_Q", "DynamicQuantizeLinear")
def dynamic_quantization() -> onnx.ModelProto:
    """What ONNX Runtime's quantize_dynamic writes for a product."""
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z", "dynamic_Q"),
        node("MatMulInteger", "q w z wz", "i", "product"),
        node("Cast", "i", "f", "cast", to=F),
        node("Mul", "f s", "y", "rescale"),
    ]
    weights = {"w": NUMBERS.integers(-99, 99, (6, 5)).astype(np.int8), "wz": np.int8(0)}
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 5])}, weights)


@broken("product", "MatMulInteger")
def integer_product() -> onnx.ModelProto:
    """A product of int8 matrices on the model's own inputs."""
    nodes = [node("MatMulInteger", "x w", "y", "product")]
    weights = {"w": NUMBERS.integers(-99, 99, (6, 5)).astype(np.int8)}
    return model(nodes, {"x": (I8, [2, 6])}, {"y": (I32, [2, 5])}, weights)


@broken("conv", "QLinearConv")
def operator_form_of_quantization() -> onnx.ModelProto:
    """QLinearConv, the operator form of quantization."""
    nodes = [
        node("QuantizeLinear", "x s z", "q", "in_Q"),
        node("QLinearConv", "q s z w s z s z", "r", "conv", kernel_shape=[3, 3]),
        node("DequantizeLinear", "r s z", "y", "out_DQ"),
    ]
    weights = {"s": np.float32(0.1), "z": np.int8(0), "w": NUMBERS.integers(-9, 9, (8, 4, 3, 3)).astype(np.int8)}
    return model(nodes, {"x": (F, [1, 4, 8, 8])}, {"y": (F, [1, 8, 6, 6])}, weights)


# Operators that it does not have -------------------------------------------------------------------------------------


@broken("spell", "Sorcery")
def operator_of_ones_own() -> onnx.ModelProto:
    """An operator of a domain of one's own."""
    return model(
        [helper.make_node("Sorcery", ["x"], ["y"], name="spell", domain="house.made")],
        {"x": (F, [2, 6])},
        {"y": (F, [2, 6])},
        domains=("house.made",),
    )


@broken("fused", "FusedMatMul")
def operator_of_onnxruntime() -> onnx.ModelProto:
    """What ONNX Runtime's optimizer has fused, and nobody else reads."""
    return model(
        [helper.make_node("FusedMatMul", ["x", "w"], ["y"], name="fused", domain="com.microsoft", alpha=0.5)],
        {"x": (F, [2, 6])},
        {"y": (F, [2, 5])},
        {"w": floats(6, 5)},
        domains=("com.microsoft",),
    )


@broken("distinct", "Unique")
def distinct_values() -> onnx.ModelProto:
    """Unique, whose output's size depends on the values."""
    return model([node("Unique", "x", "y", "distinct")], {"x": (F, [6])}, {"y": (F, ["found"])})


@broken("pick", "Compress")
def compressed_rows() -> onnx.ModelProto:
    """Compress, whose output's size depends on the values."""
    return model(
        [node("Compress", "x c", "y", "pick", axis=0)], {"x": (F, [6, 2]), "c": (B, [6])}, {"y": (F, ["found", 2])}
    )


@broken("determinant", "Det")
def determinants() -> onnx.ModelProto:
    """Det."""
    return model([node("Det", "x", "y", "determinant")], {"x": (F, [2, 3, 3])}, {"y": (F, [2])})


@broken("shift", "BitShift")
def shifted_bits() -> onnx.ModelProto:
    """BitShift on uint8."""
    return model([node("BitShift", "x x", "y", "shift", direction="LEFT")], {"x": (U8, [2, 6])}, {"y": (U8, [2, 6])})


@broken("mask", "BitwiseAnd")
def masked_bits() -> onnx.ModelProto:
    """BitwiseAnd on int32."""
    return model(
        [node("BitwiseAnd", "x m", "y", "mask")], {"x": (I32, [2, 6])}, {"y": (I32, [2, 6])}, {"m": np.int32(7)}
    )


@broken("chance", "Bernoulli", mended=True)
def random_draws() -> onnx.ModelProto:
    """Bernoulli, left in the graph from training."""
    return unary("Bernoulli", "chance")


@broken("fold", "Col2Im")
def folded_columns() -> onnx.ModelProto:
    """torch.nn.Fold."""
    weights = {"size": ints(5, 5), "block": ints(1, 5)}
    return model(
        [node("Col2Im", "x size block", "y", "fold")], {"x": (F, [1, 5, 5])}, {"y": (F, [1, 1, 5, 5])}, weights
    )


@broken("unpool", "MaxUnpool")
def unpooling() -> onnx.ModelProto:
    """torch.nn.MaxUnpool2d."""
    return model(
        [node("MaxUnpool", "x i", "y", "unpool", kernel_shape=[2, 2], strides=[2, 2])],
        {"x": (F, [1, 1, 2, 2]), "i": (I64, [1, 1, 2, 2])},
        {"y": (F, [1, 1, 4, 4])},
    )


@broken("lower", "StringNormalizer")
def strings() -> onnx.ModelProto:
    """A model that takes strings."""
    kind = TensorProto.STRING
    return model([node("StringNormalizer", "x", "y", "lower")], {"x": (kind, [6])}, {"y": (kind, [6])})


@broken("split", "SplitToSequence")
def sequences() -> onnx.ModelProto:
    """torch.split with a loop over it, exported as a sequence."""
    nodes = [node("SplitToSequence", "x", "s", "split", axis=0), node("SequenceAt", "s i", "y", "at")]
    return model(nodes, {"x": (F, [4, 6])}, {"y": (F, [1, 6])}, {"i": np.int64(1)})


@broken("window", "MelWeightMatrix", mended=True)
def mel_filters() -> onnx.ModelProto:
    """The filter bank of an audio front end, computed in the graph."""
    weights = {"m": np.int64(8), "d": np.int64(16), "r": np.int64(8000), "lo": np.float32(0), "hi": np.float32(4000)}
    nodes = [node("MelWeightMatrix", "m d r lo hi", "f", "window"), node("MatMul", "x f", "y", "mel")]
    return model(nodes, {"x": (F, [2, 9])}, {"y": (F, [2, 8])}, weights)


@broken("words", "TfIdfVectorizer")
def word_counts() -> onnx.ModelProto:
    """A text classifier's features."""
    counted = {"ngram_counts": [0], "ngram_indexes": [0, 1, 2], "pool_int64s": [2, 3, 5]}
    attributes = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, **counted}
    return model([node("TfIdfVectorizer", "x", "y", "words", **attributes)], {"x": (I32, [2, 6])}, {"y": (F, [2, 3])})


@broken("found", "NonZero")
def places_of_what_is_not_zero() -> onnx.ModelProto:
    """NonZero, for which TensorRT has a plugin and TensorRT-RTX none."""
    return model([node("NonZero", "x", "y", "found")], {"x": (F, [2, 6])}, {"y": (I64, [2, "n"])})


@broken("regions", "RoiAlign")
def regions_of_interest() -> onnx.ModelProto:
    """RoiAlign, for which TensorRT has a plugin and TensorRT-RTX none."""
    return model(
        [node("RoiAlign", "x r b", "y", "regions", output_height=2, output_width=2)],
        {"x": (F, [1, 2, 8, 8]), "r": (F, [3, 4]), "b": (I64, [3])},
        {"y": (F, [3, 2, 2, 2])},
    )


# Attributes and forms that it does not take ---------------------------------------------------------------------------


def resized(**attributes: Any) -> onnx.ModelProto:
    """A Resize of an image to half its size."""
    return model(
        [node("Resize", "x - s", "y", "resize", **attributes)],
        {"x": (F, [1, 3, 16, 16])},
        {"y": (F, [1, 3, 8, 8])},
        {"s": np.array([1, 1, 0.5, 0.5], np.float32)},
    )


@broken("resize", "Resize", mended=True)
def antialiased_resize() -> onnx.ModelProto:
    """Resize with antialiasing, as torch exports it for images."""
    return resized(mode="linear", antialias=1)


@broken("resize", "Resize", mended=True)
def cropping_resize() -> onnx.ModelProto:
    """Resize that crops."""
    return model(
        [node("Resize", "x r s", "y", "resize", mode="linear", coordinate_transformation_mode="tf_crop_and_resize")],
        {"x": (F, [1, 3, 16, 16])},
        {"y": (F, [1, 3, 4, 4])},
        {"r": np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5], np.float32), "s": np.array([1, 1, 0.5, 0.5], np.float32)},
    )


@broken("resize", "Resize", mended=True)
def resize_that_keeps_the_aspect() -> onnx.ModelProto:
    """Resize that keeps the aspect ratio."""
    return model(
        [node("Resize", "x - - n", "y", "resize", axes=[2, 3], keep_aspect_ratio_policy="not_larger", mode="nearest")],
        {"x": (F, [1, 3, 16, 16])},
        {"y": (F, [1, 3, 8, 8])},
        {"n": ints(8, 9)},
    )


@broken("pool", "AveragePool")
def dilated_average() -> onnx.ModelProto:
    """AveragePool with dilations."""
    return model(
        [node("AveragePool", "x", "y", "pool", kernel_shape=[2, 2], dilations=[2, 2])],
        {"x": (F, [1, 3, 8, 8])},
        {"y": (F, [1, 3, 6, 6])},
    )


@broken("pool", "MaxPool")
def dilated_maximum() -> onnx.ModelProto:
    """MaxPool with dilations."""
    return model(
        [node("MaxPool", "x", "y", "pool", kernel_shape=[2, 2], dilations=[2, 2])],
        {"x": (F, [1, 3, 8, 8])},
        {"y": (F, [1, 3, 6, 6])},
    )


@broken("pool", "MaxPool")
def maximum_with_indices() -> onnx.ModelProto:
    """MaxPool whose indices are read."""
    return model(
        [node("MaxPool", "x", "y i", "pool", kernel_shape=[2, 2], strides=[2, 2])],
        {"x": (F, [1, 3, 8, 8])},
        {"y": (F, [1, 3, 4, 4]), "i": (I64, [1, 3, 4, 4])},
    )


@broken("pool", "MaxPool", mended=True)
def maximum_with_unread_indices() -> onnx.ModelProto:
    """MaxPool whose indices are named and never read."""
    return model(
        [node("MaxPool", "x", "y i", "pool", kernel_shape=[2, 2], strides=[2, 2])],
        {"x": (F, [1, 3, 8, 8])},
        {"y": (F, [1, 3, 4, 4])},
    )


@broken("pool", "LpPool")
def cubic_pool() -> onnx.ModelProto:
    """LpPool of the third power."""
    return model(
        [node("LpPool", "x", "y", "pool", kernel_shape=[2, 2], p=3)], {"x": (F, [1, 3, 8, 8])}, {"y": (F, [1, 3, 7, 7])}
    )


@broken("scatter", "ScatterND")
def adding_scatter() -> onnx.ModelProto:
    """ScatterND that adds."""
    return model(
        [node("ScatterND", "x i u", "y", "scatter", reduction="add")],
        {"x": (F, [4, 6]), "u": (F, [2, 6])},
        {"y": (F, [4, 6])},
        {"i": np.array([[0], [2]], np.int64)},
    )


@broken("scatter", "ScatterElements")
def multiplying_scatter() -> onnx.ModelProto:
    """ScatterElements that multiplies."""
    return model(
        [node("ScatterElements", "x i u", "y", "scatter", reduction="mul")],
        {"x": (F, [4, 6]), "u": (F, [1, 6])},
        {"y": (F, [4, 6])},
        {"i": np.zeros((1, 6), np.int64)},
    )


@broken("drop", "Dropout", mended=True)
def dropout_in_training() -> onnx.ModelProto:
    """Dropout exported in training mode."""
    return model(
        [node("Dropout", "x r t", "d", "drop"), node("Relu", "d", "y", "relu")],
        {"x": (F, [2, 6])},
        {"y": (F, [2, 6])},
        {"r": np.float32(0.5), "t": np.bool_(True)},
    )


@broken("norm", "BatchNormalization", mended=True)
def batch_norm_in_training() -> onnx.ModelProto:
    """BatchNormalization exported in training mode."""
    weights = {"g": floats(4), "b": floats(4), "m": floats(4), "v": np.abs(floats(4)) + 1}
    return model(
        [node("BatchNormalization", "x g b m v", "y rm rv", "norm", training_mode=1)],
        {"x": (F, [2, 4, 3, 3])},
        {"y": (F, [2, 4, 3, 3])},
        weights,
    )


@broken("norm", "LayerNormalization", mended=True)
def layer_norm_with_unread_outputs() -> onnx.ModelProto:
    """LayerNormalization whose mean and deviation are named and never read."""
    return model(
        [node("LayerNormalization", "x g b", "y m d", "norm", axis=-1)],
        {"x": (F, [2, 6])},
        {"y": (F, [2, 6])},
        {"g": floats(6), "b": floats(6)},
    )


@broken("reduce", "ReduceSum")
def axes_given_at_run_time() -> onnx.ModelProto:
    """Axes of a sum as an input of the model."""
    return model(
        [node("ReduceSum", "x a", "y", "reduce", keepdims=1)],
        {"x": (F, [2, 6]), "a": (I64, [1])},
        {"y": (F, ["m", "n"])},
    )


@broken("squeeze", "Squeeze")
def squeezed_at_run_time() -> onnx.ModelProto:
    """Axes of a Squeeze as an input of the model."""
    return model(
        [node("Squeeze", "x a", "y", "squeeze")], {"x": (F, [1, 2, 6]), "a": (I64, [1])}, {"y": (F, ["m", "n"])}
    )


@broken("attention", "Attention", mended=True)
def capped_attention() -> onnx.ModelProto:
    """Attention with a soft cap."""
    return model(
        [node("Attention", "q k v", "y", "attention", softcap=2.0)],
        {name: (F, [1, 2, 4, 8]) for name in "qkv"},
        {"y": (F, [1, 2, 4, 8])},
        opset=23,
    )


# Types ----------------------------------------------------------------------------------------------------------------


@broken("x", "input", mended=True)
def double_inputs() -> onnx.ModelProto:
    """Inputs and outputs in float64."""
    return model([node("Add", "x x", "y", "sum")], {"x": (D, [2, 6])}, {"y": (D, [2, 6])})


@broken("x", "input", mended=True)
def short_inputs() -> onnx.ModelProto:
    """Inputs in int16."""
    return model([node("Cast", "x", "y", "cast", to=F)], {"x": (I16, [2, 6])}, {"y": (F, [2, 6])})


@broken("sum", "Add", mended=True)
def unsigned_sum() -> onnx.ModelProto:
    """A sum in uint8."""
    return model([node("Add", "x x", "y", "sum")], {"x": (U8, [2, 6])}, {"y": (U8, [2, 6])})


@broken("pool", "MaxPool", mended=True)
def unsigned_pool() -> onnx.ModelProto:
    """MaxPool in uint8."""
    return model(
        [node("MaxPool", "x", "y", "pool", kernel_shape=[2, 2])], {"x": (U8, [1, 3, 8, 8])}, {"y": (U8, [1, 3, 7, 7])}
    )


@broken("largest", "ReduceMax", mended=True)
def largest_of_truths() -> onnx.ModelProto:
    """ReduceMax of booleans."""
    return model([node("ReduceMax", "x a", "y", "largest")], {"x": (B, [2, 6])}, {"y": (B, [2, 1])}, {"a": ints(1)})


@broken("sum", "Add", mended=True)
def types_that_do_not_meet() -> onnx.ModelProto:
    """A sum of FP16 and FP32."""
    nodes = [node("Cast", "x", "h", "cast", to=H), node("Add", "h x", "y", "sum")]
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 6])})


@broken("remainder", "Mod", mended=True)
def remainder_of_bytes() -> onnx.ModelProto:
    """Mod of int8."""
    return model([node("Mod", "x x", "y", "remainder")], {"x": (I8, [2, 6])}, {"y": (I8, [2, 6])})


@broken("product", "MatMul", mended=True)
def product_of_integers() -> onnx.ModelProto:
    """MatMul of int32."""
    return model(
        [node("MatMul", "x w", "y", "product")],
        {"x": (I32, [2, 6])},
        {"y": (I32, [2, 2])},
        {"w": np.ones((6, 2), np.int32)},
    )


# Graphs and shapes ----------------------------------------------------------------------------------------------------


@broken("relu", "Relu")
def tensor_from_nowhere() -> onnx.ModelProto:
    """A node reads a tensor that nothing makes."""
    return model([node("Relu", "nowhere", "y", "relu")], {"x": (F, [2, 6])}, {"y": (F, [2, 6])})


@broken("second", "Relu")
def one_name_twice() -> onnx.ModelProto:
    """Two nodes make a tensor of the same name."""
    nodes = [node("Relu", "x", "y", "first"), node("Relu", "x", "y", "second")]
    return model(nodes, {"x": (F, [2, 6])}, {"y": (F, [2, 6])})


@broken("flatten", "Reshape", profile={"x": ([1, 4, 4], [2, 4, 4], [8, 4, 4])}, mended=True)
def batch_written_into_a_shape() -> onnx.ModelProto:
    """A Reshape to [1, 16], traced with a batch of 1, in a model whose batch is free."""
    nodes = [node("Reshape", "x s", "f", "flatten"), node("Relu", "f", "y", "relu")]
    return model(nodes, {"x": (F, ["batch", 4, 4])}, {"y": (F, ["batch", 16])}, {"s": ints(1, 16)})


@broken("pool", "MaxPool", profile={"x": ([1, 3, 4, 4], [1, 3, 64, 64], [1, 3, 128, 128])})
def profile_below_the_window() -> onnx.ModelProto:
    """The smallest shape of the profile leaves nothing for a pool of 7."""
    return model(
        [node("MaxPool", "x", "y", "pool", kernel_shape=[7, 7])],
        {"x": (F, [1, 3, "h", "w"])},
        {"y": (F, [1, 3, "oh", "ow"])},
    )


@broken("join", "Concat", profile={"x": ([1, 4], [2, 4], [8, 4])})
def shapes_that_do_not_join() -> onnx.ModelProto:
    """A constant of two rows is joined to a batch that is free."""
    nodes = [node("Concat", "x c", "y", "join", axis=1)]
    return model(nodes, {"x": (F, ["batch", 4])}, {"y": (F, ["batch", 7])}, {"c": floats(2, 3)})


@broken("top", "TopK")
def largest_four_thousand() -> onnx.ModelProto:
    """TopK with a larger k than the builder takes."""
    return model(
        [node("TopK", "x k", "y i", "top")],
        {"x": (F, [1, 5000])},
        {"y": (F, [1, 4000]), "i": (I64, [1, 4000])},
        {"k": ints(4000)},
    )


@broken("relu", "Relu")
def nine_dimensions() -> onnx.ModelProto:
    """A tensor of nine dimensions."""
    return model([node("Relu", "x", "y", "relu")], {"x": (F, [1] * 9)}, {"y": (F, [1] * 9)})


@broken("grow", "Upsample")
def scales_given_at_run_time() -> onnx.ModelProto:
    """The scales of an Upsample as an input of the model."""
    return model(
        [node("Upsample", "x s", "y", "grow", mode="nearest")],
        {"x": (F, [1, 1, 4, 4]), "s": (F, [4])},
        {"y": (F, ["a", "b", "c", "d"])},
        opset=9,
    )


@broken("count", "Range")
def range_of_floats() -> onnx.ModelProto:
    """Range between floats that are inputs of the model."""
    return model([node("Range", "a b c", "y", "count")], {name: (F, []) for name in "abc"}, {"y": (F, ["n"])})
