"""What TensorFlow and Keras leave on a disk besides SavedModels with one signature, and images turned for callers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from convkit.errors import ConvkitError, InputError, StepError, TrustError, UsageError
from convkit.sources.exported import Exported
from convkit.sources.find import find_model
from convkit.sources.open import open_source
from convkit.spec.metadata import read_metadata
from convkit.spec.options import ExportOptions, TensorLayout
from sources.onnx_files import model, write
from sources.saved_models import assert_equal_in_onnxruntime, described
from sources.tensorflow_models import TwoByTwo

tf1 = tf.compat.v1
TRUST = ("yes",)


def run(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a step as a plain function."""
    return step(*args, **kwargs)


def converted(path: Path, trust: tuple[str, ...] = (), **options: Any) -> Exported:
    found = find_model(path)
    metadata = read_metadata(Path(found.config)) if found.config else None
    source = open_source(found, metadata, ExportOptions(**options), trust, "convkit convert")
    made: Exported = source.export(run, samples=None, max_opset=21)
    assert_equal_in_onnxruntime(made, len(made.samples))
    return made


def refused(path: Path, kind: type[ConvkitError] = InputError, **options: Any) -> ConvkitError:
    with pytest.raises(kind) as caught:
        converted(path, **options)
    return caught.value


def write_config(folder: Path, **sides: list[tuple[str, list[int]]]) -> None:
    tensors = {
        side: [{"name": name, "node_name": name, "data_type": "float", "dims": dims} for name, dims in listed]
        for side, listed in sides.items()
    }
    (folder / "config.txt").write_text(json.dumps({"batch_size": 0, **tensors}), encoding="utf-8")


# Functions without a signature


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unsigned") / "model"
    tf.saved_model.save(TwoByTwo(), str(folder))
    return folder


def test_of_several_functions_without_a_signature_one_is_chosen_by_its_name(unsigned: Path) -> None:
    error = refused(unsigned)
    assert "several functions: 'project', 'score'" in error.message
    assert "--signature project" in error.hint

    made = converted(unsigned, signature="score")
    inputs, outputs = described(made)
    assert [name.split()[0] for name in inputs] == ["ids", "mask"]
    assert [name.split()[0] for name in outputs] == ["pooled", "tokens"]


def test_a_function_that_is_not_there_is_refused_with_those_that_are(unsigned: Path) -> None:
    assert "no function 'predict'; it has: 'project', 'score'" in refused(unsigned, signature="predict").message


def test_the_call_of_a_module_without_a_signature_is_taken_and_a_tuple_gets_names(tmp_path: Path) -> None:
    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
        def __call__(self, x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
            return x + 1.0, [x * 2.0]

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
        def other(self, x: tf.Tensor) -> tf.Tensor:
            return x

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
        def third(self, x: tf.Tensor) -> tf.Tensor:  # of two functions TensorFlow signs none by itself
            return x

    tf.saved_model.save(Net(), str(tmp_path / "model"))

    assert described(converted(tmp_path / "model")) == (
        ["x float32[batch, 4]"],
        ["output_0 float32[batch, 4]", "output_1 float32[batch, 4]"],
    )


def test_a_function_that_was_never_called_is_told_from_one_that_can_be(tmp_path: Path) -> None:
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "model"))

    assert "no function" in refused(tmp_path / "model").message


# Keras


def small_network() -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    return keras.Model(image, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(hidden)))


@pytest.mark.parametrize("file", ["net.keras", "net.h5"])
def test_a_keras_file_needs_neither_config_txt_nor_trust(file: str, tmp_path: Path) -> None:
    small_network().save(tmp_path / file)

    made = converted(tmp_path / file)
    assert described(made) == (["image float32[batch, 8, 8, 3]"], ["output_0 float32[batch, 2]"])
    assert made.parameters == 4 * 28 + 10


@pytest.mark.parametrize("file", ["net.keras", "net.h5"])
def test_a_lambda_layer_runs_only_under_trust(file: str, tmp_path: Path) -> None:
    image = keras.Input((4,), name="x")
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2.0, name="double")(image)).save(tmp_path / file)

    error = refused(tmp_path / file, TrustError)
    assert "a Lambda layer 'double'" in error.message
    assert "--trust" in error.hint
    made = converted(tmp_path / file, trust=TRUST)
    (sample,), (reference,) = list(made.samples)[:1], list(made.references)[:1]
    np.testing.assert_allclose(reference["output_0"], sample["x"] * 2.0, rtol=1e-6)


LAYER = """
import keras


@keras.saving.register_keras_serializable("mine")
class Tripled(keras.layers.Layer):
    def call(self, x):
        return x * 3.0
"""


