"""A model of several tasks: one output is the one that is gated, the others are judged beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from report.samples import faster_report

import convkit
from convkit.errors import InputError, UsageError
from convkit.measure.accuracy import TaskAccuracy
from convkit.report.document import Accuracy, Report, Role
from convkit.report.markdown import to_markdown
from convkit.report.verdict import worsened

ROWS, WRONG = 40, 10


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks.onnx, whose outputs are its input and that negated, and data.npz: of the second a quarter of
    the labels are wrong."""
    folder = tmp_path_factory.mktemp("tasks")
    value = helper.make_tensor_value_info
    shape = ["batch", 5]
    nodes = [helper.make_node("Relu", ["x"], ["most"]), helper.make_node("Neg", ["x"], ["least"])]
    outputs = [value(name, TensorProto.FLOAT, shape) for name in ("most", "least")]
    graph = helper.make_graph(nodes, "tasks", [value("x", TensorProto.FLOAT, shape)], outputs)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "tasks.onnx")
    x = np.random.default_rng(0).random((ROWS, 5), np.float32)
    lows = x.argmin(1)
    lows[:WRONG] = (lows[:WRONG] + 1) % 5
    np.savez(folder / "data.npz", x=x, labels=x.argmax(1), lows=lows)
    return folder


def converted(tasks: Path, output: Path, *, to: str = "onnxruntime", **accuracy: Any) -> Report:
    table = {"data": tasks / "data.npz", "also": {"least": "lows"}, **accuracy}
    return convkit.convert(
        tasks / "tasks.onnx", to=to, output=output, measure={"mode": "none"}, accuracy=table, cache=tasks / "cache"
    )


@pytest.mark.parametrize("to", ["onnxruntime", "openvino"])
def test_every_output_with_labels_of_its_own_is_judged_before_and_after(to: str, tasks: Path, tmp_path: Path) -> None:
    pytest.importorskip(to)

    accuracy = converted(tasks, tmp_path, to=to, max_drop="1%").accuracy

    assert accuracy is not None
    assert (accuracy.output, accuracy.source, accuracy.final) == ("most", 1.0, 1.0)
    right = 1 - WRONG / ROWS
    assert accuracy.tasks == (TaskAccuracy(output="least", labels="lows", samples=ROWS, source=right, final=right),)
    page = (tmp_path / "tasks" / "1" / "convkit" / "report.md").read_text(encoding="utf-8")
    assert "### Accuracy of the other outputs" in page
    assert "| least | 40 | 75.00 % | 75.00 % | 0.00 % |" in page


def test_labels_that_are_not_there_are_named_with_their_output(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labels for 'least': no array is called 'nothing'") as refused:
        converted(tasks, tmp_path, also={"least": "nothing"})

    assert refused.value.code == "data.no-labels"


def test_an_output_that_is_not_there_is_named(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no output 'fewest'"):
        converted(tasks, tmp_path, also={"fewest": "lows"})


def test_other_outputs_without_data_are_refused(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        converted(tasks, tmp_path, data=None)

    assert refused.value.code == "accuracy.no-data"


def test_what_another_output_lost_is_bad_news() -> None:
    report = faster_report()
    task = TaskAccuracy(output="tags", labels="tags", samples=100, source=0.9, final=0.8)
    accuracy = Accuracy(metric="top1", samples=100, source=0.9, final=0.9, drop=0.0, tasks=(task,))

    said = worsened(msgspec.structs.replace(report, accuracy=accuracy))

    final = report.subject(Role.FINAL)
    assert final is not None
    [sentence] = [each for each in said if each.startswith("LESS ACCURATE")]
    assert f"top1 of the output 'tags' of {final.label} is 80.00 %" in sentence
    assert "10.00 % is lost" in sentence


def test_a_task_that_was_not_judged_after_has_no_figure_there() -> None:
    task = TaskAccuracy(output="tags", labels="tags", samples=100, source=0.9)
    accuracy = Accuracy(metric="top1", samples=100, source=0.9, tasks=(task,))

    text = to_markdown(msgspec.structs.replace(faster_report(), accuracy=accuracy))

    assert "| tags | 100 | 90.00 % | – | – |" in text
