"""Element types, graphs and shapes that TensorRT does not take."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from preflight.making import I8, I16, I32, I64, U8, B, D, F, H, broken, floats, ints, model, node


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


@broken("scale", "Mul", mended=True)
def integers_of_two_widths() -> onnx.ModelProto:
    """int32 times a constant in int64."""
    nodes = [node("Cast", "x", "n", "cast", to=I32), node("Mul", "n k", "y", "scale")]
    return model(nodes, {"x": (F, [2, 6])}, {"y": (I32, [2, 6])}, {"k": ints(3)})


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


@broken("conv", "Conv")
def weights_left_behind() -> onnx.ModelProto:
    """A weight lies in a file that was not brought along."""
    weight = TensorProto(name="w", data_type=F, dims=[8, 4, 3, 3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="elsewhere.bin")
    return model([node("Conv", "x w", "y", "conv")], {"x": (F, [1, 4, 8, 8])}, {"y": (F, [1, 8, 6, 6])}, {"w": weight})


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
