"""Train a Keras network and write its SavedModel, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.digits_keras.train
"""

from pathlib import Path

from sample_models import batches, digits, keras_training  # before TensorFlow

# isort: split
import keras
import numpy as np
from keras import layers

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
    steps = EPOCHS * batches.steps_per_epoch(len(data.labels), BATCH)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        loss={"probs": keras.losses.SparseCategoricalCrossentropy()},
    )
    for rows in batches.shuffled(len(data.labels), size=BATCH, epochs=EPOCHS, rng=rng):
        images = digits.shifted(data.images[rows], rng)[..., np.newaxis]
        model.train_on_batch(images, {"probs": data.labels[rows]})
    return model


def export(model: keras.Model) -> None:
    """Write the SavedModel into this folder, without its fingerprint (a random id) and its empty assets."""
    model.export(FOLDER, verbose=False)
    (FOLDER / "fingerprint.pb").unlink()
    (FOLDER / "assets").rmdir()


def main() -> None:
    keras_training.repeatable()
    training, held_out = digits.split()
    export(train(training))
    digits.write_config(FOLDER, batch_size=0, image_dims=[-1, 8, 8, 1], output="probs")
    digits.write_data(FOLDER, training, held_out, channel_axis=-1)
    probs = keras_training.exported_answers(FOLDER, image=held_out.images[..., np.newaxis])["probs"]
    digits.record_accuracy(FOLDER, probs, held_out)


if __name__ == "__main__":
    main()
