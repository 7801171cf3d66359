"""The task that a model is judged by: evaluation data, a metric, and what the source framework makes of them."""

from __future__ import annotations

from pathlib import Path

from convkit.errors import InputError, UsageError
from convkit.graph.feed import fixed_rows
from convkit.graph.model import Model, Tensors
from convkit.graph.npz import names_in
from convkit.measure.accuracy import Accuracy, TaskAccuracy, decisions, evaluate, evaluate_answers
from convkit.measure.metrics import Metric, judged_output, needs_labels
from convkit.order import Order
from convkit.pipeline.artifact import Artifact, digest_file
from convkit.pipeline.runner import Runner
from convkit.sources.answers import Questions
from convkit.sources.exported import Exported
from convkit.sources.source import Answering
from convkit.sources.user_code import find_function
from convkit.spec.accuracy import AGREEMENT, TOP1, AccuracyOptions
from convkit.spec.tensor import Interface
from convkit.targets.build_plan import EVALUATION, AccuracyGate
from convkit.targets.target import Compiled

MOST_CARRIED = 256_000_000
"""Bytes of evaluation data that are put beside an engine still to be built."""


class Evaluation:
    """How good models are at their task, each evaluation a remembered step."""

    def __init__(
        self,
        run: Runner,
        *,
        interface: Interface,
        data: Artifact,
        metric: Metric,
        at_most: int | None,
        answers: Tensors,
        source: Accuracy,
        also: tuple[tuple[Metric, Accuracy], ...] = (),
    ) -> None:
        self._run, self._interface, self._data, self._at_most = run, interface, data, at_most
        self.metric = metric
        self.answers = answers
        """The source framework's outputs, a set for each batch."""
        self.source = source
        """How good the source framework's model is."""
        self._also = also

    def of(self, model: Model) -> Accuracy:
        """Return how good an ONNX graph is, run in ONNX Runtime on the same data."""
        return self._run(
            evaluate,
            model,
            data=self._data,
            metric=self.metric,
            answers=self._references,
            at_most=self._at_most,
        )

    def final(self, model: Model, compiled: Compiled) -> Accuracy:
        """Return how good what is served is: the runtime's own answers where it runs here, else the graph's."""
        return self._served(self.metric, self._references, model, compiled)

    def tasks(self, model: Model | None = None, compiled: Compiled | None = None) -> tuple[TaskAccuracy, ...]:
        """Return how good the source's model is at its other tasks, and what is served, as `final` takes it."""
        found = []
        for metric, source in self._also:
            assert metric.labels is not None  # top1 has some
            final = None
            if model is not None and compiled is not None:
                final = self._served(metric, None, model, compiled).value
            found.append(
                TaskAccuracy(
                    output=metric.outputs[0],
                    labels=metric.labels,
                    samples=source.samples,
                    source=source.value,
                    final=final,
                )
            )
        return tuple(found)

    def _served(self, metric: Metric, references: Tensors | None, model: Model, compiled: Compiled) -> Accuracy:
        if compiled.answered is None:
            return self._run(evaluate, model, data=self._data, metric=metric, answers=references, at_most=self._at_most)
        return self._run(
            evaluate_answers,
            compiled.answered(self._data, metric.outputs, self._at_most),
            interface=self._interface,
            data=self._data,
            metric=metric,
            references=references,
            at_most=self._at_most,
        )

    def gate(self, max_drop: float) -> tuple[AccuracyGate, dict[str, Path]]:
        """Return what an engine that is built elsewhere is judged by, and the files of that by the names it gives them.

        More than `MOST_CARRIED` bytes of rows stay where they are.
        """
        data = {f"{EVALUATION}/data/{number:06d}.npz": self._data.file(n) for number, n in enumerate(self._data.files)}
        answers: dict[str, Path] = {}
        if self._references is not None:
            kept = self._run(decisions, self._references, output=self.metric.outputs[0]).files
            answers = {f"{EVALUATION}/answers/{name}": kept.file(name) for name in kept.files}
        function = self.metric.function
        gate = AccuracyGate(
            metric=self.metric.name,
            code=function.files.digest if function is not None else None,
            outputs=self.metric.outputs,
            labels=self.metric.labels,
            at_most=self._at_most,
            source=self.source.value,
            max_drop=max_drop,
            data={name: digest_file(path) for name, path in data.items()},
            carried=self._data.bytes <= MOST_CARRIED,
            answers={name: digest_file(path) for name, path in answers.items()},
        )
        return gate, {**data, **answers}

    @property
    def _references(self) -> Tensors | None:
        return self.answers if self.metric.name == AGREEMENT else None


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
    others = other_metrics(options, interface, order.evaluation)
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
            outputs=tuple(dict.fromkeys(name for each in (metric, *others) for name in each.outputs)),
            at_most=options.samples,
            samples=exported.samples,
            references=exported.references,
        ),
    )
    source, *of_others = (
        run(
            evaluate_answers,
            answers,
            interface=interface,
            data=order.evaluation,
            metric=each,
            references=answers if each.name == AGREEMENT else None,
            at_most=options.samples,
        )
        for each in (metric, *others)
    )
    return Evaluation(
        run,
        interface=interface,
        data=order.evaluation,
        metric=metric,
        at_most=options.samples,
        answers=answers,
        source=source,
        also=tuple(zip(others, of_others, strict=True)),
    )


def other_metrics(options: AccuracyOptions, interface: Interface, data: Artifact) -> tuple[Metric, ...]:
    """Return what `[accuracy] also` names: top1 of further outputs, each with labels of its own.

    Raises:
        InputError: there are no such labels.
        UsageError: there is no such output.
    """
    there = names_in(data.file(data.files[0]))
    for output, labels in options.also.items():
        if labels not in there:
            raise InputError(
                f"{data.file(data.files[0])} has no labels for '{output}': no array is called '{labels}'",
                hint=f"it has: {', '.join(sorted(there))}; [accuracy.also] names them, in data that are .npz files",
                code="data.no-labels",
            )
    return tuple(
        Metric(name=TOP1, outputs=(judged_output(interface, output, TOP1),), labels=labels)
        for output, labels in options.also.items()
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
