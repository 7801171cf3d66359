"""Metrics of accuracy: each is fed a model's outputs batch by batch, and says at the end how good they were."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from convkit.errors import InputError, UsageError
from convkit.sources.user_code import UserFunction, load_function, running
from convkit.spec.accuracy import AGREEMENT, TOP1
from convkit.spec.tensor import Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_OPTION = "--metric"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured."""

    name: str
    """``top1``, ``agreement``, or what the user calls their function."""
    outputs: tuple[str, ...]
    """The outputs that it looks at."""
    labels: str | None
    """The name of the array with the labels; None: it wants none, or there are none."""
    function: UserFunction | None = None


class Scorer(Protocol):
    """A metric on its way through the data."""

    def add(self, outputs: dict[str, np.ndarray], labels: np.ndarray | None, answers: dict[str, np.ndarray]) -> None:
        """Take one batch: a model's outputs, the labels, and what the source framework answered (for agreement)."""

    def value(self) -> float:
        """Return how good all outputs were: the larger, the better."""


def scorer(metric: Metric) -> Scorer:
    """Begin to score."""
    if metric.function is not None:
        return _Function(metric.function)
    (output,) = metric.outputs
    return _Agreement(output) if metric.name == AGREEMENT else _Top1(output)


def judged_output(interface: Interface, asked: str | None, metric: str) -> str:
    """Return the output that names the classes.

    Raises:
        UsageError: there is none, or none of the name asked for.
    """
    names = [spec.name for spec in interface.outputs]
    if asked is not None:
        found = next((spec.name for spec in interface.outputs if asked in (spec.name, spec.alias)), None)
        if found is None:
            raise UsageError(
                f"[accuracy] output: the model has no output '{asked}'",
                hint=f"it has: {', '.join(names)}",
                code="accuracy.output",
            )
        return found
    most = 3 if metric == AGREEMENT else 9
    scores = (spec.name for spec in interface.outputs if _has_scores(spec) and len(spec.dims) <= most)
    decided = (spec.name for spec in interface.outputs if "int" in spec.dtype.value and spec.dims)
    found = next(scores, None) or next(decided, None)
    if found is None:
        raise UsageError(
            f"--metric {metric} compares classes, and no output of the model scores any: "
            + "; ".join(map(str, interface.outputs)),
            hint="name a metric of your own: --metric FILE.py:function",
            code="accuracy.no-classes",
        )
    return found


def _has_scores(spec: TensorSpec) -> bool:
    return spec.dtype.is_float and len(spec.dims) >= 2 and spec.dims[-1] != 1


class _Top1:
    """The share of labels that have the highest score, or are what the model itself decided on.

    The axis of classes is the one by which the output has more axes than the labels: the last, else the second. Labels
    below 0 are left out.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._right = self._all = 0

    def add(self, outputs: dict[str, np.ndarray], labels: np.ndarray | None, answers: dict[str, np.ndarray]) -> None:
        del answers
        assert labels is not None
        labels = labels.astype("int64") if labels.dtype.kind == "b" else labels
        chosen = self._chosen(outputs[self._output], labels)
        counted = labels >= 0
        self._right += int(((chosen == labels) & counted).sum())
        self._all += int(counted.sum())

    def value(self) -> float:
        if not self._all:
            raise InputError("no label counts: all are below 0", hint="label the data", code="data.labels")
        return self._right / self._all

    def _chosen(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if labels.dtype.kind not in "iu":
            raise InputError(
                f"the labels are {labels.dtype}, and top1 wants the numbers of classes",
                hint="save them as whole numbers: labels.astype('int64'); for other labels name a metric of your own",
                code="data.labels",
            )
        if scores.dtype.kind in "iub" and scores.shape == labels.shape:
            return scores
        axis = next((axis for axis in (-1, 1) if _without(scores.shape, axis) == labels.shape), None)
        if axis is None:
            raise InputError(
                f"the labels have the shape {list(labels.shape)}, the output '{self._output}' {list(scores.shape)}: it "
                "should have one axis more, that of the classes",
                hint="give one number of a class for each sample (or position), or name a metric of your own: "
                "--metric FILE.py:function",
                code="data.labels",
            )
        if labels.max(initial=-1) >= scores.shape[axis]:
            raise InputError(
                f"a label is {labels.max()}, and the output '{self._output}' has {scores.shape[axis]} classes, counted "
                "from 0",
                hint="give the numbers of the model's own classes",
                code="data.labels",
            )
        chosen: np.ndarray = scores.argmax(axis=axis)
        return chosen


class _Agreement:
    """The share of samples (or positions) where a model chooses the class that the source framework chose."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._same = self._all = 0

    def add(self, outputs: dict[str, np.ndarray], labels: np.ndarray | None, answers: dict[str, np.ndarray]) -> None:
        del labels
        ours, theirs = decided(outputs[self._output]), decided(answers[self._output])
        self._same += int((ours == theirs).sum())
        self._all += ours.size

    def value(self) -> float:
        return self._same / max(self._all, 1)


def decided(answer: np.ndarray) -> np.ndarray:
    """Return the classes that an output names: itself, or where its scores, along the last axis, are highest."""
    classes: np.ndarray = answer if answer.dtype.kind in "iub" else answer.argmax(axis=-1)
    return classes


class _Function:
    """What a function of the user's says, called once with all outputs and all labels."""

    def __init__(self, function: UserFunction) -> None:
        self._function = function
        self._outputs: dict[str, list[np.ndarray]] = {}
        self._labels: list[np.ndarray] = []

    def add(self, outputs: dict[str, np.ndarray], labels: np.ndarray | None, answers: dict[str, np.ndarray]) -> None:
        del answers
        for name, array in outputs.items():
            self._outputs.setdefault(name, []).append(array)
        if labels is not None:
            self._labels.append(labels)

    def value(self) -> float:
        outputs = {name: _stacked(parts) for name, parts in self._outputs.items()}
        labels = _stacked(self._labels) if self._labels else None
        with running(self._function):
            found: Any = load_function(self._function, _OPTION)(outputs, labels)
            value = float(found)
        if not math.isfinite(value):
            raise InputError(
                f"{_OPTION} {self._function.name} returned {value}",
                hint="return a finite number, the larger the better",
                code="accuracy.not-finite",
            )
        return value


def _stacked(parts: list[np.ndarray]) -> Any:
    """Put rows together; where their shapes differ they stay a list, one array for each."""
    import numpy as np

    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return [row for part in parts for row in part]


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    at = axis % len(shape) if shape else 0
    return (*shape[:at], *shape[at + 1 :])


def needs_labels(name: str) -> bool:
    """Tell whether a metric cannot do without labels."""
    return name == TOP1
