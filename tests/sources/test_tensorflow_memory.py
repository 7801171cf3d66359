"""Large weights stay out of TensorFlow's passes, and come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import numpy_helper

from convkit.errors import StepError
from convkit.sources import tensorflow_freeze, tensorflow_onnx
from convkit.sources.tensorflow_model import SavedModel

from .saved_models import assert_equal_in_onnxruntime, export

SIDE = 256


class Large(tf.Module):
    """Large and small weights, one of them read in a loop, and a large constant."""

    def __init__(self) -> None:
        super().__init__()
        draw = np.random.default_rng(1).standard_normal
        self.table = tf.Variable(draw((300, SIDE)).astype(np.float32))
        self.kernel = tf.Variable(draw((SIDE, SIDE)).astype(np.float32) / SIDE)
        self.filters = tf.Variable(draw((3, 3, 64, 64)).astype(np.float32) / 64)
        self.bias = tf.Variable(draw(SIDE).astype(np.float32))
        self.fixed = draw((SIDE, SIDE)).astype(np.float32) / SIDE

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.int32, "ids")])
    def score(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = tf.reduce_sum(tf.gather(self.table, tf.abs(ids) % 300), axis=1)
        for _ in tf.range(2):
            hidden = tf.tanh(hidden @ self.kernel + self.bias)
        image = tf.reshape(hidden, [-1, 2, 2, 64])
        image = tf.nn.conv2d(image, self.filters, 1, "SAME") * 0.5
        return {"y": tf.reshape(image, [-1, SIDE]) @ tf.constant(self.fixed)}


def written(folder: Path) -> Path:
    module = Large()
    tf.saved_model.save(module, str(folder), signatures=module.score)
    return folder


def test_large_weights_come_back_as_they_were_wherever_they_are_read(tmp_path: Path) -> None:
    exported = export(written(tmp_path / "large"))

    assert_equal_in_onnxruntime(exported)
    weights = [numpy_helper.to_array(each) for each in onnx.load(exported.model.path).graph.initializer]
    assert any(array.shape == (300, SIDE) for array in weights)


def test_tensorflows_passes_see_no_large_weight(tmp_path: Path) -> None:
    saved = SavedModel(written(tmp_path / "large"), None)
    (given,) = saved.inputs
    (got,) = saved.outputs

    graph_def, weights, _ = tensorflow_freeze.frozen(saved, [given.tensor], [got.tensor])

    assert sorted(weights.shapes.values()) == [(3, 3, 64, 64), (SIDE, SIDE), (300, SIDE)]
    assert all(len(weights[name]) >= tensorflow_freeze.LARGE for name in weights)
    in_main = sum(len(node.attr["value"].tensor.tensor_content) for node in graph_def.node)
    assert in_main < tensorflow_freeze.LARGE


def test_a_frozen_model_with_and_without_large_weights_taken_out_is_one_file(tmp_path: Path, monkeypatch) -> None:
    folder = written(tmp_path / "large")
    light = export(folder)
    for module in (tensorflow_freeze, tensorflow_onnx):
        monkeypatch.setattr(module, "LARGE", 1 << 40)
    whole = export(folder)

    light_nodes, whole_nodes = (
        [node.op_type for node in onnx.load(each.model.path).graph.node] for each in (light, whole)
    )
    assert len(light_nodes) <= len(whole_nodes) + 1, (light_nodes, whole_nodes)
    assert_equal_in_onnxruntime(whole)


def test_weights_that_together_exceed_what_a_message_holds_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone is within it; 2.4 GB were converted by hand."""
    monkeypatch.setattr(tensorflow_freeze, "_MOST_BYTES", 300 * SIDE * 4)

    assert_equal_in_onnxruntime(export(written(tmp_path / "large")))


def test_a_single_weight_that_exceeds_what_a_message_holds_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorflow_freeze, "_MOST_BYTES", 300 * SIDE * 4 - 1)

    with pytest.raises(StepError, match=r"the weight '\S+' takes 0\.0 GB") as caught:
        export(written(tmp_path / "large"))

    assert caught.value.code == "export.too-large"
