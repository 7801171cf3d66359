"""Col2Im by other operators: the numbers of ONNX Runtime's, in forms that TensorRT-RTX's parser takes."""

from __future__ import annotations

import math
import random

import numpy as np
import onnx
import pytest
from preflight.making import F, ints, model, node

from convkit.graph.mend_col2im import fold_by_others
from convkit.graph.model import save_model
from convkit.sources.hand_on import face_of
from convkit.spec.options import ExportOptions
from convkit.targets.trt_parse import parse_rtx

RANDOM_CASES = 40


def folding(
    image: list[int], block: list[int], channels: int, **attributes: list[int]
) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A model of one Col2Im with a free batch, and the shape that its input has for two."""
    spatial = len(image)
    pads = attributes.get("pads", [0] * 2 * spatial)
    strides, dilations = (attributes.get(name, [1] * spatial) for name in ("strides", "dilations"))
    grid = [
        (image[i] + pads[i] + pads[spatial + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(spatial)
    ]
    rows, columns = channels * math.prod(block), math.prod(grid)
    proto = model(
        [node("Col2Im", "x image block", "y", "fold", **attributes)],
        {"x": (F, ["n", rows, columns])},
        {"y": (F, ["n", channels, *image])},
        {"image": ints(*image), "block": ints(*block)},
        opset=18,
    )
    return proto, (2, rows, columns)


def run(proto: onnx.ModelProto, columns: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": columns})
    return np.asarray(found)


def mended(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    changed = fold_by_others(copy, frozenset({"fold"}))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def random_case(seed: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    draw = random.Random(seed)
    block = [draw.randint(1, 3) for _ in range(2)]
    if draw.random() < 0.4:
        image = [draw.randint(1, 4) * size for size in block]
        return folding(image, block, draw.randint(1, 3), strides=list(block))
    image = [draw.randint(7, 10) for _ in range(2)]
    attributes = {
        "strides": [draw.randint(1, 3) for _ in range(2)],
        "dilations": [draw.randint(1, 2) for _ in range(2)],
    }
    return folding(image, block, draw.randint(1, 3), pads=[draw.randint(0, 1) for _ in range(4)], **attributes)


def test_random_foldings_have_the_numbers_of_onnxruntime() -> None:
    for seed in range(RANDOM_CASES):
        proto, shape = random_case(seed)
        columns = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

        np.testing.assert_allclose(run(mended(proto), columns), run(proto, columns), atol=1e-5, err_msg=str(seed))


def test_blocks_side_by_side_are_moved_and_not_multiplied() -> None:
    proto, _ = folding([4, 6], [2, 3], 2, strides=[2, 3])

    assert [each.op_type for each in mended(proto).graph.node] == ["Reshape", "Transpose", "Reshape"]


@pytest.mark.parametrize(
    ("image", "block", "attributes"),
    [
        ([4, 6], [2, 3], {"strides": [2, 3]}),
        ([4, 6, 4], [2, 3, 2], {"strides": [2, 3, 2]}),
        ([6, 7], [2, 3], {}),
        ([6, 7], [2, 3], {"strides": [2, 2], "pads": [1, 0, 0, 1], "dilations": [2, 1]}),
        ([8, 9], [2, 2], {"strides": [3, 3]}),
    ],
    ids=["side by side", "volumes", "overlapping", "padded", "with gaps"],
)
def test_tensorrt_rtx_takes_what_becomes_of_it(
    image: list[int], block: list[int], attributes: dict[str, list[int]]
) -> None:
    proto, _ = folding(image, block, 2, **attributes)
    changed = mended(proto)

    assert "dilations" not in {attribute.name for each in changed.graph.node for attribute in each.attribute}
    assert not parse_rtx(save_model(changed, face_of(changed, None, ExportOptions()).interface)).findings


def test_a_folding_into_an_image_of_unknown_size_stays() -> None:
    proto = model(
        [node("Col2Im", "x image block", "y", "fold")],
        {"x": (F, [1, 4, 9]), "image": (onnx.TensorProto.INT64, [2])},
        {"y": (F, [1, 1, "h", "w"])},
        {"block": ints(2, 2)},
        opset=18,
    )
    before = proto.SerializeToString()

    assert fold_by_others(proto, frozenset({"fold"})).SerializeToString() == before