def test_a_class_of_the_users_is_taken_from_model_py_beside_the_file_under_trust(tmp_path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "training"}
    exec(LAYER, scope)
    image = keras.Input((4,), name="x")
    keras.Model(image, scope["Tripled"]()(image)).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().clear()
    (tmp_path / "model.py").write_text(LAYER, encoding="utf-8")

    error = refused(tmp_path / "model.keras", TrustError)
    assert "the class Tripled" in error.message
    assert "model.py runs code" in error.message
    made = converted(tmp_path / "model.keras", trust=TRUST)
    np.testing.assert_allclose(next(iter(made.references))["output_0"], next(iter(made.samples))["x"] * 3.0, rtol=1e-6)
    assert not (tmp_path / "__pycache__").exists()


def test_weights_alone_and_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    small_network().save_weights(tmp_path / "net.weights.h5")
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 nothing")

    assert refused(tmp_path / "net.weights.h5").code == "source.no-definition"
    assert refused(tmp_path / "broken.keras").code == "source.unreadable"


# Frozen graphs


def write_frozen(folder: Path, *, reads: bool = False) -> Path:
    with tf1.Graph().as_default() as graph:
        x = tf1.placeholder(tf1.float32, [None, 4], name="x")
        kernel = tf1.constant(np.random.default_rng(0).standard_normal((4, 256 * 128)).astype(np.float32))
        hidden = tf1.nn.relu(tf1.matmul(x, kernel), name="hidden")
        tf1.reduce_sum(hidden, axis=1, name="total")
        if reads:
            tf1.read_file(tf1.constant("/etc/hostname"), name="read")
        folder.mkdir(exist_ok=True)
        (folder / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "net.pb"


def test_a_frozen_graph_takes_its_ends_from_config_txt(tmp_path: Path) -> None:
    file = write_frozen(tmp_path / "net")
    error = refused(file)
    assert error.code == "source.no-signature"
    assert "x (x:0) float32[-1, 4]" in error.hint
    assert "nothing reads: total (total:0) float32[-1]" in error.hint

    write_config(file.parent, input=[("x:0", [-1, 4])], output=[("total", [-1]), ("hidden:0", [-1, 256 * 128])])
    made = converted(file.parent)
    assert described(made)[1] == ["total float32[batch]", "hidden:0 float32[batch, 32768]"]
    assert made.parameters == 4 * 256 * 128


def test_a_frozen_graph_that_reads_files_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pb").write_bytes(b"node { name: 'x' }")
    (tmp_path / "saved.pb").write_bytes(b"\x08\x01")

    assert "ReadFile" in refused(write_frozen(tmp_path / "net", reads=True)).message
    assert "is no frozen graph" in refused(tmp_path / "text.pb").message
    assert "call it saved_model.pb" in refused(tmp_path / "saved.pb").hint
    assert "no signatures" in refused(write_frozen(tmp_path / "net"), signature="serve").message


# What ONNX has no counterpart for


def test_string_operators_and_tables_that_change_are_refused_by_name(tmp_path: Path) -> None:
    class Texts(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def replace(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.strings.regex_replace(text, "a+", "b")}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def look_up(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": self.table.lookup(text)}

    module = Texts()
    signatures = {"replace": module.replace, "look_up": module.look_up}
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)

    assert "RegexReplace" in refused(tmp_path / "model", StepError, signature="replace").message
    assert "MutableHashTable" in refused(tmp_path / "model", StepError, signature="look_up").message


# Layout


def write_pixels(folder: Path) -> Path:
    class Pixels(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 6, 3], tf.float32, "image")])
        def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            kernel = tf.constant(np.random.default_rng(0).standard_normal((3, 3, 3, 2)).astype(np.float32))
            mask = tf.nn.conv2d(image, kernel, 1, "SAME")
            return {"mask": mask, "mean": tf.reduce_mean(mask, axis=[1, 2])}

    module = Pixels()
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.__call__)
    return folder


def test_images_are_turned_where_asked_for_with_and_without_config_txt(tmp_path: Path) -> None:
    folder = write_pixels(tmp_path)
    kept = described(converted(folder))
    turned = described(converted(folder, layout=TensorLayout.NCHW))
    write_config(folder, input=[("image", [-1, 8, 6, 3])], output=[("mask", [-1, 8, 6, 2]), ("mean", [-1, 2])])
    told = converted(folder, layout=TensorLayout.NCHW)

    assert kept == (["image float32[batch, 8, 6, 3]"], ["mask float32[batch, 8, 6, 2]", "mean float32[batch, 2]"])
    assert turned == (["image float32[batch, 3, 8, 6]"], ["mask float32[batch, 2, 8, 6]", "mean float32[batch, 2]"])
    assert described(told) == turned


def test_turned_images_reach_the_convolution_without_a_transpose(tmp_path: Path) -> None:
    import onnx

    made = converted(write_pixels(tmp_path), layout=TensorLayout.NCHW)

    (convolution,) = [node for node in onnx.load(made.model.path).graph.node if node.op_type == "Conv"]
    assert convolution.input[0] == "image"


def test_another_frameworks_tensors_are_not_turned(tmp_path: Path) -> None:
    assert refused(write(tmp_path, model()), UsageError, layout=TensorLayout.NCHW).code == "usage.layout"
