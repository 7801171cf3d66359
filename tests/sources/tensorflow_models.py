"""Small SavedModels that the tests of the TensorFlow source convert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1


class TwoByTwo(tf.Module):
    """Token ids (int32 [batch, length]) and a mask to scores for each token and one sum, through an embedding."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.table = tf.Variable(rng.normal(size=(20, 4)).astype(np.float32))
        self.kernel = tf.Variable(rng.normal(size=(4, 3)).astype(np.float32))
        self.steps = tf.Variable(7.0)  # nothing depends on it

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32, "ids"), tf.TensorSpec([None, None], tf.float32, "mask")]
    )
    def score(self, ids: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        embedded = tf.gather(self.table, ids) * mask[..., None]
        return {"tokens": embedded @ self.kernel, "pooled": tf.reduce_sum(embedded, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def project(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ self.kernel}


class Special(tf.Module):
    """One function for each peculiarity."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def incomplete_gamma(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.math.igamma(tf.abs(x), tf.abs(x), name="gamma")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None, 2], tf.float32, "x")])
    def with_text(self, text: tf.Tensor, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"same": tf.identity(text), "twice": x * 2}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.complex64, "x")])
    def complex_in(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.abs(x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x"), tf.TensorSpec([], tf.int32, "times")])
    def loop(self, x: tf.Tensor, times: tf.Tensor) -> dict[str, tf.Tensor]:
        for _ in tf.range(times):
            x = x * 0.5 + 1.0
        return {"y": x - 1.0 if tf.reduce_sum(x) > 5.0 else x + 1.0}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x"), tf.TensorSpec([None], tf.int32, "unused")])
    def partly_used(self, x: tf.Tensor, unused: tf.Tensor) -> dict[str, tf.Tensor]:
        return {f"out_{number}": x + number for number in range(12)}

    @tf.function(input_signature=[tf.TensorSpec([2, 4], tf.uint8, "x")])
    def fixed_batch(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.cast(x, tf.float32) / 255.0}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def any_rank(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + 1.0}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x"), tf.TensorSpec([None, 4], tf.float32, "y")])
    def only_small(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"z": tf.ensure_shape(x, [3, 4]) + y}


def write_function(folder: Path, name: str) -> Path:
    """Save `Special` with the function `name` as its only signature."""
    module = Special()
    tf.saved_model.save(module, str(folder), signatures=getattr(module, name))
    return folder


def write_graph(folder: Path, build: Callable[[], tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]]) -> Path:
    """Save a TensorFlow 1 graph; `build` returns the signature's inputs and outputs."""
    builder = tf1.saved_model.Builder(str(folder))
    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        inputs, outputs = build()
        session.run(tf1.global_variables_initializer())
        signatures = {"serving_default": tf1.saved_model.predict_signature_def(inputs, outputs)}
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map=signatures, main_op=tf1.tables_initializer()
        )
        builder.save()
    return folder


def dropout_graph() -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """A placeholder with a default that nobody feeds, two names for one output, and logits outside the signature."""
    x = tf1.placeholder(tf1.float32, [None, 4], name="x")
    rate = tf1.placeholder_with_default(0.0, [], name="rate")
    kernel = tf1.get_variable("kernel", initializer=np.eye(4, 3, dtype=np.float32), use_resource=False)
    logits = tf1.identity(tf1.matmul(x, kernel) * (1.0 - rate), name="head/logits")
    probs = tf1.nn.softmax(logits, name="head/probs")
    return {"x": x}, {"probs": probs, "scores": probs}


def unfed_graph() -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """The output depends on a placeholder that the signature does not list."""
    x = tf1.placeholder(tf1.float32, [None, 4], name="x")
    phase = tf1.placeholder(tf1.float32, [], name="phase")
    return {"x": x}, {"y": x * phase}


def table_graph() -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Words to numbers, through a lookup table."""
    words = tf1.placeholder(tf1.string, [None], name="words")
    content = tf.lookup.KeyValueTensorInitializer(["one", "two"], tf.constant([1, 2], tf.int64))
    table = tf.lookup.StaticHashTable(content, -1)
    return {"words": words}, {"numbers": table.lookup(words)}
