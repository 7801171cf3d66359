"""The task that a model is judged by: evaluation data, a metric, and what the source framework makes of them."""

from __future__ import annotations

from convkit.errors import InputError, UsageError
from convkit.graph.feed import fixed_rows
from convkit.graph.model import Model, Tensors
from convkit.graph.npz import names_in
from convkit.measure.accuracy import Accuracy, evaluate, evaluate_answers
from convkit.measure.metrics import Metric, judged_output, needs_labels
from convkit.order import Order
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.runner import Runner
from convkit.sources.answers import Questions
from convkit.sources.exported import Exported
from convkit.sources.source import Answering
from convkit.sources.user_code import find_function
from convkit.spec.accuracy import AGREEMENT, TOP1, AccuracyOptions
from convkit.spec.tensor import Interface


class Evaluation:
    """How good models are at their task, each evaluation a remembered step."""

    def __init__(
        self, run: Runner, *, data: Artifact, metric: Metric, at_most: int | None, answers: Tensors, source: Accuracy
    ) -> None:
        self._run, self._data, self._at_most = run, data, at_most
        self.metric = metric
        self.answers = answers
        """The source framework's outputs, a set for each batch."""
        self.source = source
        """How good the source framework's model is."""

    def of(self, model: Model) -> Accuracy:
        """Return how good an ONNX graph is, run in ONNX Runtime on the same data."""
        answers = self.answers if self.metric.name == AGREEMENT else None
        return self._run(evaluate, model, data=self._data, metric=self.metric, answers=answers, at_most=self._at_most)


def begin_evaluation(order: Order, run: Runner, exported: Exported) -> Evaluation | None:
    """Ask the source framework for its answers on the evaluation data; None where there are none.

    Raises:
        InputError: the data do not fit the model, or have no labels where the metric needs them.
        UsageError: the metric does not go with the model's outputs, or the source cannot be asked.
    """
    if order.evaluation is None:
        return None
    options, interface = order.request.accuracy, exported.model.interface
    fixed_rows(interface)
    metric = metric_for(options, interface, order.evaluation)
    if not isinstance(order.source, Answering):
        raise UsageError(
            f"a source of the kind '{order.source.kind}' cannot be asked for its answers on --eval-data",
            hint="leave --eval-data out; its author may add answers() to it (docs/plugins.md)",
            code="accuracy.no-answers",
        )
    answers = order.source.answers(
        run,
        Questions(
            interface=interface,
            data=order.evaluation,
            outputs=metric.outputs,
            at_most=options.samples,
            samples=exported.samples,
            references=exported.references,
        ),
    )
    source = run(
        evaluate_answers,
        answers,
        interface=interface,
        data=order.evaluation,
        metric=metric,
        at_most=options.samples,
    )
    return Evaluation(
        run, data=order.evaluation, metric=metric, at_most=options.samples, answers=answers, source=source
    )


def metric_for(options: AccuracyOptions, interface: Interface, data: Artifact) -> Metric:
    """Choose what is measured: what was asked for, else top1 where the data have labels, else agreement.

    Raises:
        InputError: top1 was asked for, and there are no labels.
        UsageError: no output names classes.
    """
    names = names_in(data.file(data.files[0]))
    labels = options.labels if options.labels in names else None
    name = options.metric or (TOP1 if labels is not None else AGREEMENT)
    if needs_labels(name) and labels is None:
        raise InputError(
            f"{data.file(data.files[0])} has no labels: no array is called '{options.labels}'",
            hint=f"it has: {', '.join(sorted(names))}; name the labels with --labels-key, or compare with the source "
            "framework's own answers: --metric agreement",
            code="data.no-labels",
        )
    if name not in (TOP1, AGREEMENT):
        outputs = (options.output,) if options.output is not None else tuple(spec.name for spec in interface.outputs)
        function = find_function(name, "--metric")
        return Metric(name=function.name, outputs=outputs, labels=labels, function=function)
    output = judged_output(interface, options.output, name)
    return Metric(name=name, outputs=(output,), labels=labels if name == TOP1 else None)
