"""How the sample models in Keras are trained, and asked. Import it before TensorFlow."""

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # both are read once, when TensorFlow is imported
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # sums in one order, on any processor

import keras
import tensorflow as tf
from numpy.typing import NDArray


def repeatable() -> None:
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()


def exported_answers(folder: Path, **inputs: NDArray) -> dict[str, NDArray]:
    """What the SavedModel on disk answers."""
    serving = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answers = serving(**{name: tf.constant(array) for name, array in inputs.items()})
    return {name: answer.numpy() for name, answer in answers.items()}
