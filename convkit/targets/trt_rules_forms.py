"""Forms of operators that TensorRT has, but not in this form. What it takes was measured; see trt_operators.json."""

from __future__ import annotations

import math
from typing import Any

from convkit.graph.facts import Facts, Placed
from convkit.graph.mend_forms import covers_the_image
from convkit.targets.finding import Weight
from convkit.targets.trt_operators import operator_table
from convkit.targets.trt_rules import Rule, Wrong, all_constant, is_onnx

LARGEST_K = 3840
"""TopK's, in TensorRT-RTX 1.7.1 and TensorRT 10: the builder refuses a larger one."""
LARGEST_WINDOW = 100_000
"""Elements of a pool's window over an image: a window of 317 by 317 is refused."""
MOST_DIMS = 8
"""Dimensions of a tensor: Dims::MAX_DIMS of the API."""
OLDEST_OPSET = 7
"""TensorRT's parser warns of an older one."""


def _attribute(name: str, taken: tuple[Any, ...], reason: str) -> Wrong:
    """Refuse an attribute with another value than these; an attribute that is left out has the first."""

    def wrong(node: Placed, _: Facts) -> str | None:
        value = node.attribute(name, taken[0])
        return reason.format(value=value) if is_onnx(node) and value not in taken else None

    return wrong


def _dilated(node: Placed, _: Facts) -> str | None:
    dilations = node.attribute("dilations", [])
    return f"it has dilations {list(dilations)}: TensorRT's pools have none" if any(d != 1 for d in dilations) else None


def _large_window(node: Placed, facts: Facts) -> str | None:
    window = node.attribute("kernel_shape", [])
    if len(window) != 2 or math.prod(window) < LARGEST_WINDOW or not covers_the_image(node, facts):
        return None
    return f"its window of {window[0]} by {window[1]} is larger than the image, and than TensorRT's largest"


def _outputs_beyond(most: int, what: str, *, read: bool) -> Wrong:
    """Refuse outputs beyond the first ones: those that something reads, or those that nothing does."""

    def wrong(node: Placed, facts: Facts) -> str | None:
        beyond = [name for name in list(node.proto.output)[most:] if name]
        if not beyond or any(facts.is_read(name) for name in beyond) is not read:
            return None
        return f"TensorRT gives no {what}" + ("" if read else ", and nothing reads them here")

    return wrong


def _drops(node: Placed, facts: Facts) -> str | None:
    name = node.input(2)
    if not name:
        return None
    value = facts.value(name)
    if value is not None and not bool(value.any()):
        return None
    return (
        "it drops values at random, as in training" if value is not None else "whether it drops is decided at run time"
    )


def _computed_inputs(node: Placed, facts: Facts) -> str | None:
    entry = operator_table().operators.get(node.operator) if is_onnx(node) else None
    for index in entry.constants if entry is not None else ():
        name = node.input(index)
        if name and not facts.is_constant(name) and not _resized_by_sizes(node, index):
            return f"'{name}' decides about shapes, and depends on the inputs: it must be a constant"
    return None


def _resized_by_sizes(node: Placed, index: int) -> bool:
    return node.operator == "Resize" and (index != 2 or not node.input(2))


def _resized_by_input(node: Placed, facts: Facts) -> str | None:
    name = node.input(2) if node.operator == "Resize" else node.input(1)
    kind = facts.type_name(name)
    if not name or facts.is_constant(name) or kind != "float":
        return None
    return f"the scales '{name}' depend on the inputs: it must be known how much is resized"


def _causal_mask(node: Placed, _: Facts) -> str | None:
    return (
        "TensorRT's attention is causal or has a mask, not both"
        if node.attribute("is_causal", 0) and node.input(3)
        else None
    )


def _fractional(node: Placed, facts: Facts) -> str | None:
    kind = facts.type_name(node.input(0))
    floats = kind in ("float", "float16", "bfloat16", "double")
    return f"the remainder of {kind} wants fmod=1" if floats and not node.attribute("fmod", 0) else None


def _depth_in_float(node: Placed, facts: Facts) -> str | None:
    kind = facts.type_name(node.input(1))
    if kind in ("int32", "int64", "") or facts.is_constant(node.input(1)):
        return None
    return f"its depth is {kind} and depends on the inputs; TensorRT wants int32 or int64"


def _large_k(node: Placed, facts: Facts) -> str | None:
    value = facts.value(node.input(1))
    k = int(value.reshape(-1)[0]) if value is not None and value.size else node.attribute("k", 0)
    return f"it wants the largest {k}, TensorRT gives {LARGEST_K} at most" if k > LARGEST_K else None


def _many_dims(node: Placed, facts: Facts) -> str | None:
    for name in (*node.proto.input, *node.proto.output):
        if name and len(facts.dims.get(name, ())) > MOST_DIMS:
            return f"'{name}' has {len(facts.dims[name])} dimensions; a tensor of TensorRT's has {MOST_DIMS} at most"
    return None


def _odd_heads(node: Placed, facts: Facts) -> str | None:
    key, value = (facts.dims.get(node.input(index)) for index in (1, 2))
    if key is None or value is None or len(key) != 4 or len(value) != 4:
        return None
    sizes = key[3], value[3]
    differ = all(isinstance(size, int) for size in sizes) and sizes[0] != sizes[1]
    return f"keys have {sizes[0]} numbers and values {sizes[1]}: TensorRT wants them alike" if differ else None


