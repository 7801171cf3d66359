"""Metrics: what they count, which output they look at, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convkit.errors import ConvkitError, InputError, StepError, UsageError
from convkit.measure.gates import Found, Verdict, judge
from convkit.measure.metrics import Metric, judged_output, scorer
from convkit.sources.user_code import find_function
from convkit.spec.accuracy import AccuracyOptions
from convkit.spec.options import CheckOptions, GateOptions
from convkit.spec.tensor import DType, Interface, TensorSpec

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.0, 0.1, 0.9], [0.3, 0.4, 0.3]], np.float32)


def gives(*outputs: TensorSpec) -> Interface:
    return Interface(inputs=(), outputs=outputs)


def output(name: str, dtype: DType, *dims: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, dims=dims)


def scored(name: str, *batches: tuple[np.ndarray, Any, Any]) -> float:
    score = scorer(Metric(name=name, outputs=("y",), labels="labels"))
    for outputs, labels, answers in batches:
        score.add({"y": outputs}, None if labels is None else np.asarray(labels), {"y": answers})
    return score.value()


def test_top1_is_the_share_of_highest_scores_that_are_the_label() -> None:
    assert scored("top1", (SCORES[:3], [1, 0, 0], None), (SCORES[3:], [1], None)) == 0.75


def test_labels_below_0_do_not_count() -> None:
    assert scored("top1", (SCORES, [1, 0, -1, -100], None)) == 1.0


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_axis_of_classes_is_the_one_that_the_labels_lack(axis: int) -> None:
    classes = np.random.default_rng(0).integers(0, 5, (2, 6, 7))
    scores = np.moveaxis(np.eye(5, dtype=np.float32)[classes], -1, axis)
    wrong = classes.copy()
    wrong[0, 0, :7] = (wrong[0, 0, :7] + 1) % 5

    assert scored("top1", (scores, classes, None)) == 1.0
    assert scored("top1", (scores, wrong, None)) == 1 - 7 / classes.size


def test_a_model_that_decides_by_itself_is_taken_at_its_word() -> None:
    assert scored("top1", (np.array([1, 2, 3]), [1, 2, 0], None)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 0.0, 1.0], "the labels are float64, and top1 wants the numbers of classes"),
        ([[0], [1], [0], [1]], "the labels have the shape [4, 1], the output 'y' [4, 3]"),
        ([0, 1, 2, 3], "a label is 3, and the output 'y' has 3 classes"),
        ([-1, -1, -1, -1], "no label counts"),
    ],
)
def test_labels_that_top1_cannot_use_are_told(labels: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        scored("top1", (SCORES, labels, None))

    assert message in refused.value.message


def test_agreement_is_the_share_of_classes_that_the_source_chose_too() -> None:
    theirs = SCORES.copy()
    theirs[0] = [0.9, 0.05, 0.05]

    assert scored("agreement", (SCORES[:2], None, theirs[:2]), (SCORES[2:], None, theirs[2:])) == 0.75


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        ([("box", DType.FLOAT32, "batch", 1), ("logits", DType.FLOAT32, "batch", 10)], "logits"),
        ([("ids", DType.INT64, "batch"), ("probs", DType.FLOAT16, "batch", "classes")], "probs"),
        ([("score", DType.FLOAT32, "batch"), ("class", DType.INT64, "batch")], "class"),
    ],
)
def test_the_output_that_names_classes_is_found(outputs: list[Any], chosen: str) -> None:
    assert judged_output(gives(*(output(*each) for each in outputs)), None, "top1") == chosen


def test_a_model_that_names_no_classes_needs_a_metric_of_its_own() -> None:
    regression = gives(output("y", DType.FLOAT32, "batch", 1))

    with pytest.raises(UsageError, match="no output of the model scores any: y float32") as refused:
        judged_output(regression, None, "agreement")
    assert "--metric FILE.py:function" in refused.value.hint
    with pytest.raises(UsageError, match="the model has no output 'z'"):
        judged_output(regression, "z", "top1")
    assert judged_output(regression, "y", "top1") == "y"


def of_function(folder: Path, body: str, *batches: tuple[dict[str, np.ndarray], Any]) -> float:
    (folder / "metric.py").write_text(f"import numpy as np\ndef metric(outputs, labels):\n    {body}\n")
    function = find_function(f"{folder / 'metric.py'}:metric", "--metric")
    score = scorer(Metric(name="metric.py:metric", outputs=("y",), labels="labels", function=function))
    for outputs, labels in batches:
        score.add(outputs, labels, {})
    return score.value()


def test_a_metric_of_the_users_own_gets_all_outputs_and_labels(tmp_path: Path) -> None:
    body = "return -float(np.abs(outputs['y'][:, 0] - labels).mean())"
    batches = [({"y": np.array([[1.0], [2.0]])}, np.array([1, 4])), ({"y": np.array([[6.0]])}, np.array([6]))]

    assert of_function(tmp_path, body, *batches) == pytest.approx(-2 / 3)


def test_outputs_of_other_shapes_stay_apart(tmp_path: Path) -> None:
    body = "return sum(len(row) for row in outputs['y']) + (0 if labels is None else 1)"

    assert of_function(tmp_path, body, ({"y": np.zeros((2, 3))}, None), ({"y": np.zeros((1, 5))}, None)) == 11


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("return labels['no']", StepError, "metric.py:metric raised IndexError"),
        ("return float('nan')", InputError, "returned nan"),
        ("return 'good'", StepError, "metric.py:metric raised ValueError"),
    ],
)
def test_a_metric_that_fails_is_told(body: str, kind: type[ConvkitError], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind) as refused:
        of_function(tmp_path, body, ({"y": SCORES}, np.zeros(4)))

    assert message in refused.value.message


# The budget


@pytest.mark.parametrize(
    ("text", "points"), [("1%", 0.01), ("0.5 %", 0.005), (0.01, 0.01), ("0.01", 0.01), (0, 0.0), ("1e-3", 0.001)]
)
def test_a_drop_is_read_in_points(text: str | float, points: float) -> None:
    assert AccuracyOptions(data="d", max_drop=text).max_drop_points == pytest.approx(points)


@pytest.mark.parametrize("text", ["-1%", "much", "", "1 point", 1, "100%", "nan"])
def test_a_drop_that_is_none_is_refused(text: str | float) -> None:
    with pytest.raises(UsageError) as refused:
        AccuracyOptions(data="d", max_drop=text).require_max_drop()

    assert refused.value.code == "accuracy.max-drop"


def test_a_metric_of_the_users_own_has_points_of_its_own() -> None:
    assert AccuracyOptions(data="d", metric="metric.py:map", max_drop=2.5).max_drop_points == 2.5


@pytest.mark.parametrize(
    ("drop", "verdict"), [(0.01, "passed"), (-0.2, "passed"), (0.0101, "failed"), (None, "deferred")]
)
def test_a_drop_is_held_against_what_was_asked_for(drop: float | None, verdict: str) -> None:
    (gate,) = judge(GateOptions(), CheckOptions(), Found(drop=drop), unknown=Verdict.DEFERRED, max_drop=0.01)

    assert (gate.name, gate.asked, gate.found, gate.verdict.value) == ("max-drop", 0.01, drop, verdict)
