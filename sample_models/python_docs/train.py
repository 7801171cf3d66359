"""Train a Keras network and write its SavedModel, config.txt, the data and the README's accuracies.

From the repository's root: python -m sample_models.python_docs.train
"""

from pathlib import Path

from sample_models import batches, keras_training, writing  # before TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers, ops
from numpy.typing import NDArray

from sample_models.python_docs.docs import BODY, SUMMARY, WORDS, Pairs, Texts, pairs, split

FOLDER = Path(__file__).parent
EPOCHS = 8
BATCH = 64
WIDTH = 32
CALIBRATION_SAMPLES = 160
SHARPNESS = 6.0


def encoder(rarity: NDArray[np.float32]) -> keras.Model:
    """Numbers of words [batch, length] to unit vectors [batch, length, 32], weights and mask [batch, length].

    Weights begin as the words' `rarity` [words, 1], and add up to 1 in each text.
    """
    normal = keras.initializers.RandomNormal
    words = keras.Input((None,), dtype="int32")
    mask = ops.cast(ops.not_equal(words, 0), "float32")
    embedded = layers.Embedding(WORDS, WIDTH, embeddings_initializer=normal(0, WIDTH**-0.5))(words)
    x = layers.Dropout(0.3, noise_shape=(None, None, 1))(embedded * ops.expand_dims(mask, 2))
    x = x + layers.Conv1D(WIDTH, 3, padding="same", kernel_initializer=normal(0, 0.02))(x)
    vectors = x / ops.sqrt(ops.sum(x * x, axis=2, keepdims=True) + 1e-6)
    weigh = layers.Embedding(WORDS, 1)
    weights = ops.relu(ops.squeeze(weigh(words), axis=2)) * mask
    weigh.set_weights([rarity])
    weights = weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1e-6)
    return keras.Model(words, [vectors, weights, mask])


def network(rarity: NDArray[np.float32]) -> keras.Model:
    """`summary` and `body` [batch, any length], int32, to {`match`: [batch, 2]}, probabilities of no and yes.

    Both go through one encoder. Each word looks for the one most like it in the other text, as in Khattab and Zaharia,
    "ColBERT", SIGIR 2020; how like, is counted with a kernel as in Xiong et al., "K-NRM", SIGIR 2017.
    """
    summary, body = (keras.Input((None,), dtype="int32", name=name) for name in ("summary", "body"))
    encode = encoder(rarity)
    (first, of_first, first_mask), (second, of_second, second_mask) = encode(summary), encode(body)

    def weighted(values: KerasTensor, weights: KerasTensor) -> KerasTensor:
        return ops.sum(values * weights, axis=1, keepdims=True)

    alike = ops.exp(SHARPNESS * (ops.matmul(first, ops.transpose(second, (0, 2, 1))) - 1))
    found_in_body = weighted(ops.max(alike * ops.expand_dims(second_mask, 1), axis=2), of_first)
    found_in_summary = weighted(ops.max(alike * ops.expand_dims(first_mask, 2), axis=1), of_second)
    means = [ops.sum(v * ops.expand_dims(w, 2), axis=1) for v, w in ((first, of_first), (second, of_second))]
    together = ops.sum(means[0] * means[1], axis=1, keepdims=True)
    lengths = [ops.sum(mask, axis=1, keepdims=True) / 16.0 for mask in (first_mask, second_mask)]
    x = ops.concatenate([found_in_body, found_in_summary, together, *lengths], axis=1)
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model([summary, body], {"match": layers.Dense(2, activation="softmax")(x)})


def rarity(texts: Texts) -> NDArray[np.float32]:
    """The logarithm of how many texts there are for one that has a word, divided by 8: [words, 1]."""
    number = 2 * len(texts.summary)
    having = sum(np.bincount(np.unique(row), minlength=WORDS) for side in texts for row in side)
    return (np.log((number + 1) / (having + 1)) / 8).astype(np.float32)[:, None]


def train(texts: Texts) -> keras.Model:
    """AdamW with a cosine-decayed learning rate; each epoch with other functions' bodies for half of the rows."""
    rng = np.random.default_rng(0)
    model = network(rarity(texts))
    steps = EPOCHS * batches.steps_per_epoch(2 * len(texts.summary), BATCH)
    model.compile(
        optimizer=keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, steps), weight_decay=0.05),
        loss={"match": keras.losses.SparseCategoricalCrossentropy()},
    )
    for _ in range(EPOCHS):
        data = pairs(texts, rng)
        for rows in batches.shuffled(len(data.labels), size=BATCH, epochs=1, rng=rng):
            model.train_on_batch([data.summary[rows], data.body[rows]], {"match": data.labels[rows]})
    return model


def export(model: keras.Model, folder: Path) -> None:
    """Write a SavedModel with one signature, every weight in it once, without its fingerprint (a random id)."""
    texts = {name: tf.TensorSpec((None, None), tf.int32, name) for name in ("summary", "body")}
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    module.match = tf.function(lambda summary, body: model([summary, body], training=False))
    tf.saved_model.save(module, folder, signatures=module.match.get_concrete_function(**texts))
    (folder / "fingerprint.pb").unlink()
    (folder / "assets").rmdir()


def write_config(folder: Path) -> None:
    """Write config.txt with the graph's own tensor names, as `saved_model_cli` shows them."""

    def text(name: str, length: int) -> dict[str, object]:
        dims = {"min_dims": [1, 4], "opt_dims": [1, length], "max_dims": [16, 2 * length]}
        return writing.tensor(
            name, "int32", [-1, -1], node_name=f"serving_default_{name}:0", range=[1, WORDS - 1], **dims
        )

    match = writing.tensor("match", "float", [-1, 2], node_name="StatefulPartitionedCall:0")
    writing.write_config(folder, batch_size=16, inputs=[text("summary", SUMMARY), text("body", BODY)], outputs=[match])


def write_data(folder: Path, training: Pairs, held_out: Pairs) -> None:
    """Write calibration.npz and heldout.npz, arrays under the `name`s of config.txt."""
    few = slice(CALIBRATION_SAMPLES)
    np.savez_compressed(folder / "calibration.npz", summary=training.summary[few], body=training.body[few])
    np.savez_compressed(folder / "heldout.npz", **held_out._asdict())


def by_words_in_common(data: Pairs, threshold: float) -> NDArray[np.bool_]:
    """Where one is right who says yes if more than that share of the summary's words are in the body."""
    texts = [(set(summary) - {0}, set(body)) for summary, body in zip(data.summary, data.body, strict=True)]
    shares = np.array([len(summary & body) / len(summary) for summary, body in texts])
    return (shares > threshold) == data.labels


def main() -> None:
    keras_training.repeatable()
    training, texts = split()
    print(f"{len(training.summary)} functions for training, {len(texts.summary)} held out")
    export(train(training), FOLDER)
    held_out = pairs(texts, np.random.default_rng(1))
    seen = pairs(training, np.random.default_rng(2))
    write_config(FOLDER)
    write_data(FOLDER, seen, held_out)
    match = keras_training.exported_answers(FOLDER, summary=held_out.summary, body=held_out.body)["match"]
    best = max(np.linspace(0, 0.5, 11), key=lambda threshold: by_words_in_common(seen, threshold).mean())
    rights = {
        "Held-out accuracy": match.argmax(axis=1) == held_out.labels,
        "By words in common": by_words_in_common(held_out, best),
    }
    writing.record_accuracy(FOLDER, rights)


if __name__ == "__main__":
    main()
