"""The data that the sample models for digits learn from: scikit-learn's bundled 8x8 handwritten digits."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sample_models import writing

CALIBRATION_SAMPLES = 160
HELD_OUT_SAMPLES = 450


class Digits(NamedTuple):
    """`images` [n, 8, 8], float32 from 0 to 1; `labels` [n], int64 from 0 to 9."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def split() -> tuple[Digits, Digits]:
    """The 1797 digits as (training, held-out): 1347 and 450, shuffled, each digit in equal shares; always the same."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    train_images, held_images, train_labels, held_labels = train_test_split(
        images, labels, test_size=HELD_OUT_SAMPLES, stratify=labels, random_state=0
    )
    return Digits(train_images, train_labels), Digits(held_images, held_labels)


def shifted(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each image of [n, 8, 8] moved by -1, 0 or 1 pixel along each axis, zeros moving in."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    corners = rng.integers(0, 3, size=(len(images), 2))
    return np.stack(
        [image[row : row + 8, column : column + 8] for image, (row, column) in zip(padded, corners, strict=True)]
    )


def write_data(folder: Path, train: Digits, held_out: Digits, *, channel_axis: int) -> None:
    """Write calibration.npz (`image`) and heldout.npz (`image`, `labels`) with the channel where the model has it."""
    calibration = np.expand_dims(train.images[:CALIBRATION_SAMPLES], channel_axis)
    np.savez_compressed(folder / "calibration.npz", image=calibration)
    held_images = np.expand_dims(held_out.images, channel_axis)
    np.savez_compressed(folder / "heldout.npz", image=held_images, labels=held_out.labels)


def write_config(folder: Path, *, batch_size: int, image_dims: list[int], output: str) -> None:
    """Write config.txt for one float input `image` and one float output of ten classes."""
    writing.write_config(
        folder,
        batch_size=batch_size,
        inputs=[writing.tensor("image", "float", image_dims)],
        outputs=[writing.tensor(output, "float", [-1, 10])],
    )


def record_accuracy(folder: Path, scores: NDArray[np.float32], held_out: Digits) -> None:
    """Print the top-1 accuracy of `scores` [n, 10] and put it into the README."""
    writing.record_accuracy(folder, {"Held-out accuracy": scores.argmax(axis=1) == held_out.labels})
