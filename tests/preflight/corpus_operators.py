"""Operators that TensorRT does not have."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from preflight.making import I32, I64, U8, B, F, broken, floats, ints, model, node, unary


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


@broken("fold", "Col2Im", mended=True)
def folded_columns() -> onnx.ModelProto:
    """torch.nn.Fold of blocks that lie side by side."""
    weights = {"size": ints(5, 5), "block": ints(1, 5)}
    return model(
        [node("Col2Im", "x size block", "y", "fold", strides=[1, 5])],
        {"x": (F, ["n", 5, 5])},
        {"y": (F, ["n", 1, 5, 5])},
        weights,
    )


@broken("fold", "Col2Im", mended=True)
def overlapping_columns() -> onnx.ModelProto:
    """torch.nn.Fold that adds up what overlaps."""
    weights = {"size": ints(6, 7), "block": ints(2, 3)}
    return model(
        [node("Col2Im", "x size block", "y", "fold", strides=[1, 2], pads=[1, 0, 0, 1])],
        {"x": (F, ["n", 12, 18])},
        {"y": (F, ["n", 2, 6, 7])},
        weights,
    )


@broken("fold", "Col2Im")
def folded_to_a_size_that_is_an_input() -> onnx.ModelProto:
    """Col2Im whose image is as large as an input says."""
    return model(
        [node("Col2Im", "x size block", "y", "fold", strides=[2, 2])],
        {"x": (F, [1, 4, 9]), "size": (I64, [2])},
        {"y": (F, [1, 1, "h", "w"])},
        {"block": ints(2, 2)},
    )


@broken("spectrum", "DFT", mended=True)
def spectrum() -> onnx.ModelProto:
    """torch.fft.rfft."""
    return model([node("DFT", "x", "y", "spectrum", onesided=1)], {"x": (F, ["n", 12, 1])}, {"y": (F, ["n", 7, 2])})


@broken("spectrum", "DFT", mended=True)
def spectrum_of_complex_numbers() -> onnx.ModelProto:
    """torch.fft.ifft along another axis than the last."""
    return model(
        [node("DFT", "x", "y", "spectrum", axis=1, inverse=1)],
        {"x": (F, ["n", 12, 3, 2])},
        {"y": (F, ["n", 12, 3, 2])},
        opset=18,
    )


@broken("spectrum", "DFT")
def spectrum_along_an_axis_that_is_an_input() -> onnx.ModelProto:
    """DFT along an axis that is an input of the model."""
    return model([node("DFT", "x - a", "y", "spectrum")], {"x": (F, [4, 4, 1]), "a": (I64, [])}, {"y": (F, [4, 4, 2])})


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


@broken("found", "NonZero", mended=True)
def places_in_a_mask_that_is_always_true() -> onnx.ModelProto:
    """A mask as torch exports it where all of a batch is of one kind: constants spread to the size of the batch."""
    nodes = [
        node("Shape", "x", "s", "size", end=1),
        node("Expand", "one s", "ones", "spread"),
        node("Mul", "ones zero", "kinds", "kind"),
        node("Equal", "kinds zero", "mask", "same"),
        node("Unsqueeze", "mask last", "column", "stand"),
        node("Shape", "x", "sizes", "both"),
        node("Expand", "column sizes", "all", "widen"),
        node("NonZero", "all", "places", "found"),
        node("Transpose", "places", "rows", "turn", perm=[1, 0]),
        node("GatherND", "x rows", "y", "pick"),
    ]
    weights = {"one": np.float32(1), "zero": np.float32(0), "last": ints(1)}
    return model(nodes, {"x": (F, ["n", 6])}, {"y": (F, ["found"])}, weights)


@broken("regions", "RoiAlign")
def regions_of_interest() -> onnx.ModelProto:
    """RoiAlign, for which TensorRT has a plugin and TensorRT-RTX none."""
    return model(
        [node("RoiAlign", "x r b", "y", "regions", output_height=2, output_width=2)],
        {"x": (F, [1, 2, 8, 8]), "r": (F, [3, 4]), "b": (I64, [3])},
        {"y": (F, [3, 2, 2, 2])},
    )