def _gone_constant(node: Placed, facts: Facts) -> str | None:
    names = [name for name in node.proto.input if name]
    if node.operator != "Range" or not names or all_constant(node, facts):
        return None
    kind = facts.type_name(names[0])
    if kind not in ("float", "float16", "bfloat16", "double"):
        return None
    return f"its {kind} limits depend on the inputs: TensorRT wants whole numbers there"


_EXPORT = "in the model's code, and export again"

FORMS = (
    Rule(
        "training-mode",
        "BatchNormalization",
        _attribute("training_mode", (0,), "it computes its mean and variance from the batch, as in training"),
        "export after model.eval()",
        mend="inference-mode",
    ),
    Rule("training-mode", "Dropout", _drops, "export after model.eval()", mend="inference-mode"),
    Rule(
        "dilated-pool",
        "AveragePool|MaxPool|LpPool",
        _dilated,
        f"use a convolution, or a pool without dilations, {_EXPORT}",
    ),
    Rule(
        "pool-window",
        "AveragePool",
        _large_window,
        "write it as an average over the whole image: convkit convert does so by itself",
        mend="whole-image",
    ),
    Rule(
        "resize-antialias",
        "Resize",
        _attribute("antialias", (0,), "TensorRT has no antialiasing"),
        f"resize with antialias=False {_EXPORT}; or resize outside the model",
        mend="resize",
    ),
    Rule(
        "resize-mode",
        "Resize",
        _attribute(
            "coordinate_transformation_mode",
            ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"),
            "TensorRT has no coordinates of the kind {value}",
        ),
        f"crop with Slice, and resize with half_pixel, {_EXPORT}",
        mend="resize",
    ),
    Rule(
        "resize-aspect",
        "Resize",
        _attribute("keep_aspect_ratio_policy", ("stretch",), "TensorRT does not keep the aspect ratio ({value})"),
        f"compute the size that keeps it, and resize to that, {_EXPORT}",
        mend="resize",
    ),
    Rule("resize-scales", "Resize|Upsample", _resized_by_input, f"resize to fixed scales, or to sizes, {_EXPORT}"),
    Rule(
        "pool-power",
        "LpPool",
        _attribute("p", (2, 1), "it is of the power {value}; TensorRT has 1 and 2"),
        f"use p=1 or p=2, or raise to the power around an AveragePool, {_EXPORT}",
    ),
    Rule(
        "scatter-reduction",
        "ScatterND",
        _attribute("reduction", ("none",), "TensorRT does not scatter with '{value}'"),
        f"use ScatterElements, or a product with a one-hot matrix, {_EXPORT}",
    ),
    Rule(
        "scatter-reduction",
        "ScatterElements",
        _attribute("reduction", ("none",), "TensorRT does not scatter with '{value}'"),
        f"use another reduction {_EXPORT}",
    ),
    Rule(
        "attention-softcap",
        "Attention",
        _attribute("softcap", (0.0,), "TensorRT's attention has no soft cap ({value})"),
        "write the attention out in simpler operators",
        mend="expand",
    ),
    Rule(
        "attention-precision",
        "Attention",
        _attribute("softmax_precision", (None,), "TensorRT's attention has no softmax_precision"),
        "write the attention out in simpler operators",
        mend="expand",
    ),
    Rule("attention-heads", "Attention", _odd_heads, "write the attention out in simpler operators", mend="expand"),
    Rule("attention-mask", "Attention", _causal_mask, "write the attention out in simpler operators", mend="expand"),
    Rule(
        "attention-outputs",
        "Attention",
        _outputs_beyond(1, "outputs of Attention besides the first", read=True),
        "write the attention out in simpler operators",
        mend="expand",
    ),
    Rule(
        "unread-outputs",
        "MaxPool|BatchNormalization|LayerNormalization|Attention",
        _outputs_beyond(1, "outputs besides the first", read=False),
        "leave them out",
        mend="unread-outputs",
    ),
    Rule(
        "pool-indices",
        "MaxPool",
        _outputs_beyond(1, "indices of a MaxPool", read=True),
        f"do without return_indices (MaxUnpool is not there either) {_EXPORT}",
    ),
    Rule(
        "norm-outputs",
        "BatchNormalization",
        _outputs_beyond(1, "running mean and variance", read=True),
        "export after model.eval()",
    ),
    Rule(
        "norm-outputs",
        "LayerNormalization",
        _outputs_beyond(1, "mean and deviation of a LayerNormalization", read=True),
        "write the normalization out in simpler operators",
        mend="expand",
    ),
    Rule("float-remainder", "Mod", _fractional, f"use fmod {_EXPORT}"),
    Rule("one-hot-in-float", "OneHot", _depth_in_float, f"cast it to int64 {_EXPORT}"),
    Rule(
        "scatter-mode",
        "TensorScatter",
        _attribute("mode", ("linear",), "TensorRT does not write in a circle"),
        f"use linear mode {_EXPORT}",
    ),
    Rule(
        "computed-axes",
        ".*",
        _computed_inputs,
        f"make it a constant {_EXPORT}; --fix folds what is computed of weights",
    ),
    Rule("range-of-floats", "Range", _gone_constant, f"count in whole numbers and scale afterwards, {_EXPORT}"),
    Rule(
        "large-k",
        "TopK",
        _large_k,
        f"ask for {LARGEST_K} at most {_EXPORT}, or sort in the client",
        beyond_parser=True,
    ),
    Rule("many-dimensions", ".*", _many_dims, f"join dimensions with Reshape {_EXPORT}"),
    Rule(
        "deprecated",
        "Upsample",
        lambda _node, _facts: "it went out of ONNX with opset 10",
        "write it as Resize",
        mend="opset",
        severity=Weight.NOTE,
    ),
)
"""One row for each form, found by trying it."""
