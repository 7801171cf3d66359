"""Asking a runtime for its answers on evaluation data, batch by batch, in portions that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from convkit.graph.feed import batch_rows, labelled_batches, padded, rows_of
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np

    Case = dict[str, np.ndarray]


def answers_to(
    interface: Interface,
    data: Artifact,
    outputs: tuple[str, ...],
    at_most: int | None,
    answer: Callable[[Case], Case],
) -> Iterator[Case]:
    """Yield `outputs` for each batch of `batch_rows(interface)` rows; rows that only fill a fixed batch are left out.

    Raises:
        InputError: the data do not fit the model, or an output has no row for each sample.
    """
    done = 0
    size = batch_rows(interface)
    for batch in labelled_batches(interface, data, labels=None, size=size, at_most=at_most):
        answered, sent = answer(batch.inputs), len(next(iter(batch.inputs.values())))
        yield {name: rows_of(answered[name], name, sent, batch.rows) for name in outputs}
        done += batch.rows
        events.progress(done, at_most or 0, "samples")


def in_portions(case: Case, outputs: tuple[str, ...], answer: Callable[[Case], Case], *, least: int, most: int) -> Case:
    """Answer a batch of any size with what takes `least` to `most` rows: in portions, a short one filled with its last.

    Raises:
        InputError: an output has no row for each sample, so that portions cannot be put together.
    """
    import numpy as np

    rows = len(next(iter(case.values())))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    for start in range(0, rows, most):
        part = {name: array[start : start + most] for name, array in case.items()}
        count = len(next(iter(part.values())))
        filled = {name: padded(array, least) for name, array in part.items()}
        answered = answer(filled)
        for name in outputs:
            parts[name].append(rows_of(answered[name], name, max(count, least), count))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
