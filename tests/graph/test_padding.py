"""Zeros in front of a MaxPool, as they come from an exporter: no optimizer takes them for the pool's own padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from preflight.making import F, H, ints, model, node

from convkit.graph.model import save_model
from convkit.graph.padding import keep_zeros
from convkit.graph.simplify import simplify
from convkit.sources.hand_on import face_of
from convkit.spec.options import ExportOptions, SimplifyOptions
from convkit.targets.trt_parse import parse_rtx


def padded(
    *before: onnx.NodeProto, kind: int = F, value: float | None = 0.0, mode: str = "constant"
) -> onnx.ModelProto:
    """A Pad of an image by 1 at its end, and a MaxPool; `before` makes ``a`` of ``x``."""
    weights = {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1)}
    if value is not None:
        weights["value"] = np.array(value, np.float16 if kind == H else np.float32)
    nodes = [
        *before,
        node(
            "Pad", ("a" if before else "x") + " pads" + (" value" if value is not None else ""), "p", "pad", mode=mode
        ),
        node("MaxPool", "p", "y", "pool", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    return model(nodes, {"x": (kind, ["n", 2, 8, 8])}, {"y": (kind, ["n", 2, 4, 4])}, weights)


def run(content: str | bytes, image: np.ndarray) -> np.ndarray:
    import onnxruntime

    (found,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": image})
    return np.asarray(found)


@pytest.mark.parametrize("value", [0.0, None])
def test_the_zeros_count_after_every_optimizer(value: float | None) -> None:
    proto = keep_zeros(padded(value=value))
    held = save_model(proto, face_of(proto, None, ExportOptions()).interface)
    simple = simplify(held, chain=SimplifyOptions().chain).model
    image = -1 - np.random.default_rng(0).random((2, 2, 8, 8), np.float32)

    for each in (held, simple):
        found = run(str(each.path), image)
        assert (np.abs(found[:, :, 0]) < 1e-6).all()
        assert (found[:, :, 1:, 1:] < -0.5).all()
    assert not parse_rtx(simple).findings


def test_half_precision_has_a_number_of_its_own() -> None:
    changed = keep_zeros(padded(kind=H))
    image = np.full((1, 2, 8, 8), -1, np.float16)

    assert (np.abs(run(changed.SerializeToString(), image)[:, :, 0]) < 1e-6).all()


@pytest.mark.parametrize(
    "proto",
    [padded(node("Relu", "x", "a", "relu")), padded(value=-1.0), padded(mode="reflect")],
    ids=["what is never negative", "another number", "reflected"],
)
def test_other_paddings_stay(proto: onnx.ModelProto) -> None:
    before = proto.SerializeToString()

    assert keep_zeros(proto).SerializeToString() == before
