"""How good a model is at its task: its outputs on evaluation data, judged by a metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING

import msgspec

from convkit.graph.feed import Batch, batch_rows, labelled_batches, rows_of
from convkit.graph.model import Model, Tensors, save_tensors
from convkit.graph.session import open_session, run_session
from convkit.measure.metrics import Metric, decided, scorer
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import observation, step
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import numpy as np


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """How good a model was."""

    value: float
    """In the metric's own unit, a share between 0 and 1 for top1 and agreement; the larger the better."""
    samples: int
    """Rows of the data that it was judged on."""


class TaskAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """How good a model of several tasks was at another of them, by top1, before and after."""

    output: str
    labels: str
    """The array of the evaluation data that holds them."""
    samples: int
    source: float
    """The source framework's model."""
    final: float | None = None
    """The final model; None where the command ended before it was made."""

    @property
    def drop(self) -> float | None:
        """Return what was lost."""
        return None if self.final is None else self.source - self.final


@observation(version=1, stage="measure", title="Measure the accuracy", needs="onnx")
def evaluate(model: Model, *, data: Artifact, metric: Metric, answers: Tensors | None, at_most: int | None) -> Accuracy:
    """Run a model in ONNX Runtime over evaluation data, batch by batch, and judge what it answers.

    Args:
        model: an ONNX graph.
        data: ``.npz`` files of rows, with labels where the metric wants them.
        metric: what is measured.
        answers: the source framework's outputs on the same batches, for agreement.
        at_most: rows to use; None: all.

    Raises:
        InputError: the data do not fit the model, or the labels not its output.
        StepError: ONNX Runtime, or the user's metric, fails.
    """
    session = open_session(model.path)
    names = metric.outputs

    def answered() -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        for batch in labelled_batches(
            model.interface, data, labels=metric.labels, size=batch_rows(model.interface), at_most=at_most
        ):
            yield batch, run_session(session, names, batch.inputs)

    return _judged(answered(), metric, answers, at_most)


@observation(version=2, stage="measure", title="Judge the answers", needs="onnx")
def evaluate_answers(
    answers: Tensors,
    *,
    interface: Interface,
    data: Artifact,
    metric: Metric,
    references: Tensors | None,
    at_most: int | None,
) -> Accuracy:
    """Judge what a framework or a runtime answered on evaluation data. Needs neither onnx nor ONNX Runtime.

    Args:
        answers: a set of outputs for each batch of `batch_rows(interface)` rows.
        interface: what the model takes.
        data: ``.npz`` files of rows, with labels where the metric wants them.
        metric: what is measured.
        references: the source framework's answers on the same batches, or its decisions, for agreement.
        at_most: rows to use; None: all.

    Raises:
        InputError: the labels do not fit the output.
        StepError: the user's metric fails.
    """
    size = batch_rows(interface)
    batches = labelled_batches(interface, data, labels=metric.labels, size=size, at_most=at_most)
    return _judged(zip(batches, answers, strict=True), metric, references, at_most)


@step(version=1, stage="measure", title="Keep the classes that the source chose", needs="onnx")
def decisions(answers: Tensors, *, output: str) -> Tensors:
    """Keep of every set of answers the classes that `output` names: all that agreement looks at."""
    return save_tensors(({output: decided(answer[output])} for answer in answers), digits=6)


def _judged(
    answered: Iterable[tuple[Batch, dict[str, np.ndarray]]],
    metric: Metric,
    answers: Tensors | None,
    at_most: int | None,
) -> Accuracy:
    score, done = scorer(metric), 0
    references: Iterable[dict[str, np.ndarray]] = repeat({}) if answers is None else answers
    for (batch, outputs), reference in zip(answered, references, strict=False):
        sent = len(next(iter(batch.inputs.values())))
        score.add(
            {name: rows_of(outputs[name], name, sent, batch.rows) for name in metric.outputs}, batch.labels, reference
        )
        done += batch.rows
        events.progress(done, at_most or 0, "samples")
    return Accuracy(value=score.value(), samples=done)
