"""A SavedModel as TensorFlow 1 wrote it, in the form of the example in dl_inference's README."""

import json
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf1
from numpy.typing import NDArray

INPUT = "input_1:0"
OUTPUT = "dense_1/Softmax:0"


def make_tf1_saved_model(folder: Path, *, signature: bool = True, size: int = 16, classes: int = 19) -> None:
    """Write saved_model.pb, variables/ and config.txt into `folder`, which may be new or empty.

    `input_1:0` is float32 NHWC [-1, size, size, 3], `dense_1/Softmax:0` float32 [-1, classes]. The signature, where
    asked for, is `serving_default` with the keys `input` and `probs`. The weights are the same on every call.
    """
    builder = tf1.saved_model.Builder(str(folder))
    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        image, probs = _network(size, classes)
        session.run(tf1.global_variables_initializer())
        signatures = {"serving_default": tf1.saved_model.predict_signature_def({"input": image}, {"probs": probs})}
        builder.add_meta_graph_and_variables(
            session, [tf1.saved_model.tag_constants.SERVING], signature_def_map=signatures if signature else None
        )
        builder.save()
    _write_config(folder, size, classes)


def _network(size: int, classes: int) -> tuple[tf1.Tensor, tf1.Tensor]:
    """Two strided convolutions, the mean over the image and a dense layer, in reference variables as TensorFlow 1's."""
    rng = np.random.default_rng(0)
    image = tf1.placeholder(tf1.float32, [None, size, size, 3], name="input_1")
    x = image
    for number, (channels_in, channels) in enumerate([(3, 16), (16, 32)], start=1):
        with tf1.variable_scope(f"conv2d_{number}"):
            kernel = _variable("kernel", rng.normal(0, (2 / (9 * channels_in)) ** 0.5, (3, 3, channels_in, channels)))
            bias = _variable("bias", rng.normal(0, 0.1, channels))
            convolved = tf1.nn.conv2d(x, kernel, strides=[1, 2, 2, 1], padding="SAME", name="Conv2D")
            x = tf1.nn.relu(tf1.nn.bias_add(convolved, bias, name="BiasAdd"), name="Relu")
    x = tf1.reduce_mean(x, axis=[1, 2], name="global_average_pooling2d_1/Mean")
    with tf1.variable_scope("dense_1"):
        kernel = _variable("kernel", rng.normal(0, 0.5, (32, classes)))
        bias = _variable("bias", rng.normal(0, 0.1, classes))
        logits = tf1.nn.bias_add(tf1.matmul(x, kernel, name="MatMul"), bias, name="BiasAdd")
        probs = tf1.nn.softmax(logits, name="Softmax")
    return image, probs


def _variable(name: str, value: NDArray[np.float64]) -> tf1.Variable:
    return tf1.get_variable(name, initializer=value.astype(np.float32), use_resource=False)


def _write_config(folder: Path, size: int, classes: int) -> None:
    """Write config.txt as dl_inference's README has it, with this model's dims."""

    def tensor(name: str, dims: list[int], node_name: str) -> dict[str, object]:
        return {"name": name, "data_type": "float", "dims": dims, "node_name": node_name}

    config = {
        "batch_size": 0,
        "input": [tensor("image", [-1, size, size, 3], INPUT)],
        "output": [tensor("probs", [-1, classes], OUTPUT)],
    }
    (folder / "config.txt").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
