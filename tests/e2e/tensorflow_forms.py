"""The network of `forms` in the forms that TensorFlow and Keras know, with the same weights.

Each is a function that writes a folder. Two of them hold names of tensors that are nothing to a user: they are matched
by order, or given as node_name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.forms import IDS, POOLED, TAG_COUNT, TAGS, VOCABULARY, WEIGHTS, WIDTH, weights, write_config


def keras_model() -> Any:
    """Return the network in Keras: layers of Keras's own alone."""
    import keras

    held = weights()
    ids = keras.Input((None,), dtype="int64", name=IDS)
    factors = keras.Input((None,), dtype="float32", name=WEIGHTS)
    hidden = keras.layers.Embedding(VOCABULARY, WIDTH, name="embed")(ids)
    hidden = keras.layers.Dense(WIDTH, activation="tanh", name="mix")(hidden)
    hidden = keras.layers.Multiply(name="scale")([hidden, keras.layers.Reshape((-1, 1), name="column")(factors)])
    tags = keras.layers.Dense(TAG_COUNT, name=TAGS)(hidden)
    pooled = keras.layers.GlobalAveragePooling1D(name=POOLED)(hidden)
    model = keras.Model({IDS: ids, WEIGHTS: factors}, {TAGS: tags, POOLED: pooled})
    model.get_layer("embed").set_weights([held.embedding])
    model.get_layer("mix").set_weights([held.mix, held.mix_bias])
    model.get_layer(TAGS).set_weights([held.head, held.head_bias])
    return model


def keras_file(folder: Path) -> Path:
    keras_model().save(write_config(folder) / "model.keras")
    return folder


def hdf5_file(folder: Path) -> Path:
    keras_model().save(write_config(folder) / "model.h5")
    return folder


def keras_export(folder: Path) -> Path:
    write_config(folder)
    keras_model().export(str(folder / "saved"), verbose=False)
    return folder


def module() -> Any:
    """Return the network in TensorFlow 2, without Keras."""
    import tensorflow as tf

    class Tagger(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = [tf.Variable(array) for array in weights()]

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None], tf.int64, IDS),
                tf.TensorSpec([None, None], tf.float32, WEIGHTS),
            ]
        )
        def __call__(self, ids: Any, factors: Any) -> dict[str, Any]:
            embedding, mix, mix_bias, head, head_bias = self.held
            hidden = tf.tanh(tf.gather(embedding, ids) @ mix + mix_bias) * factors[..., None]
            return {TAGS: hidden @ head + head_bias, POOLED: tf.reduce_mean(hidden, axis=1)}

    return Tagger()


def with_signature(folder: Path) -> Path:
    import tensorflow as tf

    made = module()
    tf.saved_model.save(made, str(write_config(folder) / "saved"), signatures=made.__call__)
    return folder


def without_signature(folder: Path) -> Path:
    import tensorflow as tf

    tf.saved_model.save(module(), str(write_config(folder) / "saved"))
    return folder


def _graph(tf1: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    held = [tf1.get_variable(f"held_{number}", initializer=array) for number, array in enumerate(weights())]
    embedding, mix, mix_bias, head, head_bias = held
    ids = tf1.placeholder(tf1.int64, [None, None], name=IDS)
    factors = tf1.placeholder(tf1.float32, [None, None], name=WEIGHTS)
    hidden = tf1.tanh(tf1.tensordot(tf1.gather(embedding, ids), mix, [[2], [0]]) + mix_bias)
    hidden = hidden * tf1.expand_dims(factors, -1)
    tags = tf1.add(tf1.tensordot(hidden, head, [[2], [0]]), head_bias, name=TAGS)
    pooled = tf1.reduce_mean(hidden, axis=1, name=POOLED)
    return {IDS: ids, WEIGHTS: factors}, {TAGS: tags, POOLED: pooled}


def _written(folder: Path, *, frozen: bool) -> Path:
    import tensorflow as tf

    tf1 = tf.compat.v1
    write_config(folder)
    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        _graph(tf1)
        session.run(tf1.global_variables_initializer())
        if frozen:
            graph_def = tf1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [TAGS, POOLED])
            (folder / "model.pb").write_bytes(graph_def.SerializeToString())
        else:
            builder = tf1.saved_model.Builder(str(folder / "saved"))
            builder.add_meta_graph_and_variables(session, ["serve"])
            builder.save()
    return folder


def frozen_graph(folder: Path) -> Path:
    return _written(folder, frozen=True)


def tensorflow_1_without_signature(folder: Path) -> Path:
    return _written(folder, frozen=False)
