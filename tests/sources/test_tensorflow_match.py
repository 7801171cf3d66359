"""Every name in a config.txt finds its tensor in the SavedModel, or the error shows what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.errors import MetadataError
from convkit.spec.metadata import TensorMetadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import DType
from sources.saved_models import (
    KERAS,
    assert_equal_in_onnxruntime,
    config,
    described,
    export,
    tensor,
)
from sources.tensorflow_models import dropout_graph, write_function, write_graph


def test_names_of_another_export_are_matched_by_layer_and_by_order_and_said() -> None:
    metadata = config([tensor("input_1:0", [-1, 8, 8, 1])], [tensor("dense_1/Softmax:0", [-1, 10])])

    exported = export(KERAS, metadata)

    assert described(exported) == (
        ["input_1:0 float32[batch, 8, 8, 1]"],
        ["dense_1/Softmax:0 float32[batch, 10]"],
    )
    by_order, by_layer = exported.matched
    assert by_order.startswith("input 'input_1:0' was matched to serving_default_image:0 ('image') by order")
    assert "('probs') by the layer functional_1/dense_1" in by_layer
    assert_equal_in_onnxruntime(exported)


def test_what_one_name_leaves_is_matched_by_order(two_by_two: Path) -> None:
    metadata = config(
        [tensor("mask", [-1, -1]), tensor("input_word_ids:0", [-1, -1], DType.INT32)],
        [tensor("Identity:0", [-1, 4]), tensor("Identity_1:0", [-1, -1, 3])],
    )

    exported = export(two_by_two, metadata, ExportOptions(signature="score"))

    assert [sentence.split(" was")[0] for sentence in exported.matched] == [
        "input 'input_word_ids:0'",
        "output 'Identity:0'",
        "output 'Identity_1:0'",
    ]
    assert_equal_in_onnxruntime(exported)


def test_one_tensor_can_be_two_outputs_by_its_name_and_by_its_key(tmp_path: Path) -> None:
    folder = write_graph(tmp_path / "model", dropout_graph)

    exported = export(
        folder, config([tensor("x", [-1, 4])], [tensor("head/probs:0", [-1, 3]), tensor("scores", [-1, 3])])
    )

    assert exported.matched == ()
    assert_equal_in_onnxruntime(exported)


def test_a_name_that_fits_nothing_shows_what_the_signature_has() -> None:
    metadata = config([tensor("image", [-1, 8, 8, 1])], [tensor("logits", [-1, 11])])

    with pytest.raises(MetadataError) as caught:
        export(KERAS, metadata)

    assert "output 'logits'" in caught.value.message
    assert "probs (StatefulPartitionedCall_1:0) float32[-1, 10]" in caught.value.message


def test_an_input_of_the_signature_cannot_be_left_out(two_by_two: Path) -> None:
    metadata = config([tensor("ids", [-1, -1], DType.INT32)], [tensor("pooled", [-1, 4])])

    with pytest.raises(MetadataError, match=r"leaves out.*mask \(score_mask:0\) float32\[-1, -1\]"):
        export(two_by_two, metadata, ExportOptions(signature="score"))


def test_two_names_for_one_input_are_refused(tf1_folder: Path) -> None:
    inputs = [tensor("input_1:0", [-1, 16, 16, 3]), tensor("input_1", [-1, 16, 16, 3])]

    with pytest.raises(MetadataError, match="are one tensor, input_1:0"):
        export(tf1_folder, config(inputs, [tensor("probs", [-1, 19])]))


@pytest.mark.parametrize(
    ("image", "probs", "batch_size", "code"),
    [
        (tensor("image", [-1, 8, 8, 1], DType.UINT8), tensor("probs", [-1, 10]), 0, "metadata.type-mismatch"),
        (tensor("image", [-1, 64]), tensor("probs", [-1, 10]), 0, "metadata.rank-mismatch"),
        (tensor("image", [-1, 8, 8, 1]), tensor("probs", [-1, 11]), 0, "metadata.dims-mismatch"),
        (tensor("image", [-1, 8, 8, 1]), tensor("probs", [1, 10]), 0, "metadata.dims-mismatch"),
    ],
    ids=["type", "rank", "number", "batch of the output alone"],
)
def test_a_named_tensor_that_is_another_kind_is_refused(
    image: TensorMetadata, probs: TensorMetadata, batch_size: int, code: str
) -> None:
    with pytest.raises(MetadataError) as caught:
        export(KERAS, config([image], [probs], batch_size))

    assert caught.value.code == code


def test_a_batch_that_should_be_free_but_is_fixed_is_refused(tmp_path: Path) -> None:
    folder = write_function(tmp_path / "model", "fixed_batch")

    with pytest.raises(MetadataError, match=r"to be free, the model has it fixed at 2"):
        export(folder, config([tensor("x", [-1, 4], DType.UINT8)], [tensor("y", [-1, 4])], batch_size=4))
