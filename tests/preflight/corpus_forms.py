"""Attributes and forms of operators that TensorRT does not take."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from preflight.making import I64, F, broken, floats, ints, model, node


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


@broken("pool", "AveragePool", mended=True)
def average_over_more_than_the_image() -> onnx.ModelProto:
    """AveragePool whose window is larger than any image, rounded up."""
    return model(
        [node("AveragePool", "x", "y", "pool", kernel_shape=[400, 400], strides=[400, 400], ceil_mode=1)],
        {"x": (F, ["n", 3, 8, 8])},
        {"y": (F, ["n", 3, 1, 1])},
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
