"""A source framework's own answers on evaluation data: what every later model's accuracy is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import StepError
from convkit.graph.feed import batch_rows, labelled_batches
from convkit.graph.model import Tensors, save_tensors
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np

Case = dict[str, "np.ndarray"]


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What a source is to answer."""

    interface: Interface
    data: Artifact
    """``.npz`` files of rows."""
    outputs: tuple[str, ...]
    """The outputs that are wanted, by their wire names."""
    at_most: int | None
    samples: Tensors
    references: Tensors
    """Inputs, and what the model that was exported answered on them."""


def answer_all(questions: Questions, answer: Callable[[Case], Case]) -> Tensors:
    """Answer batch after batch; the rows that only fill a fixed batch are left out.

    Args:
        questions: what is asked.
        answer: runs the model on one case; in and out under wire names.

    Raises:
        StepError: it is not the model that was exported.
        InputError: the data do not fit the model.
    """
    _require_same(questions, answer)
    return save_tensors(_answers(questions, answer), digits=6)


def _answers(questions: Questions, answer: Callable[[Case], Case]) -> Iterator[Case]:
    interface, done = questions.interface, 0
    size = batch_rows(interface)
    for batch in labelled_batches(interface, questions.data, labels=None, size=size, at_most=questions.at_most):
        outputs = answer(batch.inputs)
        done += batch.rows
        events.progress(done, questions.at_most or 0, "samples")
        yield {name: outputs[name][: batch.rows] for name in questions.outputs}


def _require_same(questions: Questions, answer: Callable[[Case], Case]) -> None:
    """Hold the model, which may have been built again, against what the exported one answered."""
    import numpy as np

    given, expected = next(iter(questions.samples)), next(iter(questions.references))
    answered = answer(given)
    for name, reference in expected.items():
        if reference.dtype.kind not in "fiub":
            continue
        found = np.asarray(answered[name], np.float64)
        if not np.allclose(found, reference.astype(np.float64), rtol=1e-2, atol=1e-3, equal_nan=True):
            raise StepError(
                f"the model does not answer on '{name}' what it answered when it was exported: it was built again, and "
                "is another",
                hint="let it load its weights rather than draw them, or convert with an empty cache "
                "(CONVKIT_CACHE_DIR)",
                code="source.not-the-same",
            )
