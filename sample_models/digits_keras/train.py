"""Train a Keras network and write its SavedModel, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.digits_keras.train
"""

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # both are read once, when TensorFlow is imported
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # sums in one order, on any processor

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from sample_models import digits

FOLDER = Path(__file__).parent
EPOCHS = 30
BATCH = 64


def network() -> keras.Model:
    """Images [batch, 8, 8, 1], float32 from 0 to 1, to {`probs`: [batch, 10]}; keys become the signature's names."""
    image = keras.Input((8, 8, 1), name="image")
    x = image
    for channels in (16, 32, 32):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        if channels == 32:
            x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(image, {"probs": layers.Dense(10, activation="softmax")(x)})


def train(data: digits.Digits) -> keras.Model:
    """Adam with a cosine-decayed learning rate, on images moved by up to one pixel."""
    rng = np.random.default_rng(0)
    model = network()
    steps_per_epoch = len(data.labels) // BATCH
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * steps_per_epoch)),
        loss={"probs": keras.losses.SparseCategoricalCrossentropy()},
    )
    for _ in range(EPOCHS):
        order = rng.permutation(len(data.labels))[: steps_per_epoch * BATCH]
        for chosen in np.split(order, steps_per_epoch):
            images = digits.shifted(data.images[chosen], rng)[..., np.newaxis]
            model.train_on_batch(images, {"probs": data.labels[chosen]})
    return model


def export(model: keras.Model) -> None:
    """Write the SavedModel into this folder, without its fingerprint (a random id) and its empty assets."""
    model.export(FOLDER, verbose=False)
    (FOLDER / "fingerprint.pb").unlink()
    (FOLDER / "assets").rmdir()


def exported_probs(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the SavedModel on disk answers to images [n, 8, 8]: [n, 10]."""
    loaded = tf.saved_model.load(str(FOLDER))
    answer = loaded.signatures["serving_default"](image=tf.constant(images[..., np.newaxis]))
    return answer["probs"].numpy()


def main() -> None:
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    training, held_out = digits.split()
    export(train(training))
    digits.write_config(FOLDER, batch_size=0, image_dims=[-1, 8, 8, 1], output="probs")
    digits.write_data(FOLDER, training, held_out, channel_axis=-1)
    digits.record_accuracy(FOLDER, exported_probs(held_out.images), held_out)


if __name__ == "__main__":
    main()
