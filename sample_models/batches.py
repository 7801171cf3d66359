"""The order in which the training scripts go through their data."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def shuffled(samples: int, *, size: int, epochs: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch, each epoch in an order of its own; what fills no batch is left out."""
    steps = steps_per_epoch(samples, size)
    for _ in range(epochs):
        yield from np.split(rng.permutation(samples)[: steps * size], steps)


def steps_per_epoch(samples: int, size: int) -> int:
    return samples // size
